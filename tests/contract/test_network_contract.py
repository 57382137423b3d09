"""What every network driver does, tried on the simulated Neutron and on a real one."""

from __future__ import annotations

import time

import pytest

from resizeflow.drivers.interface import Exists, Fence, Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.network import BINDING_FAILED, LAYER_2_AGENTS, UNBOUND, Plug, PortBinding, plug_of
from tests.contract.contract_sites import until
from tests.contract.network_sites import HERE, NOWHERE, THERE, NetworkSite
from tests.contract.volume_sites import new_id

PROFILE = {"trusted": "true", "cards": [1, 2]}
OVS = "ovs"


def fence(seconds: float) -> Fence:
    return Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, "j-contract", 1)


# --- looks -----------------------------------------------------------------------------------------------


def test_neutron_is_there(neutron: NetworkSite) -> None:
    assert neutron.ask("network_service") is None


def test_agents_are_known_by_their_hosts(neutron: NetworkSite) -> None:
    agents = {agent.host: agent for agent in neutron.ask("network_agents")}
    assert {HERE, THERE} <= set(agents)
    assert all(agent.kind in LAYER_2_AGENTS and agent.alive for agent in agents.values())
    neutron.set_agent(THERE, alive=False)
    try:
        agents = {agent.host: agent for agent in neutron.ask("network_agents")}
        assert (agents[HERE].alive, agents[THERE].alive) == (True, False)
    finally:
        neutron.set_agent(THERE, alive=True)


def test_what_is_not_there(neutron: NetworkSite) -> None:
    """A binding of a port that does not exist is answered with 500 (AttributeError in Neutron)."""
    nothing = new_id()
    assert neutron.ask("port", nothing) is None
    assert neutron.ask("ports", nothing) == ()
    assert neutron.ask("bindings", nothing) == ()
    for method in ("activate_binding", "delete_binding"):
        with pytest.raises(Missing):
            neutron.ask(method, nothing, HERE)
    neutron.fails("internal server error", "create_binding", nothing, HERE, "normal", {})


def test_a_machine_has_its_ports(neutron: NetworkSite) -> None:
    machine = new_id()
    made = sorted(neutron.make(machine) for _ in range(3))
    neutron.make(new_id())
    found = neutron.ask("ports", machine)
    assert [port.id for port in found] == made
    for port in found:
        assert port == neutron.shown(port.id)
        assert (port.instance_id, port.mtu, port.status, port.plugged) == (machine, 1400, "DOWN", False)
        assert port.mac.count(":") == 5


def test_a_port_of_a_machine_is_bound_to_its_host(neutron: NetworkSite) -> None:
    port = neutron.make(new_id())
    (binding,) = neutron.ask("bindings", port)
    assert binding == PortBinding(HERE, active=True, vif_type=OVS, vnic_type="normal", bridge="br-int", profile={})
    shown = neutron.shown(port)
    assert plug_of(shown, binding) == Plug(shown.mac, "br-int", f"tap{port}"[:14], port, 1400)


def test_a_closed_connection_is_not_opened_by_a_call(neutron: NetworkSite) -> None:
    neutron.connection.close()
    with pytest.raises(Unreachable):
        neutron.ask("network_service")
    neutron.connection.open(20)
    neutron.connection.open(20)
    neutron.ask("network_service")


def test_nothing_is_watched(neutron: NetworkSite) -> None:
    with pytest.raises(ValueError, match="not watched"):
        neutron.connection.watch("create_binding", (new_id(), HERE, "normal", {}))


# --- acts ------------------------------------------------------------------------------------------------


def test_a_port_is_bound_to_a_second_host_and_moved_there(neutron: NetworkSite) -> None:
    port = neutron.make(new_id())
    before = neutron.bindings(port)[HERE]
    neutron.ask("create_binding", port, THERE, "normal", PROFILE)
    assert neutron.bindings(port) == {
        HERE: before,
        THERE: PortBinding(THERE, active=False, vif_type=OVS, bridge="br-int", profile=PROFILE),
    }
    neutron.ask("activate_binding", port, THERE)
    assert neutron.bindings(port) == {
        HERE: PortBinding(HERE, active=False, vif_type=UNBOUND),
        THERE: PortBinding(THERE, active=True, vif_type=OVS, bridge="br-int", profile=PROFILE),
    }
    neutron.ask("delete_binding", port, HERE)
    assert neutron.table(port) == {THERE: (True, OVS)}


def test_what_is_done_already_is_refused(neutron: NetworkSite) -> None:
    """So a request that is repeated makes no second binding, and whoever got no answer may ask again."""
    port = neutron.make(new_id())
    for host in (HERE, THERE):
        if host == THERE:
            neutron.ask("create_binding", port, THERE, "normal", {})
        with pytest.raises(Exists, match="already exists"):
            neutron.ask("create_binding", port, host, "normal", {})
    with pytest.raises(Exists, match="already active"):
        neutron.ask("activate_binding", port, HERE)
    neutron.ask("delete_binding", port, THERE)
    for method in ("delete_binding", "activate_binding"):
        with pytest.raises(Missing, match="could not be found"):
            neutron.ask(method, port, THERE)
    assert neutron.table(port) == {HERE: (True, OVS)}


def test_a_host_without_a_living_agent_gets_no_binding(neutron: NetworkSite) -> None:
    """500 with PortBindingError: nothing is left of it, but that is to be looked at, as after any 500."""
    port = neutron.make(new_id())
    neutron.fails("could not be created or updated", "create_binding", port, NOWHERE, "normal", {})
    neutron.set_agent(THERE, alive=False)
    try:
        neutron.fails("could not be created or updated", "create_binding", port, THERE, "normal", {})
    finally:
        neutron.set_agent(THERE, alive=True)
    assert neutron.table(port) == {HERE: (True, OVS)}


def test_a_binding_of_a_kind_that_no_driver_binds_is_none(neutron: NetworkSite) -> None:
    port = neutron.make(new_id())
    neutron.fails("could not be created or updated", "create_binding", port, THERE, "macvtap", {})
    assert neutron.table(port) == {HERE: (True, OVS)}


def test_a_port_that_was_made_for_a_host_without_an_agent_failed_to_be_bound(neutron: NetworkSite) -> None:
    """Without an error. It can be bound to another host, and moved there; then it is bound."""
    port = neutron.make(new_id(), NOWHERE)
    assert neutron.table(port) == {NOWHERE: (True, BINDING_FAILED)}
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.ask("activate_binding", port, THERE)
    assert neutron.table(port) == {NOWHERE: (False, UNBOUND), THERE: (True, OVS)}


def test_a_binding_whose_agent_has_died_since_is_activated(neutron: NetworkSite) -> None:
    """Neutron looks at the agent only when it binds."""
    port = neutron.make(new_id())
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.set_agent(THERE, alive=False)
    try:
        neutron.ask("activate_binding", port, THERE)
    finally:
        neutron.set_agent(THERE, alive=True)
    assert neutron.table(port) == {HERE: (False, UNBOUND), THERE: (True, OVS)}


def test_one_that_was_active_before_is_activated_without_being_bound(neutron: NetworkSite) -> None:
    """So it has no bridge: whoever moves a port back makes its binding anew."""
    port = neutron.make(new_id())
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.ask("activate_binding", port, THERE)
    neutron.ask("activate_binding", port, HERE)
    assert neutron.table(port) == {HERE: (True, UNBOUND), THERE: (False, UNBOUND)}
    assert neutron.bindings(port)[HERE].bridge is None
    neutron.ask("delete_binding", port, THERE)
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.ask("activate_binding", port, THERE)
    assert neutron.table(port) == {HERE: (False, UNBOUND), THERE: (True, OVS)}


def test_the_active_one_can_be_deleted_and_then_nothing_is_activated(neutron: NetworkSite) -> None:
    """The next one that is created is active at once; one that waits has to be deleted before."""
    port = neutron.make(new_id())
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.ask("delete_binding", port, HERE)
    assert neutron.table(port) == {THERE: (False, OVS)}
    neutron.fails("internal server error", "activate_binding", port, THERE)
    assert neutron.table(port) == {THERE: (False, OVS)}
    neutron.ask("delete_binding", port, THERE)
    assert neutron.bindings(port) == {}
    neutron.ask("create_binding", port, THERE, "normal", PROFILE)
    assert neutron.table(port) == {THERE: (True, OVS)}
    assert neutron.bindings(port)[THERE].profile == PROFILE


def test_a_port_is_plugged_where_it_is_bound(neutron: NetworkSite) -> None:
    """Activating another binding makes it DOWN, whatever agents say that have plugged it in elsewhere."""
    port = neutron.make(new_id())
    neutron.plug(port, HERE)
    assert neutron.shown(port).plugged
    neutron.ask("create_binding", port, THERE, "normal", {})
    assert neutron.shown(port).plugged
    neutron.ask("activate_binding", port, THERE)
    assert neutron.shown(port).status == "DOWN"
    neutron.plug(port, HERE)
    assert neutron.shown(port).status == "DOWN"
    neutron.plug(port, THERE)
    assert neutron.shown(port).plugged


def test_an_agent_that_asks_how_to_plug_a_port_in_has_it_bound(neutron: NetworkSite) -> None:
    """Also one that is active without being bound: so it is only until the machine is started."""
    port = neutron.make(new_id())
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.ask("activate_binding", port, THERE)
    neutron.ask("activate_binding", port, HERE)
    neutron.plug(port, HERE)
    assert neutron.table(port) == {HERE: (True, OVS), THERE: (False, UNBOUND)}
    assert neutron.shown(port).plugged


def test_a_port_that_is_deleted_has_no_bindings(neutron: NetworkSite) -> None:
    machine = new_id()
    port = neutron.make(machine)
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.remove(port)
    assert neutron.ask("port", port) is None
    assert neutron.ask("ports", machine) == ()
    assert neutron.ask("bindings", port) == ()
    with pytest.raises(Missing):
        neutron.ask("delete_binding", port, THERE)


def test_a_port_that_is_taken_from_its_machine_tells_nothing_of_its_bindings(neutron: NetworkSite) -> None:
    """400: they are of machines' ports only."""
    machine = new_id()
    port = neutron.make(machine)
    neutron.ask("create_binding", port, THERE, "normal", {})
    neutron.take(port)
    assert neutron.ask("ports", machine) == ()
    assert neutron.shown(port).instance_id == ""
    for method, args in (
        ("bindings", (port,)),
        ("activate_binding", (port, THERE)),
        ("delete_binding", (port, THERE)),
        ("create_binding", (port, HERE, "normal", {})),
    ):
        with pytest.raises(Refused, match="Operation only valid on compute") as refused:
            neutron.ask(method, *args)
        assert type(refused.value) is Refused


# --- deadlines, fences, a Neutron that is away -----------------------------------------------------------


def test_nothing_is_begun_after_the_fence(neutron: NetworkSite) -> None:
    port = neutron.make(new_id())
    with pytest.raises(Refused, match="too late"):
        neutron.ask("create_binding", port, THERE, "normal", {}, fence=fence(-0.1))
    assert neutron.table(port) == {HERE: (True, OVS)}
    neutron.ask("create_binding", port, THERE, "normal", {}, fence=fence(20))
    for method in ("activate_binding", "delete_binding"):
        with pytest.raises(Refused, match="too late"):
            neutron.ask(method, port, THERE, fence=fence(-0.1))
    assert neutron.table(port) == {HERE: (True, OVS), THERE: (False, OVS)}


def test_a_hung_neutron_may_do_it_later(neutron: NetworkSite) -> None:
    """Who got no answer knows nothing, until Neutron has woken up."""
    port = neutron.make(new_id())
    neutron.daemon.hang()
    try:
        began = time.monotonic()
        with pytest.raises(Unknown):
            neutron.ask("create_binding", port, THERE, "normal", {}, timeout=1)
        assert time.monotonic() - began < 20
        with pytest.raises(Unreachable):
            neutron.connection.open(0.5)
            neutron.ask("port", port, timeout=0.5)
    finally:
        neutron.daemon.wake()
    neutron.connection.open(20)
    until(lambda: THERE in neutron.table(port))
    assert neutron.table(port) == {HERE: (True, OVS), THERE: (False, OVS)}


def test_a_neutron_that_is_away_is_sent_nothing(neutron: NetworkSite) -> None:
    port = neutron.make(new_id())
    neutron.daemon.kill()
    try:
        # A request that goes down a kept-alive connection which breaks may have been read; the next one is not sent.
        with pytest.raises((Unreachable, Unknown)):
            neutron.ask("create_binding", port, THERE, "normal", {})
        with pytest.raises(Unreachable):
            neutron.ask("create_binding", port, THERE, "normal", {})
        with pytest.raises(Unreachable):
            neutron.connection.open(5)
        with pytest.raises(Unreachable):
            neutron.ask("port", port)
    finally:
        neutron.daemon.start()
    neutron.connection.open(20)
    assert neutron.table(port) == {HERE: (True, OVS)}
