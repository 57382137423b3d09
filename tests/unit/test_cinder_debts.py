"""What the doctor found at Cinder is set right by a job, unless it has come to be otherwise meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.looks import Looks
from resizeflow.persistence.models import Volume
from resizeflow.service import Submitted
from resizeflow.settlement import queue_settlements
from resizeflow.states import JobState
from tests.planted import doctor, found, repair, sql
from tests.planted_volumes import OTHER, attachments, cinder, reserved_by_nobody, undone, volume_of_web


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build(volumes=("rbd",))


def debt_of_an_orphan(cloud: Cloud) -> str:
    undone(cloud)
    orphan: str = cinder(cloud, "create_attachment", cloud.volumes[0], cloud.uuid)
    doctor(cloud).repair("doctor, says test")
    return orphan


def use(cloud: Cloud, orphan: str) -> None:
    cinder(cloud, "complete_attachment", orphan)


def record(cloud: Cloud, orphan: str) -> None:
    sql(cloud, sa.update(Volume).values(attachment_id=orphan))


@pytest.mark.parametrize("happens", [use, record])
def test_an_orphan_that_has_come_into_use_stays(cloud: Cloud, happens: Callable[[Cloud, str], None]) -> None:
    orphan = debt_of_an_orphan(cloud)
    happens(cloud, orphan)
    repair(cloud)
    assert orphan in [one.id for one in attachments(cloud)]
    with cloud.database.read() as tx:
        assert tx.debts.open() == []


def test_the_debt_of_a_machine_that_was_given_up(cloud: Cloud) -> None:
    orphan = debt_of_an_orphan(cloud)
    cloud.service.remove("web")
    repair(cloud)
    assert orphan in [one.id for one in attachments(cloud)]
    with cloud.database.read() as tx:
        assert tx.debts.open() == []


def test_cinder_refuses_what_would_set_a_volume_right(cloud: Cloud) -> None:
    """The machine is not kept from moving by a job that cannot go on: the doctor finds it again."""
    undone(cloud)
    reserved_by_nobody(cloud)
    cloud.world.fail(CINDER, "create_attachment", "the volume is being backed up")
    repair(cloud)
    assert found(cloud) == [volume_of_web(cloud)]
    with cloud.database.read() as tx:
        assert tx.jobs.busy(cloud.uuid) is None
    repair(cloud)
    assert found(cloud) == []


def test_a_volume_that_somebody_else_takes_before_it_is_set_right(cloud: Cloud) -> None:
    undone(cloud)
    reserved_by_nobody(cloud)
    doctor(cloud).repair("doctor, says test")
    cinder(cloud, "reset_volume", cloud.volumes[0], "available", "detached")
    cinder(cloud, "create_attachment", cloud.volumes[0], OTHER)
    repair(cloud)
    assert [one.instance_id for one in attachments(cloud)] == [OTHER]
    assert found(cloud) == [volume_of_web(cloud)]


@pytest.mark.parametrize(
    "point",
    [
        "SettleDebts.reset_volume#1.after",
        "SettleDebts.create_attachment#1.after",
        "SettleDebts.update_attachment#1.after",
        "SettleDebts.complete_attachment#1.after",
    ],
)
def test_a_worker_is_killed_while_it_sets_a_volume_right(cloud: Cloud, point: str) -> None:
    undone(cloud)
    before = cloud.state()
    reserved_by_nobody(cloud)
    doctor(cloud).repair("doctor, says test")
    assert queue_settlements(cloud.database, Looks(cloud.connections, cloud.settings, cloud.clock)) == 1
    with cloud.database.read() as tx:
        settling = tx.jobs.busy(cloud.uuid)
    assert settling is not None
    job = Submitted(settling.migration_id, settling.id)
    assert cloud.run_in_child(job, point) == KILLED
    assert found(cloud) == []
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert found(cloud) == []
    assert [one.attached for one in attachments(cloud)] == [True]
    assert cloud.state()["world"] == before["world"]
