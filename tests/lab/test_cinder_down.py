"""A real Cinder that fails in each phase of a resize, a confirm and a revert: killed, hung, killed in the middle of a
request, slower than its clients wait; and a Ceph that fails behind it. The hosts are simulated.

A worker is stopped as it is about to call Cinder, Cinder is made to fail, and the worker goes on. What must come of it:
the job waits and says for what, and once Cinder is back ends as if nothing had been; or turned back, as before.
"""

from __future__ import annotations

import time

import pytest

from lab.system import wait_until
from resizeflow.chaos.child import Child
from resizeflow.chaos.judge import broken_invariants
from resizeflow.clock import Clock
from resizeflow.states import Direction, JobState
from tests.lab.cinder_cloud import CinderStage
from tests.lab.conftest import StageMaker
from tests.lab.stage import go_on, paused_at
from tests.lab.trouble import away, has_unread, is_stuck, stuck_at

pytestmark = pytest.mark.lab

IMPATIENT = {"act_timeout": "4", "look_timeout": "4"}
LOOK_SECONDS = 2
"""What workers of others have for a call, before they look again."""
CALLS = {
    "resize": (
        "ReserveVolumes.create_attachment#1",
        "DetachSourceVolumes.create_attachment#1",
        "DetachSourceVolumes.delete_attachment#1",
        "ConnectVolumes.update_attachment#1",
        "StartDestination.complete_attachment#1",
    ),
    "confirm": ("RemoveReturnAttachments.delete_attachment#1",),
    "revert": (
        "DetachDestinationVolumes.create_attachment#1",
        "DetachDestinationVolumes.delete_attachment#1",
        "ConnectSourceVolumes.update_attachment#1",
        "StartSource.complete_attachment#1",
        "RemoveDestination.delete_attachment#1",
    ),
}
LOOKS = {
    "resize": ("CaptureSource", "DefineDestination"),
    "confirm": ("CheckDestination",),
    "revert": ("CheckSource", "RestoreSource"),
}
"""Tasks that only ask Cinder."""
ONLY_FORWARD = {"RemoveReturnAttachments.delete_attachment#1", "RemoveDestination.delete_attachment#1"}
"""Calls after which nothing is turned back."""
WRITES = {
    "create_attachment": "INSERT ON volume_attachment",
    "update_attachment": "UPDATE OF connection_info ON volume_attachment",
    "complete_attachment": "UPDATE OF status ON volumes",
    "delete_attachment": "UPDATE OF deleted ON volume_attachment",
}
"""By the call, the later one of the writes that Cinder makes for it."""
EACH_RUN = {
    ("killed", "ConnectVolumes.update_attachment#1.checked"),
    ("hung", "DetachSourceVolumes.delete_attachment#1.checked"),
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
    """Each moment before Cinder is called, with its operation, and each way for it to be away."""
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
def stage(make_stage: StageMaker) -> CinderStage:
    """A machine with an RBD volume."""
    return make_stage("rbd", **IMPATIENT)


@pytest.mark.parametrize(("operation", "point", "how"), phases())
def test_cinder_is_away(stage: CinderStage, operation: str, point: str, how: str) -> None:
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    with away(cloud.cinder, how):
        go_on(worker)
        stage.check_waits("Cinder does not answer: ")
        assert next(broken_invariants(cloud)).startswith("Cinder could not be examined")
    stage.check_done()


def test_turned_back_while_cinder_is_away(stage: CinderStage) -> None:
    """The way back waits as well, and says so; then the machine is as before."""
    cloud = stage.cloud
    job = stage.begin("resize")
    worker = paused_at(cloud, job, "ConnectVolumes.update_attachment#1.checked")
    with away(cloud.cinder, "killed"):
        go_on(worker)
        cloud.service.rollback(job.migration_id)
        cloud.run(job)
        stage.check_waits("Cinder does not answer: ")
        assert cloud.job(job).direction is Direction.BACK
        assert cloud.world.running(cloud.uuid) == ()
    stage.check_turned_back()


def test_past_the_point_of_no_return_a_resize_needs_no_cinder(stage: CinderStage) -> None:
    cloud = stage.cloud
    job = stage.begin("resize")
    worker = paused_at(cloud, job, "StartDestination.commit.pivot#1.after")
    with away(cloud.cinder, "killed"):
        go_on(worker)
        assert cloud.job(job).state is JobState.DONE, cloud.story(job)
    stage.check_done()


@pytest.mark.parametrize(("operation", "call"), calls("ConnectVolumes.update_attachment#1"))
def test_cinder_is_killed_in_the_middle_of_a_request(stage: CinderStage, operation: str, call: str) -> None:
    """It has made the first of its writes, and not the second."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), f"{call}.checked")
    with stuck_at(cloud.cinder, WRITES[_method(call)]):
        worker.wake(0)
        assert wait_until(lambda: is_stuck(cloud.cinder), timeout=30, interval=0.05), "Cinder did not begin to write"
        cloud.cinder.kill()
        go_on(worker)
        stage.check_waits("Cinder does not answer: ")
        print(call, *map(cloud.kept, cloud.volumes))
    stage.check_done()


@pytest.mark.parametrize("ending", ["resume", "rollback"])
@pytest.mark.parametrize(("operation", "call"), calls("DetachSourceVolumes.delete_attachment#1"))
def test_what_a_dead_worker_had_sent_is_done_late(
    patient: CinderStage, monkeypatch: pytest.MonkeyPatch, operation: str, call: str, ending: str
) -> None:
    """The next worker finds that Cinder hangs, and gives it time when it answers again."""
    if ending == "rollback" and call in ONLY_FORWARD:
        pytest.skip("it only goes forward by then")
    cloud = patient.cloud
    monkeypatch.setattr(cloud, "clock", Clock())
    job = patient.begin(operation)
    worker = paused_at(cloud, job, f"{call}.checked")
    with away(cloud.cinder, "hung"):
        worker.wake(0)
        assert wait_until(lambda: has_unread(cloud.cinder), timeout=30, interval=0.02), "nothing was sent"
        worker.end()
        if ending == "rollback":
            cloud.service.rollback(job.migration_id)
        cloud.expire(job)
        cloud.release()
        successor = Child(lambda: cloud.run(job))
        time.sleep(LOOK_SECONDS + 1)
    go_on(successor)
    (patient.check_turned_back if ending == "rollback" else patient.check_done)()


@pytest.mark.parametrize(("operation", "call"), calls("StartDestination.complete_attachment#1"))
def test_cinder_is_slower_than_its_client_waits(patient: CinderStage, operation: str, call: str) -> None:
    """What it was asked for is done in the end: the worker looks, and goes on."""
    cloud = patient.cloud
    job = patient.begin(operation)
    worker = paused_at(cloud, job, f"{call}.checked")
    with away(cloud.cinder, "hung"):
        worker.wake(0)
        time.sleep(LOOK_SECONDS + 1)
    go_on(worker)
    assert f"{_method(call)} on cinder: no answer, looking again" in cloud.story(job)
    patient.check_done()


@pytest.fixture(scope="module")
def patient(make_stage: StageMaker) -> CinderStage:
    """As `stage`; its workers do not wait long for what they do, but look again and again."""
    return make_stage("rbd", act_timeout=str(LOOK_SECONDS), look_timeout=str(LOOK_SECONDS), host_patience="30")


def _method(call: str) -> str:
    return call.split(".")[1].partition("#")[0]
