"""A Neutron that cannot be used as it is configured, or ports that cannot be moved: a resize is refused with one
sentence, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers import definition
from tests.misconfigured import resize_is_refused
from tests.openstack_stub import (
    AGENTS,
    EXTENSION,
    Answer,
    Stub,
    neutron_without_keystone,
    nobody,
    with_keystone,
)

PORT = "0710c85f-0000-4000-8000-000000000001"
NETWORK = "0710c85f-0000-4000-8000-000000000002"
Options = Mapping[str, str]


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    """A machine with a NIC, which was adopted before there was a Neutron."""
    return Cloud(memory_path).build()


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A Neutron and a Keystone."""
    with Stub() as stub:
        stub.is_neutron()
        stub.is_keystone(stub.url)
        stub.is_neutron()
        yield stub


def at_nobody(_stub: Stub) -> Options:
    return neutron_without_keystone(nobody())


def without_an_endpoint(_stub: Stub) -> Options:
    return {"auth_type": "noauth"}


def at_something_else(stub: Stub) -> Options:
    stub.answer(f"GET {EXTENSION}", Answer(body={"version": {"id": "v3.14", "status": "stable"}}))
    return neutron_without_keystone(stub.url)


def without_the_extension(stub: Stub) -> Options:
    stub.answer(f"GET {EXTENSION}", Answer(404, "<html>Extension with alias binding-extended does not exist</html>"))
    return neutron_without_keystone(stub.url)


def without_administrators(stub: Stub) -> Options:
    refusal = {"type": "PolicyNotAuthorized", "message": "rule:get_agent is disallowed by policy", "detail": ""}
    stub.answer(f"GET {AGENTS}", Answer(403, {"NeutronError": refusal}))
    return neutron_without_keystone(stub.url)


def without_the_role(stub: Stub) -> Options:
    stub.is_keystone(stub.url, "admin")
    return with_keystone(stub.url)


def without_a_right(stub: Stub) -> Options:
    stub.answer("POST /v3/auth/tokens", Answer(401, {"error": {"message": "no", "code": 401, "title": "Unauthorized"}}))
    return with_keystone(stub.url)


def in_another_region(stub: Stub) -> Options:
    return {**with_keystone(stub.url), "region_name": "two"}


def by_an_unknown_plugin(_stub: Stub) -> Options:
    return {"auth_type": "kerberoast"}


@pytest.mark.parametrize(
    ("configured", "words"),
    [
        (at_nobody, "Connection refused"),
        (without_an_endpoint, "lacks endpoint"),
        (at_something_else, "is something else, not Neutron"),
        (without_the_extension, "lacks the API extension binding-extended"),
        (without_administrators, "rule:get_agent is disallowed by policy; grant the roles admin and service"),
        (without_the_role, "no role service, without which Neutron binds no port to a second host: grant it"),
        (without_a_right, "does not accept the login: correct the credentials in section [neutron]"),
        (in_another_region, "has no such Neutron in its catalog: correct region_name"),
        (by_an_unknown_plugin, "has auth_type kerberoast, which is not known: it can be"),
    ],
)
def test_it_is_refused(cloud: Cloud, stub: Stub, configured: Callable[[Stub], Options], words: str) -> None:
    resize_is_refused(cloud, "neutron", configured(stub), "it has NICs, and ", words)


GOOD: Mapping[str, Any] = {
    "host": "h1",
    "status": "ACTIVE",
    "vif_type": "ovs",
    "vnic_type": "normal",
    "profile": {},
    "vif_details": {"bridge_name": "br-int"},
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"host": "h2"}, "is bound to h2, the machine is on h1"),
        ({"status": "INACTIVE"}, "is bound to no host, the machine is on h1"),
        ({"vnic_type": "direct"}, "its vnic_type is direct: a device of the host itself cannot be moved"),
        ({"vif_type": "binding_failed", "vif_details": {}}, "Neutron could not bind it to h1"),
        ({"vif_type": "unbound", "vif_details": {}}, "it is bound as unbound"),
        ({"vif_type": "hw_veb"}, "it is bound as hw_veb, where only ovs and bridge can be plugged in by libvirt"),
        ({"vif_details": {"bridge_name": "br-int", "ovs_hybrid_plug": True}}, "through a firewall bridge"),
        ({"vif_details": {}}, "Neutron does not say into which bridge it is plugged"),
    ],
)
def test_a_port_that_cannot_be_moved_is_refused(
    cloud: Cloud, stub: Stub, changed: Mapping[str, Any], words: str
) -> None:
    has_port(cloud, stub, mac_of(cloud), {**GOOD, **changed})
    resize_is_refused(cloud, "neutron", neutron_without_keystone(stub.url), f"Port {PORT} (", " of web) ", words)


def test_a_port_without_a_nic_is_refused(cloud: Cloud, stub: Stub) -> None:
    has_port(cloud, stub, "fa:16:3e:00:00:99", dict(GOOD))
    words = f"Port {PORT} is web's at Neutron, but it has no NIC fa:16:3e:00:00:99"
    resize_is_refused(cloud, "neutron", neutron_without_keystone(stub.url), words)


def mac_of(cloud: Cloud) -> str:
    cloud.connections.to(cloud.world.uri("h1")).open(5)
    facts = cloud.connections.to(cloud.world.uri("h1")).call("domain", (cloud.uuid,), timeout=5)
    (nic,) = definition.read(facts.inactive_xml).nics
    return nic.mac


def has_port(cloud: Cloud, stub: Stub, mac: str, binding: Mapping[str, Any]) -> None:
    """Neutron has a port of the machine, with this binding."""
    row = {"id": PORT, "mac_address": mac, "device_id": cloud.uuid, "status": "ACTIVE", "network_id": NETWORK}
    stub.answer("GET /v2.0/ports", Answer(body={"ports": [row]}))
    stub.answer(f"GET /v2.0/ports/{PORT}", Answer(body={"port": row}))
    stub.answer(f"GET /v2.0/networks/{NETWORK}", Answer(body={"network": {"id": NETWORK, "mtu": 1450}}))
    stub.answer(f"GET /v2.0/ports/{PORT}/bindings", Answer(body={"bindings": [binding]}))
