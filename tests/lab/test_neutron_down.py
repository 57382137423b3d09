"""A real Neutron that fails in each phase of a resize, a confirm and a revert: killed, hung, killed in the middle of a
request, slower than its clients wait. The hosts are simulated, their agents follow them.

A worker is stopped as it is about to call Neutron, Neutron is made to fail, and the worker goes on. What must come of
it: the job waits and says for what, and once Neutron is back ends as if nothing had been; or turned back, as before.
"""

from __future__ import annotations

import time

import pytest

from lab.system import wait_until
from resizeflow.chaos.child import Child
from resizeflow.chaos.judge import broken_invariants
from resizeflow.clock import Clock
from resizeflow.states import Direction, JobState
from tests.lab.conftest import NeutronStageMaker
from tests.lab.neutron_cloud import NeutronStage
from tests.lab.stage import go_on, paused_at
from tests.lab.trouble import away, has_unread, is_stuck, stuck_at

pytestmark = pytest.mark.lab

IMPATIENT = {"act_timeout": "4", "look_timeout": "4"}
LOOK_SECONDS = 2
"""What workers of others have for a call, before they look again."""
CALLS = {
    "resize": ("BindPorts.create_binding#1", "MoveInstance.activate_binding#1"),
    "confirm": ("RemoveSourceBindings.delete_binding#1",),
    "revert": (
        "MoveInstanceBack.delete_binding#1",
        "MoveInstanceBack.create_binding#1",
        "MoveInstanceBack.activate_binding#1",
        "RemoveDestination.delete_binding#1",
    ),
}
LOOKS = {
    "resize": ("CaptureSource", "DefineDestination", "StartDestination"),
    "confirm": ("CheckDestination",),
    "revert": ("CheckSource", "RestoreSource", "StartSource"),
}
"""Tasks that only ask Neutron."""
ONLY_FORWARD = {"RemoveSourceBindings.delete_binding#1", "RemoveDestination.delete_binding#1"}
"""Calls after which nothing is turned back."""
WRITES = {
    "create_binding": "INSERT ON ml2_port_binding_levels",
    "activate_binding": "UPDATE OF status ON ml2_port_bindings",
    "delete_binding": "DELETE ON ml2_port_bindings",
}
"""By the call, a write that Neutron makes for it: the last one, but of a delete, after whose first one it is done."""
EACH_RUN = {
    ("killed", "MoveInstance.activate_binding#1.checked"),
    ("hung", "BindPorts.create_binding#1.checked"),
    ("killed", "RestoreSource.RUNNING.after"),
}
"""The cases that are not only for certification."""


def calls(*each_run: str) -> list[object]:
    """Each call that changes something, with its operation; all but a few only for certification."""
    return [
        pytest.param(operation, call, id=call, marks=[] if call in each_run else pytest.mark.certify)
        for operation, made in CALLS.items()
        for call in made
    ]


def phases() -> list[object]:
    """Each moment before Neutron is called, with its operation, and each way for it to be away."""
    points = [(operation, f"{call}.checked") for operation, made in CALLS.items() for call in made]
    points += [(operation, f"{task}.RUNNING.after") for operation, tasks in LOOKS.items() for task in tasks]
    return [
        pytest.param(
            operation, point, how, id=f"{how}-{point}",
            marks=[] if (how, point) in EACH_RUN else pytest.mark.certify,
        )
        for operation, point in points
        for how in ("killed", "hung")
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stage(make_neutron_stage: NeutronStageMaker) -> NeutronStage:
    """A machine with a port."""
    return make_neutron_stage(**IMPATIENT)


@pytest.fixture(scope="module")
def patient(make_neutron_stage: NeutronStageMaker) -> NeutronStage:
    """As `stage`; its workers do not wait long for what they do, but look again and again."""
    return make_neutron_stage(act_timeout=str(LOOK_SECONDS), look_timeout=str(LOOK_SECONDS), host_patience="30")


@pytest.mark.parametrize(("operation", "point", "how"), phases())
def test_neutron_is_away(stage: NeutronStage, operation: str, point: str, how: str) -> None:
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    with away(cloud.neutron, how):
        go_on(worker)
        stage.check_waits("Neutron does not answer: ")
        assert next(broken_invariants(cloud)).startswith("Neutron could not be examined")
    stage.check_done()


def test_turned_back_while_neutron_is_away(stage: NeutronStage) -> None:
    """The way back waits as well, and says so; then the machine is as before."""
    cloud = stage.cloud
    job = stage.begin("resize")
    worker = paused_at(cloud, job, "MoveInstance.activate_binding#1.checked")
    with away(cloud.neutron, "killed"):
        go_on(worker)
        cloud.service.rollback(job.migration_id)
        cloud.run(job)
        stage.check_waits("Neutron does not answer: ")
        assert cloud.job(job).direction is Direction.BACK
        assert cloud.world.running(cloud.uuid) == ()
    stage.check_turned_back()


def test_past_the_point_of_no_return_a_resize_needs_no_neutron(stage: NeutronStage) -> None:
    cloud = stage.cloud
    job = stage.begin("resize")
    worker = paused_at(cloud, job, "StartDestination.commit.pivot#1.after")
    with away(cloud.neutron, "killed"):
        go_on(worker)
        assert cloud.job(job).state is JobState.DONE, cloud.story(job)
    stage.check_done()


@pytest.mark.parametrize(("operation", "call"), calls("MoveInstance.activate_binding#1"))
def test_neutron_is_killed_in_the_middle_of_a_request(stage: NeutronStage, operation: str, call: str) -> None:
    """What it wrote in a transaction before is there: one that activates has unbound the active one by then, and made
    the port DOWN, but not changed places."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), f"{call}.checked")
    with stuck_at(cloud.neutron, WRITES[_method(call)]):
        worker.wake(0)
        assert wait_until(lambda: is_stuck(cloud.neutron), timeout=30, interval=0.05), "Neutron did not begin to write"
        cloud.neutron.kill()
        go_on(worker)
        stage.check_waits("Neutron does not answer: ")
    stage.check_done()


@pytest.mark.parametrize("ending", ["resume", "rollback"])
@pytest.mark.parametrize(("operation", "call"), calls("MoveInstance.activate_binding#1"))
def test_what_a_dead_worker_had_sent_is_done_late(
    patient: NeutronStage, monkeypatch: pytest.MonkeyPatch, operation: str, call: str, ending: str
) -> None:
    """The next worker finds that Neutron hangs, and gives it time when it answers again."""
    if ending == "rollback" and call in ONLY_FORWARD:
        pytest.skip("it only goes forward by then")
    cloud = patient.cloud
    monkeypatch.setattr(cloud, "clock", Clock())
    job = patient.begin(operation)
    worker = paused_at(cloud, job, f"{call}.checked")
    with away(cloud.neutron, "hung"):
        worker.wake(0)
        assert wait_until(lambda: has_unread(cloud.neutron), timeout=30, interval=0.02), "nothing was sent"
        worker.end()
        if ending == "rollback":
            cloud.service.rollback(job.migration_id)
        cloud.expire(job)
        cloud.release()
        successor = Child(lambda: cloud.run(job))
        time.sleep(LOOK_SECONDS + 1)
    go_on(successor)
    (patient.check_turned_back if ending == "rollback" else patient.check_done)()


@pytest.mark.parametrize(("operation", "call"), calls("MoveInstance.activate_binding#1"))
def test_neutron_is_slower_than_its_client_waits(patient: NeutronStage, operation: str, call: str) -> None:
    """What it was asked for is done in the end: the worker looks, and goes on."""
    cloud = patient.cloud
    job = patient.begin(operation)
    worker = paused_at(cloud, job, f"{call}.checked")
    with away(cloud.neutron, "hung"):
        worker.wake(0)
        time.sleep(LOOK_SECONDS + 1)
    go_on(worker)
    assert f"{_method(call)} on neutron: no answer, looking again" in cloud.story(job)
    patient.check_done()


def _method(call: str) -> str:
    return call.split(".")[1].partition("#")[0]
