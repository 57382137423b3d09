"""A real Cinder that fails in each phase of a resize, a confirm and a revert: killed, hung, killed in the middle of a
request, slower than its clients wait. The hosts are simulated.
"""

from __future__ import annotations

import pytest

from tests.lab.cinder_cloud import CinderStage
from tests.lab.conftest import StageMaker
from tests.lab.failing import IMPATIENT, PATIENT, Failing

pytestmark = pytest.mark.lab

CINDER = Failing(
    "Cinder",
    calls={
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
    },
    looks={
        "resize": ("CaptureSource", "DefineDestination"),
        "confirm": ("CheckDestination",),
        "revert": ("CheckSource", "RestoreSource"),
    },
    only_forward={"RemoveReturnAttachments.delete_attachment#1", "RemoveDestination.delete_attachment#1"},
    writes={
        "create_attachment": "INSERT ON volume_attachment",
        "update_attachment": "UPDATE OF connection_info ON volume_attachment",
        "complete_attachment": "UPDATE OF status ON volumes",
        "delete_attachment": "UPDATE OF deleted ON volume_attachment",
    },
    each_run={
        ("killed", "ConnectVolumes.update_attachment#1.checked"),
        ("hung", "DetachSourceVolumes.delete_attachment#1.checked"),
        ("killed", "RestoreSource.RUNNING.after"),
    },
)


@pytest.fixture(scope="module")
def stage(make_stage: StageMaker) -> CinderStage:
    """A machine with an RBD volume."""
    return make_stage("rbd", **IMPATIENT)


@pytest.fixture(scope="module")
def patient(make_stage: StageMaker) -> CinderStage:
    """As `stage`; its workers do not wait long for what they do, but look again and again."""
    return make_stage("rbd", **PATIENT)


@pytest.mark.parametrize(("operation", "point", "how"), CINDER.phases())
def test_cinder_is_away(stage: CinderStage, operation: str, point: str, how: str) -> None:
    CINDER.check_away(stage, stage.cloud.cinder, operation, point, how)


def test_turned_back_while_cinder_is_away(stage: CinderStage) -> None:
    CINDER.check_turned_back(stage, stage.cloud.cinder, "ConnectVolumes.update_attachment#1")


def test_past_the_point_of_no_return_a_resize_needs_no_cinder(stage: CinderStage) -> None:
    CINDER.check_not_needed(stage, stage.cloud.cinder)


@pytest.mark.parametrize(("operation", "call"), CINDER.each_call("ConnectVolumes.update_attachment#1"))
def test_cinder_is_killed_in_the_middle_of_a_request(stage: CinderStage, operation: str, call: str) -> None:
    """It has made the first of its writes, and not the second."""
    CINDER.check_killed_in_the_middle(stage, stage.cloud.cinder, operation, call)


@pytest.mark.parametrize("ending", ["resume", "rollback"])
@pytest.mark.parametrize(("operation", "call"), CINDER.each_call("DetachSourceVolumes.delete_attachment#1"))
def test_what_a_dead_worker_had_sent_is_done_late(
    patient: CinderStage, monkeypatch: pytest.MonkeyPatch, operation: str, call: str, ending: str
) -> None:
    CINDER.check_done_late(patient, patient.cloud.cinder, operation, call, back=ending == "rollback", patch=monkeypatch)


@pytest.mark.parametrize(("operation", "call"), CINDER.each_call("StartDestination.complete_attachment#1"))
def test_cinder_is_slower_than_its_client_waits(patient: CinderStage, operation: str, call: str) -> None:
    CINDER.check_slow(patient, patient.cloud.cinder, operation, call)
