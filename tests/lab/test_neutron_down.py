"""A real Neutron that fails in each phase of a resize, a confirm and a revert: killed, hung, killed in the middle of a
request, slower than its clients wait. The hosts are simulated, their agents follow them.
"""

from __future__ import annotations

import pytest

from tests.lab.conftest import NeutronStageMaker
from tests.lab.failing import IMPATIENT, PATIENT, Failing
from tests.lab.neutron_cloud import NeutronStage

pytestmark = pytest.mark.lab

NEUTRON = Failing(
    "Neutron",
    calls={
        "resize": ("BindPorts.create_binding#1", "MoveInstance.activate_binding#1"),
        "confirm": ("RemoveSourceBindings.delete_binding#1",),
        "revert": (
            "MoveInstanceBack.delete_binding#1",
            "MoveInstanceBack.create_binding#1",
            "MoveInstanceBack.activate_binding#1",
            "RemoveDestination.delete_binding#1",
        ),
    },
    looks={
        "resize": ("CaptureSource", "DefineDestination", "StartDestination"),
        "confirm": ("CheckDestination",),
        "revert": ("CheckSource", "RestoreSource", "StartSource"),
    },
    only_forward={"RemoveSourceBindings.delete_binding#1", "RemoveDestination.delete_binding#1"},
    writes={
        "create_binding": "INSERT ON ml2_port_binding_levels",
        "activate_binding": "UPDATE OF status ON ml2_port_bindings",
        "delete_binding": "DELETE ON ml2_port_bindings",
    },
    each_run={
        ("killed", "MoveInstance.activate_binding#1.checked"),
        ("hung", "BindPorts.create_binding#1.checked"),
        ("killed", "RestoreSource.RUNNING.after"),
    },
)


@pytest.fixture(scope="module")
def stage(make_neutron_stage: NeutronStageMaker) -> NeutronStage:
    """A machine with a port."""
    return make_neutron_stage(**IMPATIENT)


@pytest.fixture(scope="module")
def patient(make_neutron_stage: NeutronStageMaker) -> NeutronStage:
    """As `stage`; its workers do not wait long for what they do, but look again and again."""
    return make_neutron_stage(**PATIENT)


@pytest.mark.parametrize(("operation", "point", "how"), NEUTRON.phases())
def test_neutron_is_away(stage: NeutronStage, operation: str, point: str, how: str) -> None:
    NEUTRON.check_away(stage, stage.cloud.neutron, operation, point, how)


def test_turned_back_while_neutron_is_away(stage: NeutronStage) -> None:
    NEUTRON.check_turned_back(stage, stage.cloud.neutron, "MoveInstance.activate_binding#1")


def test_past_the_point_of_no_return_a_resize_needs_no_neutron(stage: NeutronStage) -> None:
    NEUTRON.check_not_needed(stage, stage.cloud.neutron)


@pytest.mark.parametrize(("operation", "call"), NEUTRON.each_call("MoveInstance.activate_binding#1"))
def test_neutron_is_killed_in_the_middle_of_a_request(stage: NeutronStage, operation: str, call: str) -> None:
    """What it wrote in a transaction before is there: one that activates has unbound the active one by then, and made
    the port DOWN, but not changed places."""
    NEUTRON.check_killed_in_the_middle(stage, stage.cloud.neutron, operation, call)


@pytest.mark.parametrize("ending", ["resume", "rollback"])
@pytest.mark.parametrize(("operation", "call"), NEUTRON.each_call("MoveInstance.activate_binding#1"))
def test_what_a_dead_worker_had_sent_is_done_late(
    patient: NeutronStage, monkeypatch: pytest.MonkeyPatch, operation: str, call: str, ending: str
) -> None:
    NEUTRON.check_done_late(
        patient, patient.cloud.neutron, operation, call, back=ending == "rollback", patch=monkeypatch
    )


@pytest.mark.parametrize(("operation", "call"), NEUTRON.each_call("MoveInstance.activate_binding#1"))
def test_neutron_is_slower_than_its_client_waits(patient: NeutronStage, operation: str, call: str) -> None:
    NEUTRON.check_slow(patient, patient.cloud.neutron, operation, call)
