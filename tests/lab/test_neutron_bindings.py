"""The binding table of each port before, during and after a resize, a confirm, a revert and a rollback, taken from a
real Neutron's own API. The hosts are simulated, agents follow them."""

from __future__ import annotations

import pytest

from tests.lab.conftest import NeutronStageMaker
from tests.lab.neutron_cloud import NeutronStage
from tests.lab.stage import paused_at

pytestmark = pytest.mark.lab

Table = tuple[str, ...]
AT_REST = ("h1 ACTIVE ovs",)
RESERVED = ("h1 ACTIVE ovs", "h2 INACTIVE ovs")
MOVED = ("h1 INACTIVE unbound", "h2 ACTIVE ovs")
DECIDED = ("h2 ACTIVE ovs",)
REBOUND = ("h1 ACTIVE ovs", "h2 INACTIVE unbound")
"""The one to h1 was deleted and made anew: Neutron had forgotten how it was plugged in."""
RESIZE = (
    ("BindPorts.create_binding#1.before", AT_REST, "ACTIVE"),
    ("ReserveVolumes.RUNNING.after", RESERVED, "ACTIVE"),
    ("RetireSource.RUNNING.after", RESERVED, "DOWN"),
    ("MoveInstance.activate_binding#1.before", RESERVED, "DOWN"),
    ("ResizeDisks.RUNNING.after", MOVED, "DOWN"),
    ("StartDestination.commit.pivot#1.after", MOVED, "ACTIVE"),
)
"""Of a resize: a point, the bindings and the status of each port there."""
REVERT = (
    ("PowerOffDestination.RUNNING.after", MOVED, "ACTIVE"),
    ("MoveInstanceBack.RUNNING.after", MOVED, "DOWN"),
    ("RestoreSource.RUNNING.after", REBOUND, "DOWN"),
    ("StartSource.commit.pivot#1.after", REBOUND, "ACTIVE"),
    ("RemoveDestination.SUCCESS.before", AT_REST, "ACTIVE"),
)
CONFIRM = (
    ("RemoveSourceBindings.RUNNING.after", MOVED, "ACTIVE"),
    ("RemoveReturnAttachments.RUNNING.after", DECIDED, "ACTIVE"),
)


@pytest.fixture(scope="module")
def stage(make_neutron_stage: NeutronStageMaker) -> NeutronStage:
    """A machine with two ports."""
    return make_neutron_stage(2)


@pytest.mark.parametrize(
    ("operation", "course", "end"),
    [("resize", RESIZE, MOVED), ("confirm", CONFIRM, DECIDED), ("revert", REVERT, AT_REST)],
)
def test_the_bindings_of_each_port(
    stage: NeutronStage, operation: str, course: tuple[tuple[str, Table, str], ...], end: Table
) -> None:
    job = stage.begin(operation)
    for point, table, status in course:
        worker = paused_at(stage.cloud, job, point)
        shown(stage, point, table, status)
        worker.end()
    stage.check_done()
    shown(stage, f"after the {operation}", end, "ACTIVE")


@pytest.mark.parametrize(
    ("point", "table"), [("ReserveVolumes.RUNNING.after", RESERVED), ("StartDestination.RUNNING.after", MOVED)]
)
def test_the_bindings_of_each_port_before_and_after_a_rollback(stage: NeutronStage, point: str, table: Table) -> None:
    job = stage.begin("resize")
    worker = paused_at(stage.cloud, job, point)
    shown(stage, point, table, None)
    worker.end()
    stage.cloud.service.rollback(job.migration_id)
    stage.check_turned_back()
    shown(stage, "after the rollback", AT_REST, "ACTIVE")


def shown(stage: NeutronStage, moment: str, table: Table, status: str | None) -> None:
    """The table at a moment is printed, and must be this one, once the agents have told what they see."""
    cloud = stage.cloud
    for port in cloud.ports:
        found = tuple(map(str, cloud.bindings(port)))
        print(f"{moment:45} | {'; '.join(found):45} | {cloud.status(port)}")
        assert found == table
        assert status is None or cloud.becomes(port, status)
