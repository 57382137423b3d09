"""`quota sync` recounts: it finds what drifted, says so, and sets it right; what is under way is not miscounted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.models import FLEET, QuotaUsage, Reservation
from resizeflow.persistence.recount import Entry
from resizeflow.states import JobState
from tests.conftest import BOTH
from tests.console import Console, everything
from tests.planted import found, rolled_back, sql

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build(running=False)


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


def counter(resource: str) -> sa.Update:
    return sa.update(QuotaUsage).filter_by(project_id="default", resource=resource)


@BOTH
def test_what_drifted_is_told_and_set_right(console: Console, cloud: Cloud) -> None:
    before = cloud.tables()
    sql(cloud, counter("cores").values(in_use=7), counter("ram").values(reserved=-3))
    drifted = everything(cloud)
    told = [
        {"project": "default", "migration": None} | rest
        for rest in (
            {"resource": "cores", "counter": "in_use", "recorded": 7, "counted": 1},
            {"resource": "ram", "counter": "reserved", "recorded": -3, "counted": 0},
        )
    ]
    assert console.ask("quota", "sync", "--dry-run") == told
    assert everything(cloud) == drifted
    assert console.ask("quota", "sync", "elsewhere") == []
    assert everything(cloud) == drifted
    assert console.ask("quota", "sync") == told
    assert cloud.tables() == before
    with cloud.database.read() as tx:
        lines = [event.text for event in tx.events.of(FLEET) if event.kind == "repair"]
    assert [line.partition(", by ")[0] for line in lines] == [
        "quota of default: cores in use set from 7 to 1",
        "quota of default: ram reserved set from -3 to 0",
    ]
    again = console.type("quota", "sync")
    assert again.code == 0
    assert "Nothing has drifted" in again.err


def test_one_project_is_synced_alone(cloud: Cloud) -> None:
    cloud.world.create_guest("h1", "shop", 1, 512, {"vda": 1}, running=False)
    cloud.inventory.adopt("h1", "shop", project="web-shop")
    sql(cloud, sa.update(QuotaUsage).filter_by(resource="cores").values(in_use=9))
    assert cloud.inventory.sync_quotas("web-shop") == [(Entry("web-shop", "cores", "in_use"), 9, 1)]
    assert cloud.inventory.sync_quotas() == [(Entry("default", "cores", "in_use"), 9, 1)]


def test_a_counter_that_is_missing_is_made_again(cloud: Cloud) -> None:
    before = cloud.state()
    sql(cloud, sa.delete(QuotaUsage))
    assert len(cloud.inventory.sync_quotas()) == 3 + 1
    assert cloud.state() == before


@BOTH
def test_a_reservation_without_its_resize_is_released(cloud: Cloud) -> None:
    job = rolled_back(cloud)
    before = cloud.state()
    left: dict[str, Any] = {"migration_id": job.migration_id, "resource": "cores", "project_id": "default", "amount": 2}
    sql(cloud, sa.insert(Reservation).values(left), counter("cores").values(reserved=2))
    drifts = cloud.inventory.sync_quotas()
    assert drifts == [
        (Entry("default", "cores", "reservation", job.migration_id), 2, 0),
        (Entry("default", "cores", "reserved"), 2, 0),
    ]
    assert cloud.state() == before
    assert "reservation of cores set from 2 to 0" in cloud.story(job)
    with cloud.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None


@BOTH
def test_a_reservation_of_another_amount_is_set(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    before = cloud.state()
    sql(cloud, sa.update(Reservation).filter_by(resource="ram").values(amount=1))
    assert cloud.inventory.sync_quotas() == [(Entry("default", "ram", "reservation", job.migration_id), 1, 512)]
    assert cloud.state() == before
    assert cloud.run(job) is JobState.DONE
    assert not cloud.inventory.sync_quotas()


@pytest.mark.parametrize(
    "point",
    [
        "SelectDestination.SUCCESS.after",
        "MoveInstance.SUCCESS.after",
        "FinishResize.SUCCESS.before",
        "FinishResize.SUCCESS.after",
    ],
)
@pytest.mark.parametrize("flavor", ["big", "less"])
def test_a_resize_under_way_has_not_drifted(cloud: Cloud, point: str, flavor: str) -> None:
    """Also not one whose worker is dead; and what is set wrong meanwhile is set to what its phase needs."""
    cloud.inventory.create_flavor("less", vcpus=1, memory_mb=256, root_gb=1)
    job = cloud.service.resize("web", flavor, host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    assert not cloud.inventory.sync_quotas()
    before = cloud.state(job)
    sql(cloud, sa.update(QuotaUsage).values(in_use=99, reserved=99), sa.delete(Reservation))
    assert cloud.inventory.sync_quotas()
    assert cloud.state(job) == before
    assert cloud.run(job) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    assert found(cloud) == []
