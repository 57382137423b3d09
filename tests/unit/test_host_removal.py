"""A host is only forgotten when nothing needs it, also not something that begins at the same moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.doctor import Doctor
from resizeflow.errors import Conflict, NotFound
from resizeflow.persistence.models import Aggregate, AggregateHost
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.conftest import BOTH
from tests.console import everything
from tests.rivals import at_once

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build()


def refused(cloud: Cloud, host: str, *words: str) -> None:
    before = everything(cloud)
    with pytest.raises(Conflict) as error:
        cloud.inventory.remove_host(host)
    assert all(word in str(error.value) for word in words), error.value
    assert everything(cloud) == before


def test_its_machines_need_it(cloud: Cloud) -> None:
    refused(cloud, "h1", "Host h1 has managed instances: web", "move or remove them first")


@pytest.mark.parametrize(
    ("point", "status"),
    [
        ("job.take.after", "pre-migrating"),  # no destination yet, but it was asked for
        ("SelectDestination.SUCCESS.after", "pre-migrating"),
        ("TransferDisks.create_volume#1.after", "migrating"),
    ],
)
def test_a_migration_in_flight_needs_its_destination(cloud: Cloud, point: str, status: str) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    refused(cloud, "h2", f"needed by open migrations: {job.migration_id[:8]} of web ({status})")


def test_an_alternate_is_needed(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.add_host("h3", vcpus=8, memory_mb=16384, pool_gb=100)
    host = cloud.inventory.add_host("h3", cloud.world.uri("h3"))
    with cloud.database.write() as tx:
        tx.migrations.get(job.migration_id).alternates = [host.id]
    refused(cloud, "h3", "needed by open migrations")
    with cloud.database.write() as tx:
        tx.migrations.get(job.migration_id).status = MigrationStatus.FINISHED  # where it goes is settled
    cloud.inventory.remove_host("h3")


def test_a_finished_resize_needs_its_source(cloud: Cloud) -> None:
    """Nova: 409 in test_migrate_confirm_after_deleted_source_compute."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    refused(cloud, "h1", "(finished), confirm or revert it first")
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    cloud.inventory.remove_host("h1")
    with cloud.database.read() as tx, pytest.raises(NotFound):
        tx.hosts.get("h1")


@BOTH
def test_debts_need_it_until_they_are_forgiven(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    confirm = cloud.service.confirm("web")
    cloud.world.set_up("h1", False)
    assert cloud.run(confirm) is JobState.DONE
    refused(cloud, "h1", "leftovers of ours", "--forgive-debts")
    cloud.inventory.remove_host("h1", forgive_debts=True)
    report = Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine()
    assert list(map(str, report.breaches)) == []


def test_it_leaves_its_aggregates(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        members = [AggregateHost(host_id=tx.hosts.get(name).id) for name in ("h1", "h2")]
        tx.session.add(Aggregate(name="fast", members=members))
    cloud.inventory.remove_host("h2")
    with cloud.database.read() as tx:
        assert [row.host_id for row in tx.aggregates.get("fast").members] == [tx.hosts.get("h1").id]


@BOTH
def test_a_migration_is_sent_there_at_the_same_time(cloud: Cloud) -> None:
    """Whoever comes first: never an allocation on a host that is gone."""

    def move() -> Submitted | Exception:
        job = cloud.service.migrate("web")
        cloud.run(job, tries=3)
        return job

    removal, job = at_once(lambda: cloud.inventory.remove_host("h2"), move)
    with cloud.database.read() as tx:
        gone = tx.hosts.find("h2") is None
        held = {row.host_id for row in tx.hosts.allocations()}
        known = {row.id for row in tx.hosts.list()}
        assert held <= known
        assert tx.instances.get("web").host_id in known
    if gone:
        assert removal is None
        assert isinstance(job, Exception) or cloud.migration(job).status is MigrationStatus.ERROR
    else:
        assert isinstance(removal, Conflict)
        assert cloud.migration(job).status is MigrationStatus.FINISHED


@BOTH
def test_a_machine_is_adopted_there_at_the_same_time(cloud: Cloud) -> None:
    cloud.world.create_guest("h2", "db", 1, 512, {"vda": 1}, running=False)
    removal, adopted = at_once(lambda: cloud.inventory.remove_host("h2"), lambda: cloud.inventory.adopt("h2", "db"))
    with cloud.database.read() as tx:
        gone, managed = tx.hosts.find("h2") is None, tx.instances.find("db") is not None
    assert gone != managed
    assert isinstance(adopted if gone else removal, Exception)


@BOTH
def test_of_two_removals_one_finds_it(cloud: Cloud) -> None:
    results = at_once(*[lambda: cloud.inventory.remove_host("h2")] * 2)
    assert results.count(None) == 1
    assert sum(isinstance(result, NotFound) for result in results) == 1
