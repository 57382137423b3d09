"""Debts: what had to stay on a host that was away is written down, keeps its disk, and is removed when it answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.connections import Connections
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.errors import Conflict
from resizeflow.looks import Looks
from resizeflow.persistence.hosts import debt_consumer
from resizeflow.persistence.models import Debt
from resizeflow.service import Submitted
from resizeflow.settlement import queue_settlements
from resizeflow.states import JobState, MigrationStatus, VmState
from resizeflow.worker import Worker
from tests.conftest import BOTH
from tests.planted import by_hand, doctor, found


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build()


def debts(cloud: Cloud) -> list[tuple[str, str, str, bool]]:
    """(host, kind, object, settled) of every debt."""
    with cloud.database.read() as tx:
        hosts = {host.id: host.name for host in tx.hosts.list()}
        rows = tx.session.scalars(sa.select(Debt).order_by(Debt.kind, Debt.object)).all()
        return [(hosts[row.host_id], row.kind, row.object, row.settled_at is not None) for row in rows]


def debt_disk(cloud: Cloud, job: Submitted, host: str) -> int | None:
    """GiB that a migration's debt holds on a host."""
    with cloud.database.read() as tx:
        rows = tx.hosts.allocations(tx.hosts.get(host).id)
        mine = [row for row in rows if row.consumer == debt_consumer(job.migration_id)]
        assert [(row.vcpus, row.memory_mb) for row in mine] in ([], [(0, 0)])
        return mine[0].disk_gb if mine else None


def drain(cloud: Cloud) -> None:
    with Worker(cloud.database, cloud.settings, clock=FastClock()) as worker:
        worker.drain()


def settle(cloud: Cloud) -> int:
    return queue_settlements(cloud.database, Looks(Connections(), cloud.settings, FastClock()))


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("TransferDisks.create_volume#1.after", []),
        ("TransferDisks.transfer.running", []),
        ("DefineDestination.SUCCESS.after", ["shutoff"]),
        ("StartDestination.commit.pivot#1.before", ["paused"]),
    ],
)
def test_the_destination_is_down_in_a_rollback(cloud: Cloud, point: str, left: list[str]) -> None:
    before = cloud.state()
    cloud.world.set_speed(transfer_seconds=3600 if point.endswith(".running") else 0)
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    cloud.world.set_up("h2", False)
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    # A dead destination does not keep the machine down.
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert cloud.world.running(cloud.uuid) == ("h1",)
    disk = f"web-vda.{job.migration_id}.qcow2"
    assert debts(cloud) == [("h2", "disk", disk, False), ("h2", "domain", cloud.uuid, False)]
    assert debt_disk(cloud, job, "h2") == 2
    with cloud.database.read() as tx:
        assert (tx.hosts.get("h2").used_vcpus, tx.hosts.get("h2").used_disk_gb) == (0, 2)
    drain(cloud)
    assert debt_disk(cloud, job, "h2") == 2
    with pytest.raises(Conflict, match="leftovers of ours"):
        cloud.inventory.remove_host("h2")

    cloud.world.set_up("h2", True)
    there = cloud.world.snapshot()["hosts"]["h2"]["domains"]
    assert [domain["state"] for domain in there.values() if domain["inactive"]] == left
    drain(cloud)
    assert [settled for *_what, settled in debts(cloud)] == [True, True], cloud.story(job)
    assert debt_disk(cloud, job, "h2") is None
    after = cloud.state()
    assert after["world"]["hosts"]["h2"] == before["world"]["hosts"]["h2"]
    assert after["world"]["storages"] == before["world"]["storages"]
    assert after["tables"]["allocations"] == before["tables"]["allocations"]
    assert cloud.world.running(cloud.uuid) == ("h1",)
    assert settle(cloud) == 0
    with cloud.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None


@BOTH
def test_the_source_is_down_in_a_confirm(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    cloud.world.crash("h1")
    confirm = cloud.service.confirm("web")
    assert cloud.run(confirm) is JobState.DONE, cloud.story(job)
    assert cloud.migration(job).status is MigrationStatus.CONFIRMED
    assert debts(cloud) == [("h1", "disk", "web-vda.qcow2", False), ("h1", "domain", cloud.uuid, False)]
    assert debt_disk(cloud, job, "h1") == 1
    with cloud.database.read() as tx:
        host = tx.hosts.get("h1")
        assert (host.used_vcpus, host.used_memory_mb, host.used_disk_gb) == (0, 0, 1)
        assert tx.instances.get("web").vm_state is VmState.ACTIVE
    cloud.world.set_up("h1", True)
    assert cloud.world.running(cloud.uuid) == ("h2",)
    drain(cloud)
    assert all(settled for *_what, settled in debts(cloud))
    assert debt_disk(cloud, job, "h1") is None
    snapshot = cloud.world.snapshot()
    assert snapshot["hosts"]["h1"]["domains"] == {}
    assert snapshot["storages"]["h1"] == {}
    assert cloud.world.running(cloud.uuid) == ("h2",)


def test_the_destination_is_down_in_a_revert_after_its_pivot(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    revert = cloud.service.revert("web")
    assert cloud.run_in_child(revert, "StartSource.SUCCESS.after") == KILLED
    cloud.world.crash("h2")
    assert cloud.run(revert) is JobState.DONE, cloud.story(job)
    assert cloud.migration(job).status is MigrationStatus.REVERTED
    assert [(host, kind) for host, kind, *_rest in debts(cloud)] == [("h2", "disk"), ("h2", "domain")]
    assert debt_disk(cloud, job, "h2") == 2
    cloud.world.set_up("h2", True)
    drain(cloud)
    assert all(settled for *_what, settled in debts(cloud))
    assert debt_disk(cloud, job, "h2") is None
    assert cloud.world.snapshot()["storages"]["h2"] == {}
    assert cloud.world.running(cloud.uuid) == ("h1",)


def indebted(cloud: Cloud) -> Submitted:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    cloud.world.set_up("h1", False)
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    assert len(debts(cloud)) == 2
    return job


@BOTH
def test_a_settlement_is_queued_once_and_only_for_a_host_that_answers(cloud: Cloud) -> None:
    indebted(cloud)
    assert settle(cloud) == 0
    cloud.world.set_up("h1", True)
    assert settle(cloud) == 1
    assert settle(cloud) == 0
    cloud.world.set_up("h1", False)
    drain(cloud)
    assert not any(settled for *_what, settled in debts(cloud))
    cloud.world.set_up("h1", True)
    drain(cloud)
    assert all(settled for *_what, settled in debts(cloud))


def test_a_domain_that_somebody_started_is_not_removed(cloud: Cloud) -> None:
    """A debt is a leftover of ours; what runs is nobody's leftover."""
    job = indebted(cloud)
    cloud.world.set_up("h1", True)
    connection = Connections().to(cloud.world.uri("h1"))
    connection.open(1)
    facts = connection.call("domain", (cloud.uuid,), timeout=1)
    paths = facts.inactive_xml.replace(f"RETIRED-{job.migration_id}-", "")
    for method, args in (("define", (paths,)), ("start_paused", (cloud.uuid,)), ("resume", (cloud.uuid,))):
        connection.call(method, args, timeout=1)
    drain(cloud)
    assert "h1" in cloud.world.running(cloud.uuid)
    assert not any(settled for *_what, settled in debts(cloud))
    assert debt_disk(cloud, job, "h1") == 1


# --- secrets, and what is at Cinder ----------------------------------------------------------------------


@pytest.fixture
def with_volumes(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build(volumes=("rbd", "iscsi"))


def secrets(cloud: Cloud, host: str) -> list[str]:
    found = by_hand(cloud, host, "secrets")
    return [secret.kind for secret in found if secret.migration is not None]


@pytest.mark.slow
def test_a_domain_takes_its_secrets_with_it(with_volumes: Cloud) -> None:
    cloud = with_volumes
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "DefineDestination.SUCCESS.after") == KILLED
    assert sorted(secrets(cloud, "h2")) == ["ceph", "iscsi"]
    cloud.world.set_up("h2", False)
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    drain(cloud)
    assert [settled for *_what, settled in debts(cloud)] == [False, False]
    cloud.world.set_up("h2", True)
    assert found(cloud) == []
    drain(cloud)
    assert [settled for *_what, settled in debts(cloud)] == [True, True], cloud.story(job)
    assert secrets(cloud, "h2") == []
    assert found(cloud) == []


def orphaned(cloud: Cloud) -> str:
    """A blank attachment that is a debt; its id."""
    job = cloud.service.resize("web", "big", host="h2")
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    orphan: str = by_hand(cloud, CINDER, "create_attachment", cloud.volumes[0], cloud.uuid)
    doctor(cloud).repair("doctor, says test")
    assert debts(cloud) == [("h1", "attachment", orphan, False)]
    return orphan


def test_a_debt_at_cinder_waits_for_cinder_alone(with_volumes: Cloud) -> None:
    cloud = with_volumes
    orphan = orphaned(cloud)
    cloud.world.set_up(CINDER, False)
    assert settle(cloud) == 0
    cloud.world.set_up(CINDER, True)
    cloud.world.fail(CINDER, "service", "wrong password")
    assert settle(cloud) == 0
    cloud.world.set_up("h1", False)
    drain(cloud)
    assert debts(cloud) == [("h1", "attachment", orphan, True)]
    assert by_hand(cloud, CINDER, "attachment", orphan) is None


@pytest.mark.slow
def test_cinder_is_away_when_its_debt_is_to_be_paid(with_volumes: Cloud) -> None:
    cloud = with_volumes
    orphan = orphaned(cloud)
    assert settle(cloud) == 1
    cloud.world.set_up(CINDER, False)
    drain(cloud)
    assert debts(cloud) == [("h1", "attachment", orphan, False)]
    cloud.world.set_up(CINDER, True)
    drain(cloud)
    assert debts(cloud) == [("h1", "attachment", orphan, True)]


def test_a_debt_at_cinder_holds_no_disk_and_goes_with_its_host(with_volumes: Cloud) -> None:
    cloud = with_volumes
    orphan = orphaned(cloud)
    cloud.world.set_up(CINDER, False)
    with cloud.database.read() as tx:
        assert not [row for row in tx.hosts.allocations() if row.consumer.startswith("debt:")]
    assert found(cloud) == []
    cloud.world.set_up(CINDER, True)
    assert cloud.run(cloud.service.migrate("web", host="h2")) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    with pytest.raises(Conflict, match=f"leftovers of ours .attachment {orphan}"):
        cloud.inventory.remove_host("h1")
    cloud.inventory.remove_host("h1", forgive_debts=True)
    # The migration found it, and took it for its own: there is nothing to be settled any more.
    assert (found(cloud), settle(cloud)) == ([], 0)
    assert by_hand(cloud, CINDER, "attachment", orphan).attached


@pytest.mark.slow
def test_forgiven_debts_are_not_settled(cloud: Cloud) -> None:
    indebted(cloud)
    cloud.inventory.remove_host("h1", forgive_debts=True)
    cloud.world.set_up("h1", True)
    before = cloud.world.snapshot()
    assert settle(cloud) == 0
    drain(cloud)
    assert cloud.world.snapshot() == before
