"""Ports of Neutron's move with the machine: how they are bound in each phase, and what others do to them meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers import definition
from resizeflow.errors import InvalidPort, NoValidHost
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from tests.planted import found, resized, xml_of
from tests.with_ports import HERE, THERE, bound, bound_after, effects, stopped_after

MOVED = "h1 INACTIVE unbound, h2 ACTIVE ovs"
BACK = "h1 ACTIVE ovs, h2 INACTIVE unbound"


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path, None, {}).build(ports=2)


def nics(cloud: Cloud, host: str) -> list[str]:
    """The ports of the machine's definition on a host."""
    return [nic.interface_id for nic in definition.read(xml_of(cloud, host)).nics if nic.interface_id]


def record(cloud: Cloud) -> dict[str | None, str]:
    """Our own record: each port with the hosts that it is bound to, the active one first; None is the bridged NIC's."""
    with cloud.database.read() as tx:
        names = {host.id: host.name for host in tx.hosts.list()}
        return {
            port.port_id: " ".join(names[one.host_id] for one in sorted(port.bindings, key=lambda one: not one.active))
            for port in tx.instances.get("web").ports
        }


def destination(cloud: Cloud, job: Submitted) -> str:
    host = cloud.migration(job).dest_host
    assert host is not None
    return host.name


def decided(cloud: Cloud, job: Submitted) -> Submitted:
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert found(cloud) == []
    return job


# --- each phase ------------------------------------------------------------------------------------------


def test_a_resize_binds_them_before_and_activates_them_while_the_machine_is_off(cloud: Cloud) -> None:
    assert bound(cloud) == HERE
    seen = bound_after(
        cloud,
        cloud.service.resize("web", "big", host="h2"),
        ("CaptureSource", "BindPorts", "PowerOffSource", "MoveInstance", "DefineDestination", "StartDestination"),
    )
    assert seen == {
        "CaptureSource": HERE,
        "BindPorts": "h1 ACTIVE ovs, h2 INACTIVE ovs; ACTIVE",
        "PowerOffSource": "h1 ACTIVE ovs, h2 INACTIVE ovs; DOWN",
        "MoveInstance": f"{MOVED}; DOWN",
        "DefineDestination": f"{MOVED}; DOWN",
        "StartDestination": f"{MOVED}; ACTIVE",
    }
    assert record(cloud) == dict.fromkeys((None, *cloud.ports), "h2 h1")
    assert nics(cloud, "h2") == list(cloud.ports)
    assert found(cloud) == []


def test_a_confirm_leaves_the_source(cloud: Cloud) -> None:
    resized(cloud)
    seen = bound_after(cloud, cloud.service.confirm("web"), ("CheckDestination", "RemoveSourceBindings"))
    assert seen == {"CheckDestination": f"{MOVED}; ACTIVE", "RemoveSourceBindings": THERE}
    assert record(cloud) == dict.fromkeys((None, *cloud.ports), "h2")
    assert found(cloud) == []


def test_a_revert_binds_them_anew_to_the_source(cloud: Cloud) -> None:
    resized(cloud)
    tasks = ("CheckSource", "PowerOffDestination", "MoveInstanceBack", "StartSource", "RemoveDestination")
    seen = bound_after(cloud, cloud.service.revert("web"), tasks)
    assert seen == {
        "CheckSource": f"{MOVED}; ACTIVE",
        "PowerOffDestination": f"{MOVED}; DOWN",
        "MoveInstanceBack": f"{BACK}; DOWN",
        "StartSource": f"{BACK}; ACTIVE",
        "RemoveDestination": HERE,
    }
    assert record(cloud) == dict.fromkeys((None, *cloud.ports), "h1")
    assert nics(cloud, "h1") == list(cloud.ports)
    assert found(cloud) == []


def test_a_rollback_takes_all_back(cloud: Cloud) -> None:
    before = cloud.state()
    job = stopped_after(cloud, cloud.service.resize("web", "big", host="h2"), "DefineDestination")
    assert bound(cloud) == f"{MOVED}; DOWN"
    cloud.service.rollback(job.migration_id)
    seen = bound_after(cloud, job, ("MoveInstance", "PowerOffSource", "BindPorts"), "REVERTED.before")
    assert seen == {
        "MoveInstance": f"{BACK}; DOWN",
        "PowerOffSource": f"{BACK}; ACTIVE",
        "BindPorts": HERE,
    }
    assert cloud.state(job) == before


def test_on_the_same_host_neutron_is_not_touched(cloud: Cloud) -> None:
    resized(cloud, "h1", kept=True)
    assert effects(cloud, "create_binding", "activate_binding", "delete_binding") == []
    assert bound(cloud) == HERE


def test_a_machine_that_is_off_moves_with_them(memory_path: Path) -> None:
    cloud = Cloud(memory_path, None, {}).build(ports=1, bridged=False, running=False)
    resized(cloud)
    assert bound(cloud) == f"{MOVED}; DOWN"
    decided(cloud, cloud.service.revert("web"))
    assert bound(cloud) == "h1 ACTIVE ovs; DOWN"


def test_without_ports_neutron_is_only_asked(memory_path: Path) -> None:
    cloud = Cloud(memory_path, None, {}).build()
    resized(cloud, kept=True)
    assert [effect for effect in cloud.world.effects() if effect.host == "neutron"] == []
    assert record(cloud) == {None: "h2"}


# --- what others do while a decision is waited for -------------------------------------------------------


@pytest.mark.parametrize(("decision", "host"), [("confirm", "h2"), ("revert", "h1")])
def test_a_port_added_and_one_removed_meanwhile_stay_so(cloud: Cloud, decision: str, host: str) -> None:
    resized(cloud)
    gone = cloud.ports[0]
    cloud.change_ports("h2")
    assert gone not in cloud.ports
    assert found(cloud) == [], "the records are not of today, and need not be"
    decided(cloud, getattr(cloud.service, decision)("web"))
    assert [bound(cloud, port) for port in cloud.ports] == [f"{host} ACTIVE ovs; ACTIVE"] * 2
    assert nics(cloud, host) == list(cloud.ports)
    assert record(cloud) == dict.fromkeys((None, *cloud.ports), host)
    assert cloud.world.see_port(gone).instance == ""


@pytest.mark.parametrize("decision", ["confirm", "revert"])
def test_on_the_same_host_too(cloud: Cloud, decision: str) -> None:
    resized(cloud, "h1")
    cloud.change_ports("h1")
    decided(cloud, getattr(cloud.service, decision)("web"))
    assert [bound(cloud, port) for port in cloud.ports] == [HERE] * 2
    assert nics(cloud, "h1") == list(cloud.ports)


@pytest.mark.parametrize("decision", ["confirm", "revert"])
def test_a_port_that_another_machine_has_by_now_is_left_to_it(cloud: Cloud, decision: str) -> None:
    resized(cloud)
    other = cloud.world.create_guest("h2", "other", 1, 512, {"vda": 1})
    cloud.world.detach_port("h2", cloud.uuid, cloud.ports[0])
    cloud.world.attach_port("h2", other, cloud.ports[0])
    decided(cloud, getattr(cloud.service, decision)("web"))
    assert cloud.world.see_port(cloud.ports[0]).instance == other
    assert bound(cloud, cloud.ports[0]) == THERE
    assert nics(cloud, "h2" if decision == "confirm" else "h1") == [cloud.ports[1]]


def test_a_machine_without_one_of_its_ports_is_not_decided(cloud: Cloud) -> None:
    """The NIC is there, the port is not the machine's: nothing is done to either."""
    job = resized(cloud)
    cloud.world.delete_port(cloud.ports[0])
    with pytest.raises(InvalidPort, match="which Neutron does not have for this machine"):
        cloud.service.revert("web")
    assert cloud.migration(job).status is MigrationStatus.FINISHED


# --- what is refused -------------------------------------------------------------------------------------


def test_a_port_that_failed_to_be_bound_is_not_moved(cloud: Cloud) -> None:
    cloud.world.set_agent("h1", alive=False)
    added = cloud.world.create_port()
    cloud.world.attach_port("h1", cloud.uuid, added)
    assert bound(cloud, added) == "h1 ACTIVE binding_failed; DOWN"
    with pytest.raises(InvalidPort, match=f"Port {added} .* Neutron could not bind it to h1"):
        cloud.service.resize("web", "big", host="h2")


def with_third(cloud: Cloud, *, agent: bool = True) -> Cloud:
    cloud.world.add_host("h3", vcpus=8, memory_mb=16384, pool_gb=100, bridges=("br0", "br-int"))
    if agent:
        cloud.world.set_agent("h3")
    uri = cloud.world.uri("h3")
    cloud.inventory.add_host("h3", uri, peer_uri=uri, data_uri="tcp://198.51.100.13")
    return cloud


def test_a_host_whose_agent_is_dead_or_unknown_is_not_chosen(cloud: Cloud) -> None:
    with_third(cloud, agent=False)
    with pytest.raises(NoValidHost, match="Neutron knows no agent on it: has it another name there"):
        cloud.service.resize("web", "big", host="h3")
    cloud.world.set_agent("h2", alive=False)
    with pytest.raises(NoValidHost, match="Neutron's agent on it does not live"):
        cloud.service.resize("web", "big", host="h2")
    cloud.world.set_agent("h3")
    job = decided(cloud, cloud.service.resize("web", "big"))
    assert destination(cloud, job) == "h3"
    assert bound(cloud) == "h1 INACTIVE unbound, h3 ACTIVE ovs; ACTIVE"


def test_a_host_whose_agent_dies_after_it_was_chosen_gives_way(cloud: Cloud) -> None:
    with_third(cloud)
    job = stopped_after(cloud, cloud.service.resize("web", "big"), "SelectDestination")
    chosen = destination(cloud, job)
    cloud.world.set_agent(chosen, alive=False)
    decided(cloud, job)
    assert {chosen, destination(cloud, job)} == {"h2", "h3"}


def test_an_agent_that_dies_before_its_binding_is_made_costs_no_downtime(cloud: Cloud) -> None:
    before = cloud.state()
    job = stopped_after(cloud, cloud.service.resize("web", "big", host="h2"), "CaptureSource")
    cloud.world.set_agent("h2", alive=False)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert cloud.job(job).direction is Direction.BACK
    assert effects(cloud, "shutdown", "destroy") == []
    cloud.world.set_agent("h2")
    assert cloud.state(job) == before
