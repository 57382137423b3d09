"""What the flow store and the gate cost: statements and commits per task, questions per look, memory."""

from __future__ import annotations

import gc
import os
import threading
import uuid
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from taskflow import engines, task
from taskflow.patterns import linear_flow

from resizeflow import gate as gates
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.clock import Clock
from resizeflow.commands.migration import rows_of
from resizeflow.gate import Gate
from resizeflow.handover import TurnBack
from resizeflow.lease import Lease
from resizeflow.persistence.flow_store import FlowStore
from resizeflow.persistence.models import Host, Migration
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus

MIB = 2**20


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build()


@contextmanager
def counted(cloud: Cloud) -> Iterator[Counter[str]]:
    """Statements by their first word and table, and commits. BEGIN is the driver's."""
    counts: Counter[str] = Counter()

    def executed(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        words = statement.replace("\n", " ").split()
        if words[0] != "BEGIN":
            place = {"SELECT": "FROM", "UPDATE": "UPDATE", "INSERT": "INTO", "DELETE": "FROM"}[words[0]]
            counts[f"{words[0]} {words[words.index(place) + 1]}"] += 1

    def committed(_connection: object) -> None:
        counts["COMMIT"] += 1

    engine = cloud.database.engine
    sa.event.listen(engine, "before_cursor_execute", executed)
    sa.event.listen(engine, "commit", committed)
    yield counts
    sa.event.remove(engine, "before_cursor_execute", executed)
    sa.event.remove(engine, "commit", committed)


def leased(cloud: Cloud) -> Lease:
    """A job of a migration that holds nothing."""
    identity = str(uuid.uuid4())
    with cloud.database.write() as tx:
        host, flavor = tx.session.scalars(sa.select(Host)).first(), tx.flavors.get("big")
        assert host is not None
        tx.session.add(
            Migration(
                id=identity,
                instance_id=identity,
                instance_name="none",
                project_id="p",
                kind="resize",
                status=MigrationStatus.CONFIRMED,
                source_host_id=host.id,
                old_flavor_id=flavor.id,
                new_flavor_id=flavor.id,
                old_vm_state="active",
                created_at=tx.now(),
            )
        )
        tx.session.flush()
        tx.jobs.create(identity, identity, identity, "empty")
        lease = tx.jobs.take(identity, "one", 600)
    assert lease is not None
    return lease


def nothing() -> None:
    """A task."""


def run_empty(cloud: Cloud, lease: Lease, tasks: int) -> None:
    """A flow of tasks that do nothing, through the flow store."""
    store = FlowStore(cloud.database, lease, UnitOfWork(lease.migration_id))
    flow = linear_flow.Flow("empty").add(*(task.FunctorTask(nothing, name=f"t{number}") for number in range(tasks)))
    detail = store.get_connection().get_flow_details(lease.job_id)
    engines.load(flow, flow_detail=detail, backend=store, engine="serial").run()
    with cloud.database.read() as tx:
        assert tx.jobs.get(lease.job_id).state is JobState.DONE


def test_a_task_is_two_commits_of_five_statements(cloud: Cloud) -> None:
    costs = []
    for tasks in (5, 15):
        lease = leased(cloud)
        with counted(cloud) as counts:
            run_empty(cloud, lease, tasks)
        costs.append(counts)
        print(f"{tasks} tasks: {counts.total() - counts['COMMIT']} statements, {counts['COMMIT']} commits: {counts}")
    more = Counter({what: (costs[1][what] - costs[0][what]) / 10 for what in costs[1]})
    # The fence, the task's row, where the log stands and where it stands then, its line; only the fence is on jobs.
    log = {"SELECT event_logs": 2, "UPDATE event_logs": 2, "INSERT events": 2}
    assert +more == {"SELECT jobs": 2, "UPDATE atom_details": 2, "COMMIT": 2} | log
    assert costs[0]["COMMIT"] == 2 * 5 + 3


def test_a_transaction_reads_a_row_once_and_what_nobody_asks_for_not_at_all(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    with counted(cloud) as counts, cloud.database.write() as tx:
        for _ in range(3):
            assert tx.migrations.get(job.migration_id).source_host.name == "h1"
            assert tx.instances.get(cloud.uuid).flavor.name != "big"
        assert counts == {"SELECT migrations": 1, "SELECT instances": 1}
        assert tx.migrations.get(job.migration_id).disks == []
        assert counts == {"SELECT migrations": 1, "SELECT instances": 1, "SELECT migration_disks": 1}


def test_a_list_asks_the_same_however_long_it_is(cloud: Cloud) -> None:
    asked, told = [], []
    for _ in range(2):
        leased(cloud)
        with counted(cloud) as counts, cloud.database.read() as tx:
            told.append([str(row["job"]) for row in rows_of(tx, tx.migrations.list())])
        asked.append(counts)
    assert told == [["empty running"], ["empty running", "empty running"]]
    assert asked[0] == asked[1]


def test_an_open_migration_is_listed_behind_any_number_of_closed_ones(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    closed = [leased(cloud).migration_id for _ in range(3)]
    with cloud.database.read() as tx:
        assert [row.id for row in tx.migrations.list(limit=2)] == closed[:0:-1]
        assert [row.id for row in tx.migrations.list(limit=2, open_only=True)] == [job.migration_id]


class StillClock(FastClock):
    """A clock that a test moves."""

    at = 1000.0

    def boottime(self) -> float:
        return self.at


def gate_of(cloud: Cloud, clock: Clock) -> tuple[Submitted, Lease, Host, Gate]:
    """A resize that somebody has taken up, its lease, its source, and the gate that it goes through."""
    job = cloud.service.resize("web", "big", host="h2")
    with cloud.database.write() as tx:
        lease = tx.jobs.take(job.job_id, "one", 1e9)
        host = tx.hosts.get("h1")
    assert lease is not None
    work, stop = UnitOfWork(job.migration_id), threading.Event()
    gate = Gate(cloud.connections, cloud.settings, clock, database=cloud.database, lease=lease, work=work, stop=stop)
    return job, lease, host, gate


def test_looks_ask_the_database_once_a_second_and_acts_each_time(cloud: Cloud) -> None:
    clock = StillClock()
    job, lease, host, gate = gate_of(cloud, clock)
    lease.surely_until = 1e9
    with gate.scope("Probe", Direction.FORWARD), counted(cloud) as counts:
        for _ in range(10):
            gate.host(host).domain(cloud.uuid)
        assert counts["SELECT jobs"] == 1
        clock.at += gates.CHECK_EVERY + 0.1
        gate.host(host).domain(cloud.uuid)
        assert counts["SELECT jobs"] == 2
        cloud.service.rollback(job.migration_id)
        gate.host(host).domain(cloud.uuid)
        counts.clear()
        with pytest.raises(TurnBack):
            gate.host(host).set_autostart(cloud.uuid, True)
        assert counts["SELECT jobs"] == 1
    assert cloud.world.effects() == ()


def test_a_look_hears_of_a_rollback_within_a_second_or_from_a_commit(cloud: Cloud) -> None:
    clock = StillClock()
    job, lease, host, gate = gate_of(cloud, clock)
    with gate.scope("Probe", Direction.FORWARD):
        gate.host(host).domain(cloud.uuid)
        cloud.service.rollback(job.migration_id)
        clock.at += gates.CHECK_EVERY + 0.1
        with pytest.raises(TurnBack):
            gate.host(host).domain(cloud.uuid)
    lease.turned_back = False
    with cloud.database.fenced(lease, "probe"):
        pass
    with gate.scope("Probe", Direction.FORWARD), pytest.raises(TurnBack):
        gate.host(host).domain(cloud.uuid)


@pytest.mark.slow
@pytest.mark.parametrize("flows", [100, pytest.param(1000, marks=pytest.mark.certify)])
def test_memory_is_flat_over_many_flows(memory_path: Path, flows: int) -> None:
    """TaskFlow's own store keeps 10 MiB of each flow with this SQLAlchemy."""
    cloud = Cloud(memory_path).build()

    def figures() -> tuple[int, int]:
        gc.collect()
        # An SQLite connection keeps up to two hundred dead references to its cursors.
        objects = sum(type(thing) is not weakref.ref for thing in gc.get_objects())
        return objects, int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(20):
        run_empty(cloud, leased(cloud), 5)
    objects, resident = figures()
    for _ in range(flows):
        run_empty(cloud, leased(cloud), 5)
    objects_after, resident_after = figures()
    print(
        f"{flows} flows of 5 tasks: live objects {objects} to {objects_after}, "
        f"resident {resident / MIB:.1f} to {resident_after / MIB:.1f} MiB"
    )
    assert objects_after - objects < flows, "each flow leaves something behind"
    assert resident_after - resident < 16 * MIB
