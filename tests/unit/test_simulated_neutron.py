"""The simulated Neutron beside what each has (tests/contract/test_network_contract.py): agents, half-done calls, and
what machines of the simulated world have of its ports."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from resizeflow.drivers import connect
from resizeflow.drivers.definition import read
from resizeflow.drivers.interface import Connection, Exists, Fence, Refused, Unknown, Unreachable
from resizeflow.drivers.network import NetworkAgent, Plug, plug_of
from resizeflow.drivers.simulator import Cause, Fault, SimulatedWorld
from resizeflow.drivers.simulator.agents import KIND, UNPLUGGED


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    world = SimulatedWorld(tmp_path / "world.db").create()
    world.add_neutron()
    for name in ("h1", "h2"):
        world.add_host(name, bridges=("br0", "br-int"))
        world.set_agent(name)
    return world


@pytest.fixture
def neutron(world: SimulatedWorld) -> Connection:
    return opened(world, "neutron")


def opened(world: SimulatedWorld, name: str) -> Connection:
    connection = connect(world.uri(name))
    connection.open(1)
    return connection


def ask(connection: Connection, method: str, *args: Any, fence: Fence | None = None) -> Any:
    return connection.call(method, args, timeout=5, fence=fence)


def guest(world: SimulatedWorld, host: str = "h1", *, running: bool = True, bridged: bool = False) -> tuple[str, str]:
    """A machine with one port, and the port."""
    port = world.create_port()
    uuid = world.create_guest(host, "web", 1, 512, {"vda": 1}, running=running, ports=(port,), bridged=bridged)
    return uuid, port


def moved(world: SimulatedWorld, neutron: Connection, uuid: str, port: str) -> Connection:
    """The machine is off on h1, its port bound to h2, where it is defined; h2."""
    h1, h2 = opened(world, "h1"), opened(world, "h2")
    ask(h1, "destroy", uuid)
    xml = ask(h1, "domain", uuid).inactive_xml
    start = xml.index("<disk")
    ask(h2, "define", xml[:start] + xml[xml.index("</disk>") + len("</disk>") :])
    ask(neutron, "create_binding", port, "h2", "normal", {})
    ask(neutron, "activate_binding", port, "h2")
    return h2


def unplugged(world: SimulatedWorld) -> list[tuple[str, str, str]]:
    found = [effect for effect in world.effects() if effect.method == UNPLUGGED]
    assert all(effect.caused is Cause.WORLD for effect in found)
    return [(effect.host, effect.subject, effect.digest) for effect in found]


# --- machines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bridged", [False, True])
def test_a_machine_has_a_nic_as_neutron_says(world: SimulatedWorld, neutron: Connection, bridged: bool) -> None:
    uuid, port = guest(world, bridged=bridged)
    seen, (binding,) = ask(neutron, "port", port), ask(neutron, "bindings", port)
    nics = read(ask(opened(world, "h1"), "domain", uuid).live_xml).nics
    plug = plug_of(seen, binding)
    assert plug == Plug(seen.mac, "br-int", f"tap{port}"[:14], port, 1450)
    nic = nics[-1]
    assert (nic.mac, nic.bridge, nic.device, nic.interface_id) == (plug.mac, plug.bridge, plug.device, port)
    assert [nic.bridge for nic in nics[:-1]] == (["br0"] if bridged else [])


def test_a_host_without_the_bridge_starts_no_such_machine(world: SimulatedWorld) -> None:
    world.add_host("h3")
    world.set_agent("h3")
    port = world.create_port()
    with pytest.raises(Refused, match="'br-int': No such device"):
        world.create_guest("h3", "web", 1, 512, {}, ports=(port,))


def test_a_port_comes_and_goes_while_the_machine_runs(world: SimulatedWorld, neutron: Connection) -> None:
    uuid, first = guest(world)
    later = world.create_port(mac="fa:16:3e:00:00:01", mtu=9000)
    assert world.see_port(later).bindings == ()
    world.attach_port("h1", uuid, later)
    assert world.see_port(later) == world.see_port(first)
    assert world.see_port(later).bindings == (("h1", "ACTIVE", "ovs"),)
    world.detach_port("h1", uuid, first)
    domain = ask(opened(world, "h1"), "domain", uuid)
    assert [nic.mac for nic in read(domain.live_xml).nics] == [nic.mac for nic in read(domain.inactive_xml).nics]
    assert [nic.mac for nic in read(domain.live_xml).nics] == ["fa:16:3e:00:00:01"]
    assert (world.see_port(first).instance, world.see_port(first).status) == ("", "DOWN")
    assert [port.mtu for port in ask(neutron, "ports", uuid)] == [9000]


def test_of_a_port_that_nobody_has_bindings_stay_and_stand_in_the_way(
    world: SimulatedWorld, neutron: Connection
) -> None:
    uuid, port = guest(world)
    h2 = moved(world, neutron, uuid, port)
    ask(h2, "start_paused", uuid)
    world.detach_port("h2", uuid, port)
    for method, *args in (("bindings",), ("delete_binding", "h1"), ("create_binding", "h2", "normal", {})):
        with pytest.raises(Refused, match="Operation only valid on compute"):
            ask(neutron, method, port, *args)
    assert world.see_port(port).bindings == (("h1", "INACTIVE", "unbound"),)
    with pytest.raises(Unknown, match="internal server error"):
        world.attach_port("h1", uuid, port)
    world.attach_port("h2", uuid, port)
    assert world.see_port(port).bindings == (("h1", "INACTIVE", "unbound"), ("h2", "ACTIVE", "ovs"))


def test_a_port_has_one_machine(world: SimulatedWorld) -> None:
    uuid, port = guest(world)
    other = world.create_guest("h2", "other", 1, 512, {"vda": 1})
    with pytest.raises(Refused, match="still in use"):
        world.attach_port("h2", other, port)
    world.delete_port(port)
    assert uuid not in repr(world.snapshot()["neutron"])


# --- agents ----------------------------------------------------------------------------------------------


def test_a_port_is_plugged_in_while_its_machine_is_on(world: SimulatedWorld, neutron: Connection) -> None:
    uuid, port = guest(world, running=False)
    h1 = opened(world, "h1")
    assert ask(neutron, "port", port).status == "DOWN"
    ask(h1, "start_paused", uuid)
    assert ask(neutron, "port", port).plugged
    ask(h1, "resume", uuid)
    assert unplugged(world) == []
    ask(h1, "destroy", uuid)
    assert ask(neutron, "port", port).status == "DOWN"


def test_whoever_does_not_ask_runs_a_machine_with_dead_ports(world: SimulatedWorld) -> None:
    uuid, port = guest(world, running=False)
    h1 = opened(world, "h1")
    ask(h1, "start_paused", uuid)
    ask(h1, "resume", uuid)
    assert unplugged(world) == [("h1", port, "h1")]


def test_a_machine_that_runs_where_its_port_is_not_bound_is_seen(world: SimulatedWorld, neutron: Connection) -> None:
    uuid, port = guest(world)
    h2 = moved(world, neutron, uuid, port)
    ask(h2, "start_paused", uuid)
    assert ask(neutron, "port", port).plugged
    ask(neutron, "activate_binding", port, "h1")
    assert ask(neutron, "port", port).status == "DOWN"
    ask(h2, "resume", uuid)
    assert unplugged(world) == [("h2", port, "h1")]


def test_an_agent_takes_its_time(world: SimulatedWorld, neutron: Connection) -> None:
    uuid, port = guest(world, running=False)
    world.set_speed(plug_seconds=3600)
    ask(opened(world, "h1"), "start_paused", uuid)
    assert not ask(neutron, "port", port).plugged
    world.set_speed(plug_seconds=0)
    assert ask(neutron, "port", port).plugged


def test_an_agent_that_does_nothing_or_is_dead_plugs_nothing_in(world: SimulatedWorld, neutron: Connection) -> None:
    uuid, port = guest(world)
    assert ask(neutron, "port", port).plugged
    world.set_agent("h1", alive=False)
    ask(opened(world, "h1"), "destroy", uuid)
    assert ask(neutron, "port", port).plugged, "nobody tells Neutron of it"
    world.set_agent("h1", plugs=False)
    assert not ask(neutron, "port", port).plugged
    ask(opened(world, "h1"), "start_paused", uuid)
    assert not ask(neutron, "port", port).plugged


def test_a_host_without_power_has_no_living_agent(world: SimulatedWorld, neutron: Connection) -> None:
    uuid, port = guest(world)
    world.set_domain("h1", uuid, autostart=True)
    world.crash("h1")
    assert ask(neutron, "network_agents") == (NetworkAgent("h1", KIND, False), NetworkAgent("h2", KIND, True))
    world.set_up("h1", True)
    assert world.running(uuid) == ("h1",)
    assert ask(neutron, "port", port).plugged


def test_an_agent_has_a_port_bound_that_was_active_before(world: SimulatedWorld, neutron: Connection) -> None:
    uuid, port = guest(world)
    moved(world, neutron, uuid, port)
    ask(neutron, "activate_binding", port, "h1")
    assert world.see_port(port).bindings == (("h1", "ACTIVE", "unbound"), ("h2", "INACTIVE", "unbound"))
    ask(opened(world, "h1"), "start_paused", uuid)
    assert world.see_port(port).bindings == (("h1", "ACTIVE", "ovs"), ("h2", "INACTIVE", "unbound"))
    assert world.see_port(port).status == "ACTIVE"


# --- faults ----------------------------------------------------------------------------------------------


def test_killed_in_the_middle_of_activating_it_has_unbound_the_active_one_only(
    world: SimulatedWorld, neutron: Connection
) -> None:
    _uuid, port = guest(world, running=False)
    ask(neutron, "create_binding", port, "h2", "normal", {})
    world.fail("neutron", "activate_binding", fault=Fault.HALF)
    with pytest.raises(Unknown):
        ask(neutron, "activate_binding", port, "h2")
    neutron.open(1)
    assert world.see_port(port).bindings == (("h1", "ACTIVE", "unbound"), ("h2", "INACTIVE", "ovs"))
    with pytest.raises(Exists, match="already active"):
        ask(neutron, "activate_binding", port, "h1")
    ask(neutron, "activate_binding", port, "h2")
    assert world.see_port(port).bindings == (("h1", "INACTIVE", "unbound"), ("h2", "ACTIVE", "ovs"))


@pytest.mark.parametrize("method", ["create_binding", "delete_binding"])
def test_other_calls_are_whole_or_nothing(world: SimulatedWorld, method: str) -> None:
    with pytest.raises(ValueError, match="cannot be half done"):
        world.fail("neutron", method, fault=Fault.HALF)


def test_it_is_down_and_hangs_as_a_host_does_and_does_late_what_hung(
    world: SimulatedWorld, neutron: Connection
) -> None:
    _uuid, port = guest(world)
    world.set_up("neutron", False)
    with pytest.raises(Unreachable, match="'neutron' is down"):
        ask(neutron, "network_service")
    world.set_up("neutron", True)
    neutron.open(1)
    world.fail("neutron", "create_binding", fault=Fault.HANG, attempts=1)
    soon = Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + 60, "j-1", 7)
    with pytest.raises(Unknown):
        ask(neutron, "create_binding", port, "h2", "normal", {"trusted": "true"}, fence=soon)
    with pytest.raises(Unreachable, match="does not answer"):
        neutron.open(1)
    assert len(world.see_port(port).bindings) == 1
    neutron.open(1)
    assert [(binding.host, binding.profile) for binding in ask(neutron, "bindings", port)] == [
        ("h1", {}),
        ("h2", {"trusted": "true"}),
    ]
    (effect,) = world.effects()
    assert (effect.host, effect.method, effect.subject, effect.epoch) == ("neutron", "create_binding", port, 7)


# --- what is told ----------------------------------------------------------------------------------------


def test_two_moments_are_compared_by_what_is_bound_where(world: SimulatedWorld, neutron: Connection) -> None:
    _uuid, port = guest(world)
    before = world.snapshot()
    ask(neutron, "create_binding", port, "h2", "normal", {})
    assert world.snapshot()["neutron"][port]["bindings"] == (("h1", "ACTIVE", "ovs"), ("h2", "INACTIVE", "ovs"))
    ask(neutron, "delete_binding", port, "h2")
    assert world.snapshot() == before
