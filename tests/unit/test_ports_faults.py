"""Neutron fails in each phase of a move: it is away, slow, late, or has lost a port; agents do not plug in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from resizeflow import failpoints
from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers import connect
from resizeflow.drivers.simulator.agents import UNPLUGGED
from resizeflow.drivers.simulator.faults import Fault
from resizeflow.drivers.simulator.neutron import NEUTRON
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from tests.planted import found, resized
from tests.spread import spread
from tests.with_ports import HERE, THERE, bound, effects, stopped_after

pytestmark = pytest.mark.slow

MOVED = "h1 INACTIVE unbound, h2 ACTIVE ovs; ACTIVE"
RESIZE = ("SelectDestination", "CaptureSource", "ConnectVolumes", "ResizeDisks", "DefineDestination")
"""Tasks after each of which comes one that needs Neutron, as far as a machine with ports goes."""
CONFIRM, REVERT = ("CheckDestination", "MergeOverlays"), ("CheckSource", "ConnectSourceVolumes", "RestoreSource")
OPERATIONS = ("resize", "confirm", "revert")
ACTS = ("create_binding", "activate_binding", "delete_binding")
FAULTS = (Fault.LOSE_REPLY, Fault.LOSE_CALL, Fault.UNREACHABLE, Fault.HANG)


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path, None, {"vif_plugging_timeout": "0.3"}).build(ports=1)


def phases() -> Iterator[tuple[str, str]]:
    """Each operation, and the task that has just ended."""
    for operation, tasks in (("resize", RESIZE), ("confirm", CONFIRM), ("revert", REVERT)):
        yield from ((operation, task) for task in tasks)


def asked(cloud: Cloud, operation: str) -> Submitted:
    """An operation that is queued; what is to be decided is finished."""
    if operation == "resize":
        return cloud.service.resize("web", "big", host="h2")
    resized(cloud)
    return cloud.service.confirm("web") if operation == "confirm" else cloud.service.revert("web")


def ended(operation: str) -> str:
    """How the port is bound when an operation has come to its end."""
    return {"resize": MOVED, "confirm": THERE, "revert": HERE}[operation]


def check_done(cloud: Cloud, job: Submitted, operation: str) -> None:
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.job(job).direction is Direction.FORWARD, cloud.story(job)
    assert bound(cloud) == ended(operation)
    assert found(cloud) == []


# --- away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "task"), list(phases()))
def test_a_job_waits_for_neutron_and_says_so(cloud: Cloud, operation: str, task: str) -> None:
    job = stopped_after(cloud, asked(cloud, operation), task)
    cloud.world.set_up(NEUTRON, False)
    assert cloud.run(job, tries=2) is JobState.QUEUED, cloud.story(job)
    assert "Neutron does not answer" in (cloud.job(job).reason or "")
    assert cloud.job(job).direction is Direction.FORWARD
    cloud.world.set_up(NEUTRON, True)
    check_done(cloud, job, operation)


@pytest.mark.parametrize("operation", ["confirm", "revert"])
def test_the_first_look_of_a_decision_waits_too(cloud: Cloud, operation: str) -> None:
    job = asked(cloud, operation)
    cloud.world.set_up(NEUTRON, False)
    assert cloud.run(job) is JobState.QUEUED, cloud.story(job)
    assert "Neutron does not answer" in (cloud.job(job).reason or "")
    cloud.world.set_up(NEUTRON, True)
    check_done(cloud, job, operation)


@pytest.mark.parametrize("task", ["BindPorts", "ConnectVolumes", "MoveInstance", "DefineDestination"])
def test_a_rollback_waits_for_neutron(cloud: Cloud, task: str) -> None:
    before = cloud.state()
    job = stopped_after(cloud, asked(cloud, "resize"), task)
    cloud.world.set_up(NEUTRON, False)
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job, tries=2) is JobState.QUEUED, cloud.story(job)
    assert "Neutron does not answer" in (cloud.job(job).reason or "")
    cloud.world.set_up(NEUTRON, True)
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.state(job) == before


def test_neutron_is_not_needed_before_the_first_binding_is_undone(cloud: Cloud) -> None:
    """Nothing was done there: the machine is not kept from its users."""
    before = cloud.state()
    job = stopped_after(cloud, asked(cloud, "resize"), "PrepareDestination")
    cloud.world.set_up(NEUTRON, False)
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job, tries=2) is JobState.DONE, cloud.story(job)
    cloud.world.set_up(NEUTRON, True)
    assert cloud.state(job) == before


# --- slow, late, half done -------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "method", "fault"), spread(product(OPERATIONS, ACTS, FAULTS), 5))
def test_a_call_that_goes_wrong_is_looked_at(cloud: Cloud, operation: str, method: str, fault: Fault) -> None:
    """Slow past the time-out with the effect done; never arrived; done when all others have given up."""
    job = asked(cloud, operation)
    done = len(effects(cloud, method))
    cloud.world.fail(NEUTRON, method, fault=fault, attempts=2 if fault is Fault.HANG else None)
    check_done(cloud, job, operation)
    assert len(effects(cloud, method)) - done <= 2


@pytest.mark.parametrize("operation", ["resize", "revert"])
def test_a_neutron_that_was_killed_while_it_activated(cloud: Cloud, operation: str) -> None:
    job = asked(cloud, operation)
    cloud.world.fail(NEUTRON, "activate_binding", fault=Fault.HALF)
    check_done(cloud, job, operation)


@pytest.mark.parametrize("method", ["create_binding", "activate_binding"])
def test_a_call_that_arrives_after_the_rollback_began_is_undone(cloud: Cloud, method: str) -> None:
    before = cloud.state()
    job = asked(cloud, "resize")
    cloud.world.fail(NEUTRON, method, fault=Fault.HANG)
    assert cloud.run(job) is JobState.QUEUED, cloud.story(job)
    cloud.service.rollback(job.migration_id)
    cloud.world.wake(NEUTRON)
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.state(job) == before


@pytest.mark.parametrize(("operation", "left"), [("confirm", "h1"), ("revert", "h2")])
def test_a_late_activation_right_before_the_binding_is_deleted(cloud: Cloud, operation: str, left: str) -> None:
    """Neutron deletes an active binding like any other."""
    job = asked(cloud, operation)
    task = {"confirm": "RemoveSourceBindings", "revert": "RemoveDestination"}[operation]

    def activate(_point: str, _action: str) -> None:
        late = connect(cloud.world.uri(NEUTRON))
        late.open(5)
        late.call("activate_binding", (cloud.ports[0], left), timeout=5)
        late.close()

    failpoints.further["late"] = activate
    failpoints.arm(f"{task}.delete_binding#1.checked=late")
    try:
        assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    finally:
        failpoints.arm("")
        del failpoints.further["late"]
    assert bound(cloud).startswith(ended(operation).partition(";")[0])
    assert found(cloud) == []


@pytest.mark.parametrize("method", ACTS[:2])
def test_what_neutron_refuses_turns_the_resize_back(cloud: Cloud, method: str) -> None:
    before = cloud.state()
    job = asked(cloud, "resize")
    cloud.world.fail(NEUTRON, method)
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.job(job).direction is Direction.BACK
    assert cloud.state(job) == before


# --- ports that nobody plugs in --------------------------------------------------------------------------


@pytest.mark.parametrize("alive", [True, False])
def test_a_port_that_is_not_plugged_in_turns_the_resize_back_before_the_machine_runs(cloud: Cloud, alive: bool) -> None:
    before = cloud.state()
    job = stopped_after(cloud, asked(cloud, "resize"), "BindPorts")
    cloud.world.set_agent("h2", alive=alive, plugs=False)
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert "was not plugged in on h2 within 0.3 s: does Neutron's agent there live?" in cloud.story(job)
    assert (cloud.job(job).direction, cloud.job(job).pivot_at) == (Direction.BACK, None)
    assert "resume h2" not in effects(cloud, "resume")
    cloud.world.set_agent("h2")
    assert cloud.state(job) == before


def test_a_port_that_is_not_plugged_in_turns_the_revert_back(cloud: Cloud) -> None:
    job = resized(cloud)
    cloud.world.set_agent("h1", plugs=False)
    revert = cloud.service.revert("web")
    assert cloud.run(revert, tries=3) is JobState.DONE, cloud.story(revert)
    assert "was not plugged in on h1 within 0.3 s" in cloud.story(revert)
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert cloud.world.running(cloud.uuid) == ("h2",)
    assert bound(cloud) == MOVED
    assert found(cloud) == []


def test_a_slow_agent_is_waited_for(memory_path: Path) -> None:
    cloud = Cloud(memory_path, None, {}).build(ports=2)
    cloud.world.set_speed(plug_seconds=0.5)
    resized(cloud)
    assert effects(cloud, UNPLUGGED) == []


def test_it_need_not_be_waited_for(memory_path: Path) -> None:
    cloud = Cloud(memory_path, None, {"vif_plugging_timeout": "0"}).build(ports=1)
    cloud.world.set_agent("h2", plugs=False)
    job = resized(cloud)
    assert "is not waited for: vif_plugging_timeout is 0" in cloud.story(job)
    assert effects(cloud, UNPLUGGED) == [f"{UNPLUGGED} h2"]


# --- ports that are gone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["CaptureSource", "PowerOffSource", "ResizeDisks", "DefineDestination"])
def test_a_port_deleted_meanwhile_turns_the_resize_back(cloud: Cloud, task: str) -> None:
    job = stopped_after(cloud, asked(cloud, "resize"), task)
    cloud.world.delete_port(cloud.ports[0])
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.job(job).direction is Direction.BACK
    assert cloud.world.running(cloud.uuid) == ("h1",)
    assert cloud.migration(job).status is MigrationStatus.ERROR


@pytest.mark.parametrize("task", ["CheckSource", "ConnectSourceVolumes", "RestoreSource"])
def test_a_port_deleted_meanwhile_turns_the_revert_back(cloud: Cloud, task: str) -> None:
    job = stopped_after(cloud, asked(cloud, "revert"), task)
    cloud.world.delete_port(cloud.ports[0])
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert cloud.world.running(cloud.uuid) == ("h2",)


@pytest.mark.parametrize(("operation", "task"), [("confirm", "CheckDestination"), ("revert", "StartSource")])
def test_a_port_deleted_after_the_point_of_no_return_needs_nothing(cloud: Cloud, operation: str, task: str) -> None:
    job = stopped_after(cloud, asked(cloud, operation), task)
    cloud.world.delete_port(cloud.ports[0])
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.job(job).direction is Direction.FORWARD
    assert "was deleted at Neutron" in cloud.story(job)


def test_a_port_given_to_another_machine_meanwhile_is_left_to_it(cloud: Cloud) -> None:
    other = cloud.world.create_guest("h2", "other", 1, 512, {"vda": 1})
    job = stopped_after(cloud, asked(cloud, "resize"), "CaptureSource")
    cloud.world.detach_port("h1", cloud.uuid, cloud.ports[0])
    cloud.world.attach_port("h2", other, cloud.ports[0])
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert cloud.job(job).direction is Direction.BACK
    assert effects(cloud, "shutdown", *ACTS) == []
    assert cloud.world.see_port(cloud.ports[0]).instance == other
    assert bound(cloud) == THERE
