"""PostgreSQL, many at once: each job, quota, host and request has one winner, and nobody waits for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.connections import Connections
from resizeflow.errors import Conflict, NoValidHost, OverQuota
from resizeflow.handover import Handover
from resizeflow.lease import Lease
from resizeflow.looks import Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.hosts import Amount
from resizeflow.persistence.models import Host
from resizeflow.persistence.quotas import RESOURCES
from resizeflow.service import Submitted
from resizeflow.settlement import queue_settlements
from resizeflow.states import Direction, JobState
from resizeflow.worker import Worker
from tests.rivals import Rival, at_once, overdue, take


@pytest.fixture
def cloud(memory_path: Path, postgresql_url: str) -> Cloud:
    return Cloud(memory_path, connection=postgresql_url).build()


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h2")


@pytest.fixture
def lease(cloud: Cloud, job: Submitted) -> Lease:
    return overdue(cloud, job)


# --- many at once ----------------------------------------------------------------------------------------


def test_of_many_workers_one_takes_a_job(cloud: Cloud, job: Submitted) -> None:
    for epoch in range(1, 11):
        leases = at_once(*[lambda name=f"w{n}": take(cloud, job, name) for n in range(6)])
        taken = [lease for lease in leases if lease is not None]
        assert [lease.epoch for lease in taken] == [epoch], leases
        assert cloud.job(job).owner == taken[0].owner
        cloud.expire(job)


@pytest.mark.slow
def test_workers_share_the_jobs_and_run_each_once(cloud: Cloud) -> None:
    for name in ("db", "mail", "shop"):
        cloud.world.create_guest("h1", name, 1, 512, {"vda": 1})
        cloud.inventory.adopt("h1", name)
    for host in ("h1", "h2"):
        cloud.inventory.set_host(host, max_moves=4)
    jobs = [cloud.service.resize(name, "big", host="h2") for name in ("web", "db", "mail", "shop")]

    def drain() -> int:
        database = Database.of(cloud.settings)
        with Worker(database, cloud.settings, clock=FastClock()) as worker:
            done = worker.drain()
        database.engine.dispose()
        return done

    done = at_once(drain, drain, drain)
    assert sum(done) == len(jobs), done
    for job in jobs:
        row = cloud.job(job)
        assert (row.state, row.epoch) == (JobState.DONE, 1), cloud.story(job)
        with cloud.database.read() as tx:
            assert tx.events.flaw(job.migration_id) is None


def test_of_many_requests_one_is_accepted(cloud: Cloud) -> None:
    answers = at_once(*[lambda: cloud.service.resize("web", "big", host="h2") for _ in range(4)])
    accepted = [answer for answer in answers if isinstance(answer, Submitted)]
    assert len(accepted) == 1, answers
    assert all(isinstance(answer, Conflict) for answer in answers if answer not in accepted), answers
    reserved = {quota.resource: quota.reserved for quota in cloud.inventory.quotas("default")}
    assert reserved == {"instances": 0, "cores": 1, "ram": 512, "gigabytes": 1}
    assert cloud.run(accepted[0]) is JobState.DONE
    decisions = at_once(lambda: cloud.service.confirm("web"), lambda: cloud.service.revert("web"))
    decided = [answer for answer in decisions if isinstance(answer, Submitted)]
    assert len(decided) == 1, decisions
    assert all(isinstance(answer, Conflict) for answer in decisions if answer not in decided), decisions
    assert cloud.run(decided[0]) is JobState.DONE


def test_a_decision_waits_for_the_one_before(cloud: Cloud, job: Submitted) -> None:
    """A confirm that hung after its look at the migration must not turn a migration over that is decided since."""
    assert cloud.run(job) is JobState.DONE
    with cloud.database.write() as tx:
        tx.instances.get("web", lock=True)
        confirm = Rival(lambda: cloud.service.confirm("web")).waits(cloud.database)
    assert isinstance(confirm.end(), Submitted)


def test_two_never_both_pass_a_quota(cloud: Cloud, job: Submitted) -> None:
    """The last room in a quota, asked for in two transactions that overlap."""
    with cloud.database.write() as tx:
        tx.quotas.release(tx.migrations.get(job.migration_id))
    limits = {**dict.fromkeys(RESOURCES, -1), "cores": 2}

    def reserve() -> None:
        with cloud.database.write() as tx:
            tx.quotas.reserve(tx.migrations.get(job.migration_id), limits)

    with cloud.database.write() as tx:
        tx.quotas.reserve(tx.migrations.get(job.migration_id), limits)
        second = Rival(reserve).waits(cloud.database)
    assert isinstance(second.end(), OverQuota)


def test_two_never_both_pass_an_allocation(cloud: Cloud) -> None:
    def allocate(consumer: str) -> None:
        with cloud.database.write() as tx:
            tx.hosts.allocate(tx.hosts.get("h2"), consumer, Amount(20, 1, 0))

    with cloud.database.write() as tx:
        tx.hosts.allocate(tx.hosts.get("h2"), "instance:one", Amount(20, 1, 0))
        second = Rival(lambda: allocate("instance:two")).waits(cloud.database)
    assert isinstance(second.end(), NoValidHost)


def test_a_project_s_first_machines_come_at_once(cloud: Cloud) -> None:
    """Both make the project's counters."""

    def use() -> int:
        with cloud.database.write() as tx:
            return tx.quotas.usage("new", "cores").in_use

    with cloud.database.write() as tx:
        assert tx.quotas.usage("new", "cores").in_use == 0
        second = Rival(use).waits(cloud.database)
    assert second.end() == 0


def test_a_log_written_by_many_has_no_gap(cloud: Cloud, job: Submitted) -> None:
    def write(who: int) -> None:
        for number in range(8):
            with cloud.database.write() as tx:
                tx.events.add(job.migration_id, "note", f"{who}: {number}")

    assert at_once(*[lambda who=n: write(who) for n in range(4)]) == [None] * 4
    with cloud.database.read() as tx:
        events = tx.events.of(job.migration_id)
        assert tx.events.flaw(job.migration_id) is None
    assert len([event for event in events if event.kind == "note"]) == 32


@pytest.mark.slow
def test_debts_are_settled_by_one_of_many_workers(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job) is JobState.DONE
    cloud.world.set_up("h1", False)
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    cloud.world.set_up("h1", True)
    settle = [lambda: queue_settlements(cloud.database, Looks(Connections(), cloud.settings, FastClock()))] * 4
    assert sorted(at_once(*settle)) == [0, 0, 0, 1]


# --- deadlocks -------------------------------------------------------------------------------------------


def test_hosts_are_locked_in_one_order(cloud: Cloud) -> None:
    def lock(first: str, second: str) -> list[str]:
        with cloud.database.write() as tx:
            return [host.name for host in tx.hosts.lock(tx.hosts.get(first).id, tx.hosts.get(second).id)]

    answers = at_once(*[lambda: lock("h1", "h2"), lambda: lock("h2", "h1")] * 3)
    assert all(sorted(answer) == ["h1", "h2"] for answer in answers), answers
    assert len({tuple(answer) for answer in answers}) == 1


@pytest.mark.slow
def test_a_deadlock_puts_the_job_down_and_fails_nothing(cloud: Cloud, job: Submitted, lease: Lease) -> None:
    """Ours lock in one order; a person at the database's prompt may not."""

    def rename(tx: Any, host: str) -> None:
        tx.session.execute(sa.update(Host).where(Host.name == host).values(disabled_reason="x"))

    def person() -> None:
        with cloud.database.write() as tx:
            # Whoever waits longer than `deadlock_timeout` looks for the circle, and gives way: not this one.
            tx.session.execute(sa.text("SET LOCAL deadlock_timeout = '1min'"))
            rename(tx, "h1")
            rename(tx, "h2")

    with pytest.raises(Handover, match="deadlock"), cloud.database.fenced(lease, "probe") as tx:
        rename(tx, "h2")
        rival = Rival(person).waits(cloud.database)
        rename(tx, "h1")
    assert rival.end() is None
    assert (cloud.job(job).direction, cloud.migration(job).error) == (Direction.FORWARD, None)
