"""The libvirt driver on a real host: what it sees and what it does."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.system import wait_until
from resizeflow.drivers.hypervisor import HostFacts, MergeFacts, PowerState, SecretFacts, SecretSpec, VolumeSpec
from resizeflow.drivers.interface import Exists, Missing, Refused
from resizeflow.drivers.secret import Secret
from tests.lab.driven import GIB, MIB, POOL, Driven, definition, same, write

pytest_plugins = ["tests.lab.driven_hosts"]
pytestmark = pytest.mark.lab

# --- looks -----------------------------------------------------------------------------------------------


def test_a_host_describes_itself(one: Driven) -> None:
    facts = one("facts")
    assert isinstance(facts, HostFacts)
    assert (facts.uuid, facts.hostname) == (one.host.uuid, one.host.hostname)
    assert facts.vcpus == os.cpu_count()
    total = int(Path("/proc/meminfo").read_text().split()[1])
    assert facts.memory_mb == total // 1024
    assert {"q35", "pc-q35-7.2"} <= facts.machines
    assert "qemu" in facts.domain_types
    assert facts.bridges == {one.host.bridge}


def test_a_pool(one: Driven) -> None:
    facts = one("pool", POOL)
    assert (facts.name, facts.path) == (POOL, str(one.host.pool_path))
    assert 0 < facts.available <= facts.capacity
    with pytest.raises(Missing, match=f"{one.host.hostname}.*'none'"):
        one("pool", "none")


def test_looking_at_all_domains_is_cheap_and_tells_what_looking_at_one_does(one: Driven) -> None:
    identities = sorted(str(uuid.uuid4()) for _ in range(50))
    for identity in identities:
        one("define", definition(identity))
    one("set_autostart", identities[0], True)
    found = one("domains")
    assert sorted(facts.uuid for facts in found) == identities
    assert least(lambda: one("domains")) < least(lambda: [one.domain(identity) for identity in identities]) / 2
    assert [facts for facts in found if facts.autostart] == [one.domain(identities[0])]


def least(act: Callable[[], object]) -> float:
    """Seconds that something takes, by the quickest of a few times."""
    taken = []
    for _ in range(3):
        began = time.monotonic()
        act()
        taken.append(time.monotonic() - began)
    return min(taken)


def test_secrets_are_in_one_answer_only(one: Driven) -> None:
    identity = str(uuid.uuid4())
    one("define", definition(identity, extra="<graphics type='vnc' port='-1' passwd='s3cret'/>"))
    one("start_paused", identity)
    facts = one.domain(identity)
    assert facts is not None
    assert "s3cret" not in repr(facts)
    assert "passwd='s3cret'" in one("definition_with_secrets", identity)


# --- secrets ---------------------------------------------------------------------------------------------

NOVA_S = "5ec4e700-0000-4000-8000-00000000000a"
"""A secret as Nova's guide makes it."""


def define_another_s(one: Driven, *, private: str) -> None:
    one.host.virsh(
        "secret-define",
        "/dev/stdin",
        stdin=f"<secret ephemeral='no' private='{private}'><uuid>{NOVA_S}</uuid><description>resizeflow</description>"
        "<usage type='ceph'><name>client.cinder secret</name></usage></secret>",
    )
    one.host.virsh("secret-set-value", NOVA_S, "a2V5")


@pytest.mark.parametrize("private", ["no", "yes"])
def test_a_secret_of_somebody_else_s_is_read_if_it_may_be_and_left_alone(one: Driven, private: str) -> None:
    define_another_s(one, private=private)
    try:
        assert one("secrets") == (SecretFacts(NOVA_S, "ceph", None),)
        if private == "no":
            assert one("secret_value", NOVA_S) == Secret(b"key")
        else:
            with pytest.raises(Refused, match="private"):
                one("secret_value", NOVA_S)
        with pytest.raises(Refused, match="already defined") as refused:
            one("define_secret", SecretSpec(NOVA_S, "ceph", "m1", Secret(b"an0ther")))
        assert "an0ther" not in str(refused.value)
        assert one("secrets") == (SecretFacts(NOVA_S, "ceph", None),)
    finally:
        one("undefine_secret", NOVA_S)


def test_secrets_of_other_kinds_are_listed_but_not_made(one: Driven) -> None:
    one.host.virsh("secret-define", "/dev/stdin", stdin=f"<secret><uuid>{NOVA_S}</uuid></secret>")
    try:
        assert one("secrets") == (SecretFacts(NOVA_S, "none", None),)
    finally:
        one("undefine_secret", NOVA_S)
    with pytest.raises(Refused, match="vtpm"):
        one("define_secret", SecretSpec(NOVA_S, "vtpm", "m1", Secret(b"value")))


# --- volumes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_volumes_are_made_sparse_grown_and_deleted(one: Driven, form: str) -> None:
    assert one.volume("v") is None
    one.create("v", GIB, form)
    facts = one.volume("v")
    assert facts is not None
    assert (facts.capacity, facts.format, facts.path) == (GIB, form, str(one.path("v")))
    assert facts.allocation < MIB
    with pytest.raises(Exists):
        one.create("v", GIB, form)
    one("grow_volume", POOL, "v", 2 * GIB)
    one("grow_volume", POOL, "v", 2 * GIB)
    with pytest.raises(Refused, match="shrink"):
        one("grow_volume", POOL, "v", GIB)
    assert [volume.capacity for volume in one("volumes", POOL)] == [2 * GIB]
    one("delete_volume", POOL, "v")
    with pytest.raises(Missing):
        one("delete_volume", POOL, "v")


def test_volumes_that_others_make_and_remove_are_seen(one: Driven) -> None:
    one.path("file").write_bytes(bytes(MIB))
    facts = one.volume("file")
    assert facts is not None
    assert facts.capacity == MIB
    one.path("file").unlink()
    assert one.volume("file") is None


def test_an_overlay_is_never_smaller_than_what_it_covers(one: Driven) -> None:
    one.create("base", GIB, "raw")
    base = str(one.path("base"))
    with pytest.raises(Refused, match="smaller"):
        one("create_volume", POOL, VolumeSpec("over", GIB // 2, "qcow2", base, "raw"))
    with pytest.raises(Refused, match="format"):
        one("create_volume", POOL, VolumeSpec("over", GIB, "qcow2", base))
    with pytest.raises(Missing):
        one("create_volume", POOL, VolumeSpec("over", GIB, "qcow2", f"{base}-not", "raw"))
    one("create_volume", POOL, VolumeSpec("over", 2 * GIB, "qcow2", base, "raw"))
    facts = one.volume("over")
    assert facts is not None
    assert (facts.capacity, facts.backing_path) == (2 * GIB, base)


def test_files_in_use_are_not_deleted_and_not_grown(one: Driven) -> None:
    for name in ("base", "alone"):
        one.create(name, GIB, "raw")
    one("create_volume", POOL, VolumeSpec("over", GIB, "qcow2", str(one.path("base")), "raw"))
    with pytest.raises(Refused, match="backing file of"):
        one("delete_volume", POOL, "base")
    identity = str(uuid.uuid4())
    one("define", definition(identity, (one.path("over"), "qcow2"), (one.path("alone"), "raw"), name="user"))
    for name in ("base", "over", "alone"):
        with pytest.raises(Refused, match="domain 'user'"):
            one("delete_volume", POOL, name)
    one("grow_volume", POOL, "alone", 2 * GIB)
    one("start_paused", identity)
    for name in ("base", "over", "alone"):
        with pytest.raises(Refused, match="running domain 'user'"):
            one("grow_volume", POOL, name, 3 * GIB)
    one("destroy", identity)
    one("undefine", identity)
    for name in ("alone", "over", "base"):
        one("delete_volume", POOL, name)


# --- domains ---------------------------------------------------------------------------------------------


def test_a_domain_from_definition_to_oblivion(one: Driven) -> None:
    identity = str(uuid.uuid4())
    for method in ("start_paused", "destroy", "undefine", "resume", "shutdown"):
        with pytest.raises(Missing, match=identity):
            one(method, identity)
    one("define", definition(identity))
    one("shutdown", identity)
    one("destroy", identity)
    with pytest.raises(Refused):
        one("resume", identity)
    assert one.state(identity) is PowerState.SHUTOFF
    one("start_paused", identity)
    with pytest.raises(Exists):
        one("start_paused", identity)
    assert one.state(identity) is PowerState.PAUSED
    with pytest.raises(Refused, match="running"):
        one("undefine", identity)
    one("resume", identity)
    one("resume", identity)
    one("shutdown", identity)
    assert one.state(identity) is PowerState.RUNNING
    one("define", definition(identity))
    one("destroy", identity)
    facts = one.domain(identity)
    assert facts is not None
    assert (facts.state, facts.persistent, facts.live_xml) == (PowerState.SHUTOFF, True, None)
    one("undefine", identity)
    assert one.domain(identity) is None


def test_a_definition_with_an_unknown_element_is_refused_unless_the_host_has_the_domain(one: Driven) -> None:
    identity = str(uuid.uuid4())
    with pytest.raises(Refused, match="failed to validate"):
        one("define", definition(identity, extra="<frobnicator/>"))
    assert one.domain(identity) is None
    one("define", definition(identity))
    one("define", definition(identity, extra="<frobnicator/>"))
    with pytest.raises(Refused, match="not XML"):
        one("define", "<domain>")


def test_a_saved_domain_is_not_woken_up(one: Driven) -> None:
    identity = str(uuid.uuid4())
    one("define", definition(identity))
    one("start_paused", identity)
    one.host.virsh("managedsave", identity)
    facts = one.domain(identity)
    assert facts is not None
    assert facts.managed_save
    with pytest.raises(Refused, match="managed save"):
        one("start_paused", identity)
    with pytest.raises(Refused):
        one("undefine", identity)
    one.host.virsh("managedsave-remove", identity)


def test_a_carrier_leaves_the_definition_of_its_domain_alone(one: Driven) -> None:
    identity = str(uuid.uuid4())
    one.create("v", GIB, "qcow2")
    nic = f"<interface type='bridge'><source bridge='{one.host.bridge}'/></interface>"
    one("define", definition(identity, (one.path("v"), "qcow2"), extra=nic))
    before = one.domain(identity)
    one("start_carrier", definition(identity, (one.path("v"), "qcow2")))
    carrier = one.domain(identity)
    assert before is not None
    assert carrier is not None
    assert carrier.live_xml is not None
    assert "<interface" not in carrier.live_xml
    assert carrier.inactive_xml == before.inactive_xml
    assert (carrier.state, carrier.persistent) == (PowerState.PAUSED, True)
    for method, argument in (("start_carrier", definition(identity)), ("start_paused", identity)):
        with pytest.raises(Exists):
            one(method, argument)
    one("destroy", identity)
    assert one.domain(identity) == before


# --- merges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_an_overlay_is_merged_into_the_file_below_it_and_no_deeper(one: Driven, form: str) -> None:
    identity = str(uuid.uuid4())
    one.create("template", GIB, "qcow2")
    if form == "qcow2":
        template = str(one.path("template"))
        one("create_volume", POOL, VolumeSpec("base", GIB, "qcow2", template, "qcow2"))
    else:
        one.create("base", GIB, form)
    write(one.path("base"), form, "write -P 1 0 20M")
    untouched = one.path("template").read_bytes()
    one("create_volume", POOL, VolumeSpec("over", 2 * GIB, "qcow2", str(one.path("base")), form))
    write(one.path("over"), "qcow2", "write -P 2 10M 20M", "write -P 3 1500M 1M")
    expected = one.path("expected")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", one.path("over"), expected], check=True)
    one("start_carrier", definition(identity, (one.path("over"), "qcow2")))

    with pytest.raises(Missing, match="vdx"):
        one("start_merge", identity, "vdx", 0)
    with pytest.raises(Missing, match="no merge"):
        one("pivot_merge", identity, "vda")
    assert one("merge", identity, "vda") is None
    one("start_merge", identity, "vda", 5 * MIB)
    with pytest.raises(Exists):
        one("start_merge", identity, "vda", 0)
    facts = one.domain(identity)
    assert facts is not None
    assert facts.merging == {"vda"}
    with pytest.raises(Refused, match="not ready"):
        one("pivot_merge", identity, "vda")

    def ready() -> bool:
        merge = one("merge", identity, "vda")
        assert isinstance(merge, MergeFacts)
        return merge.ready

    assert wait_until(ready, 60)
    one("pivot_merge", identity, "vda")
    assert one("merge", identity, "vda") is None
    facts = one.domain(identity)
    assert facts is not None
    assert str(one.path("base")) in facts.inactive_xml
    one("destroy", identity)
    assert same(one.path("base"), expected)
    assert one.path("template").read_bytes() == untouched
    one("delete_volume", POOL, "over")


def test_a_merge_does_not_pivot_under_a_running_guest(one: Driven) -> None:
    identity = str(uuid.uuid4())
    one.create("base", GIB, "qcow2")
    one("create_volume", POOL, VolumeSpec("over", GIB, "qcow2", str(one.path("base")), "qcow2"))
    one("define", definition(identity, (one.path("over"), "qcow2")))
    with pytest.raises(Refused, match="off"):
        one("start_merge", identity, "vda", 0)
    one("start_paused", identity)
    one("resume", identity)
    one("start_merge", identity, "vda", 0)
    with pytest.raises(Refused, match="paused"):
        one("pivot_merge", identity, "vda")
