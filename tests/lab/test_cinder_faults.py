"""What others do to a machine's volumes at a real Cinder, and what Ceph and Cinder leave when they fail, while it is
resized and in between. The hosts are simulated.

In each case the resize ends resized or as before, or waits and says for what, and the doctor says what is wrong then.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import pytest

from lab.system import wait_until
from resizeflow.chaos.child import Child
from resizeflow.chaos.cloud import VOLUMES
from resizeflow.chaos.judge import broken_invariants
from resizeflow.doctor import Doctor
from resizeflow.errors import InvalidVolume
from resizeflow.states import Direction, JobState
from resizeflow.worker import Worker
from tests.lab.cinder_cloud import CinderCloud, CinderStage, Kept
from tests.lab.cinder_judge import wrong
from tests.lab.conftest import CinderMaker, StageMaker
from tests.lab.stage import ask, go_on, paused_at
from tests.lab.trouble import is_stuck, stuck_at

pytestmark = pytest.mark.lab

CONNECT = "ConnectVolumes.update_attachment#1.checked"
certify = pytest.mark.certify


@pytest.fixture(scope="module")
def stage(make_stage: StageMaker) -> CinderStage:
    """A machine with an RBD volume."""
    return make_stage("rbd", act_timeout="8", look_timeout="8")


# --- Ceph behind it --------------------------------------------------------------------------------------


@contextlib.contextmanager
def ceph_away(cloud: CinderCloud, how: str) -> Iterator[None]:
    ceph = cloud.storage.ceph
    (ceph.kill if how == "killed" else ceph.freeze)()
    try:
        yield
    finally:
        (ceph.start if how == "killed" else ceph.thaw)()


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=certify)])
def test_ceph_does_not_say_who_has_a_volume_open(stage: CinderStage, how: str) -> None:
    worker = paused_at(stage.cloud, stage.begin("resize"), "DetachSourceVolumes.commit.attachment#1.after")
    with ceph_away(stage.cloud, how):
        go_on(worker)
        stage.check_waits("Cinder does not answer: Ceph did not say who has volumes/volume-")
        assert [*broken_invariants(stage.cloud)] == []
    stage.check_done()


@pytest.mark.parametrize("how", [pytest.param("killed", marks=certify), pytest.param("frozen", marks=certify)])
def test_cinder_cannot_connect_a_volume_without_ceph(stage: CinderStage, how: str) -> None:
    """It answers with an error. The resize is turned back, which needs Ceph as well, and so waits."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin("resize"), CONNECT)
    with ceph_away(cloud, how):
        go_on(worker)
        volume = f"volume {cloud.volumes[0]} ({VOLUMES[0]})"
        stage.check_waits(f"undoing DetachSourceVolumes: connection of {volume} to h1: no sign of it after 3 tries; ")
        assert [*broken_invariants(cloud)] == []
    stage.check_turned_back()


# --- a volume in the wrong state -------------------------------------------------------------------------


def test_a_volume_in_error_is_refused_at_once(stage: CinderStage) -> None:
    stage.at_rest.restore()
    set_status(stage.cloud, "error")
    with pytest.raises(InvalidVolume, match=r"\(vdm of db\) is error, not in-use"):
        ask(stage.cloud, "resize")
    (breach,) = broken_invariants(stage.cloud)
    assert "error, attached by" in breach


@pytest.mark.parametrize(
    ("operation", "point"),
    [
        ("resize", "CaptureSource.RUNNING.after"),
        pytest.param("resize", "ReserveVolumes.create_attachment#1.checked", marks=certify),
        pytest.param("resize", "DetachSourceVolumes.create_attachment#1.checked", marks=certify),
        ("resize", CONNECT),
        pytest.param("revert", "CheckSource.RUNNING.after", marks=certify),
        pytest.param("revert", "DetachDestinationVolumes.create_attachment#1.checked", marks=certify),
        pytest.param("revert", "ConnectSourceVolumes.update_attachment#1.checked", marks=certify),
        pytest.param("confirm", "CheckDestination.RUNNING.after", marks=certify),
    ],
)
def test_a_volume_comes_into_error(stage: CinderStage, operation: str, point: str) -> None:
    """What was begun is turned back, and says why."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    set_status(cloud, "error")
    go_on(worker)
    assert "error" in (cloud.migration(stage.job).error or "")
    if cloud.kept(cloud.volumes[0]).status == "error":  # else Cinder has reckoned it anew since
        assert any("error, attached by" in breach for breach in broken_invariants(cloud))
        set_status(cloud, "in-use")
    stage.check_turned_back()


def set_status(cloud: CinderCloud, status: str) -> None:
    cloud.cinder.client().volumes.reset_state(cloud.volumes[0], status)


# --- an attachment deleted behind our back ---------------------------------------------------------------

SOURCE, DESTINATION, RETURN, ONWARD = "source", "dest", "return", "onward"
ENDS_DONE = [
    ("resize", "ReserveVolumes.RUNNING.after", SOURCE),
    ("resize", "PowerOffSource.RUNNING.after", SOURCE),
    ("resize", "DetachSourceVolumes.RUNNING.after", SOURCE),
    ("resize", "DetachSourceVolumes.delete_attachment#1.checked", SOURCE),
    ("resize", "PowerOffSource.RUNNING.after", DESTINATION),
    ("resize", "DetachSourceVolumes.delete_attachment#1.checked", DESTINATION),
    ("resize", "ConnectVolumes.RUNNING.after", DESTINATION),
    ("confirm", "RemoveReturnAttachments.delete_attachment#1.checked", RETURN),
    ("revert", "CheckSource.RUNNING.after", RETURN),
    ("revert", "DetachDestinationVolumes.delete_attachment#1.checked", RETURN),
    ("revert", "ConnectSourceVolumes.RUNNING.after", RETURN),
    ("revert", "DetachDestinationVolumes.RUNNING.after", DESTINATION),
    ("revert", "DetachDestinationVolumes.delete_attachment#1.checked", DESTINATION),
    ("revert", "ConnectSourceVolumes.update_attachment#1.checked", ONWARD),
    ("revert", "StartSource.complete_attachment#1.checked", ONWARD),
    ("revert", "RemoveDestination.delete_attachment#1.checked", ONWARD),
]
"""It was to go, or is made anew."""
ENDS_TURNED_BACK = [
    ("resize", CONNECT, DESTINATION),
    ("resize", "DefineDestination.RUNNING.after", DESTINATION),
    ("resize", "StartDestination.complete_attachment#1.checked", DESTINATION),
    ("revert", "ConnectSourceVolumes.update_attachment#1.checked", RETURN),
    ("revert", "RestoreSource.RUNNING.after", RETURN),
    ("revert", "StartSource.complete_attachment#1.checked", RETURN),
]
"""It was there a moment ago, and a definition may name it."""
WITHOUT_A_WAY_BACK = ["DetachSourceVolumes.delete_attachment#1.checked", "DefineDestination.RUNNING.after"]
EACH_RUN = {
    ("DetachSourceVolumes.delete_attachment#1.checked", DESTINATION),
    ("StartDestination.complete_attachment#1.checked", DESTINATION),
    ("ConnectSourceVolumes.RUNNING.after", RETURN),
}


def deletions(cases: list[tuple[str, str, str]]) -> list[object]:
    """All of them; all but a few only for certification."""
    return [pytest.param(*case, id="-".join(case), marks=[] if case[1:] in EACH_RUN else certify) for case in cases]


@pytest.mark.parametrize(("operation", "point", "which"), deletions(ENDS_DONE))
def test_an_attachment_that_is_gone_is_missed_by_nobody(
    stage: CinderStage, operation: str, point: str, which: str
) -> None:
    delete_at(stage, operation, point, which)
    stage.check_done()


@pytest.mark.parametrize(("operation", "point", "which"), deletions(ENDS_TURNED_BACK))
def test_an_attachment_that_is_gone_turns_back(stage: CinderStage, operation: str, point: str, which: str) -> None:
    delete_at(stage, operation, point, which)
    assert "Volume attachment could not be found" in (stage.cloud.migration(stage.job).error or "")
    stage.check_turned_back()


@pytest.mark.parametrize("decision", [pytest.param("confirm", marks=certify), "revert"])
@pytest.mark.parametrize("point", [WITHOUT_A_WAY_BACK[0], pytest.param(WITHOUT_A_WAY_BACK[1], marks=certify)])
def test_a_resize_that_lost_its_way_back_can_be_decided(stage: CinderStage, point: str, decision: str) -> None:
    cloud = stage.cloud
    delete_at(stage, "resize", point, RETURN)
    assert cloud.job(stage.job).state is JobState.DONE, cloud.story(stage.job)
    assert cloud.kept(cloud.volumes[0]) == Kept("in-use", ((cloud.uuid, "attached", "h2"),))
    assert [*broken_invariants(cloud)] == []
    stage.ask(decision)
    stage.check_done()


def test_turned_back_without_the_way_back(stage: CinderStage) -> None:
    """It is made anew: nobody else has taken the volume meanwhile."""
    cloud = stage.cloud
    delete_at(stage, "resize", "StartDestination.complete_attachment#1.checked", RETURN, DESTINATION)
    assert cloud.job(stage.job).direction is Direction.BACK
    stage.check_turned_back()


@pytest.mark.parametrize("decision", ["confirm", pytest.param("revert", marks=certify)])
def test_a_machine_whose_attachment_is_deleted_is_not_decided_on_until_it_has_one(
    stage: CinderStage, decision: str
) -> None:
    cloud = stage.cloud
    delete_at(stage, "resize", "FinishResize.RUNNING.after", DESTINATION)
    assert cloud.job(stage.job).state is JobState.DONE, cloud.story(stage.job)
    (breach,) = broken_invariants(cloud)
    assert "reserved, reserved by" in breach
    with pytest.raises(InvalidVolume, match=r"\(vdm of db\) is reserved, not in-use"):
        ask(cloud, decision)
    cloud.connect(cloud.volumes[0], "h2")
    assert [*broken_invariants(cloud)] == []
    stage.ask(decision)
    stage.check_done()


def delete_at(stage: CinderStage, operation: str, point: str, *which: str) -> None:
    """Somebody deletes attachments of a job that is at a point; a worker goes on with it, as far as it comes."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    (moved,) = cloud.migration(stage.job).volumes
    for kind in which:
        cloud.cinder.client().attachments.delete(getattr(moved, f"{kind}_attachment"))
    go_on(worker)


# --- volumes of other machines, other volumes of this machine --------------------------------------------


@pytest.mark.parametrize("decision", [pytest.param("confirm", marks=certify), "revert"])
def test_an_attachment_of_another_machine_is_let_alone(make_cinder_cloud: CinderMaker, decision: str) -> None:
    """Of a volume that several machines may have."""
    cloud = make_cinder_cloud().build_machine("multi")
    (volume_id,) = cloud.volumes
    client = cloud.cinder.client()
    other = client.attachments.create(volume_id, None, str(uuid.uuid4()))["id"]
    client.attachments.update(other, {"host": "h3", "ip": "198.51.100.13", "initiator": "iqn.2026-11.dev.example:h3"})
    client.attachments.complete(other)
    for operation in ("resize", decision):
        job = ask(cloud, operation)
        assert cloud.run(job) is JobState.DONE, cloud.story(job)
        assert client.attachments.show(other).status == "attached"
        assert [*broken_invariants(cloud)] == []
    client.attachments.delete(other)
    assert wrong(cloud, job) == []


@pytest.mark.parametrize("decision", [pytest.param("confirm", marks=certify), "revert"])
def test_what_is_attached_and_detached_before_the_decision_stays_so(
    make_cinder_cloud: CinderMaker, decision: str
) -> None:
    cloud = make_cinder_cloud().build_machine("rbd", "iscsi")
    kept, detached = cloud.volumes
    attached = cloud.create_volume("iscsi")
    resize = ask(cloud, "resize")
    assert cloud.run(resize) is JobState.DONE, cloud.story(resize)
    cloud.detach(detached, "h2")
    cloud.attach(attached, VOLUMES[2], "h2")
    assert [*broken_invariants(cloud)] == []
    cloud.volumes = (kept, attached)
    job = ask(cloud, decision)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert wrong(cloud, job) == []
    assert cloud.kept(detached) == Kept("available", ())


# --- what Cinder itself leaves ---------------------------------------------------------------------------


def test_a_volume_that_cinder_left_reserved_by_nobody_is_explained_and_repaired(stage: CinderStage) -> None:
    """Somebody detached it and attaches it again; Cinder dies between the two writes of making an attachment."""
    cloud, client = stage.cloud, stage.cloud.cinder.client()
    stage.begin("revert")
    stage.check_done()
    (volume_id,) = cloud.volumes
    (used,) = client.attachments.list(search_opts={"volume_id": volume_id})
    client.attachments.delete(used.id)
    with stuck_at(cloud.cinder, "INSERT ON volume_attachment"):
        somebody = Child(lambda: client.attachments.create(volume_id, None, cloud.uuid))
        assert wait_until(lambda: is_stuck(cloud.cinder), timeout=30, interval=0.05)
        cloud.cinder.kill()
        somebody.wait(60)
    assert cloud.kept(volume_id) == Kept("reserved", ())
    (breach,) = examined(cloud).examine().breaches
    assert breach.found.startswith("reserved by no attachment: Cinder was interrupted")
    with pytest.raises(InvalidVolume, match=r"is reserved by nobody: .* `resizeflow doctor --repair` sets it right"):
        ask(cloud, "resize")
    repair(cloud)
    assert wrong(cloud, stage.job) == []


def test_a_volume_whose_only_attachment_was_deleted_is_attached_again(stage: CinderStage) -> None:
    cloud = stage.cloud
    delete_at(stage, "confirm", "RemoveReturnAttachments.delete_attachment#1.checked", DESTINATION)
    (volume_id,) = cloud.volumes
    assert cloud.kept(volume_id) == Kept("available", ())
    repair(cloud)
    assert wrong(cloud, stage.job) == []


@certify
@pytest.mark.parametrize("call", ["ReserveVolumes.create_attachment#1", "DetachSourceVolumes.create_attachment#1"])
def test_cinder_dies_between_its_writes_for_a_volume_of_several_machines(make_stage: StageMaker, call: str) -> None:
    """Only there a volume in use is reserved first; whoever has it can go on."""
    stage = make_stage("multi", act_timeout="8", look_timeout="8")
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin("resize"), f"{call}.checked")
    with stuck_at(cloud.cinder, "INSERT ON volume_attachment"):
        worker.wake(0)
        assert wait_until(lambda: is_stuck(cloud.cinder), timeout=30, interval=0.05)
        cloud.cinder.kill()
        go_on(worker)
        stage.check_waits("Cinder does not answer: ")
        assert cloud.kept(cloud.volumes[0]).status == "reserved"
    stage.check_done()


def examined(cloud: CinderCloud) -> Doctor:
    return Doctor(cloud.database, cloud.settings, connections=cloud.connections)


def repair(cloud: CinderCloud) -> None:
    """`doctor --repair`, and a worker pays what it has written down."""
    examined(cloud).repair("doctor, says test")
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
