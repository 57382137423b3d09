"""A worker that has lost its job can neither write nor act; one that is stopped, turned back or cut off from the
database puts the job down whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.chaos.laboratory import Laboratory
from resizeflow.connections import Connections
from resizeflow.drivers.interface import Connection, Fence, Watch
from resizeflow.drivers.simulator import SimulatedConnection
from resizeflow.drivers.simulator.effects import Cause
from resizeflow.errors import Conflict
from resizeflow.gate import Gate
from resizeflow.handover import Handover, LeaseLost, Stopping, TurnBack
from resizeflow.lease import Lease
from resizeflow.persistence.flow_store import FlowStore
from resizeflow.persistence.models import Event, Job
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus, VmState
from resizeflow.worker import Worker
from resizeflow.world import World
from tests.console import everything

STEP = 17
"""Of the calls to hosts of a resize, each so many-th is interrupted."""
SLACK = 8
"""So many more looks than another one a run may take."""


class Interruption:
    """Connections on which, at the n-th call to any host, something happens first, once."""

    def __init__(self, at: int, strike: Callable[[], None]) -> None:
        self.at = at
        self.strike = strike
        self.calls: list[str] = []

    def connections(self) -> Connections:
        return Connections(lambda uri: InterruptedConnection(SimulatedConnection(uri), self))

    def called(self, method: str) -> None:
        self.calls.append(method)
        if len(self.calls) == self.at:
            self.strike()


class InterruptedConnection(Connection):
    """A connection that tells of each call before it is made."""

    def __init__(self, inner: SimulatedConnection, interruption: Interruption) -> None:
        self.inner = inner
        self.interruption = interruption

    def open(self, timeout: float) -> None:
        self.inner.open(timeout)

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        self.interruption.called(method)
        return self.inner.call(method, args, timeout=timeout, fence=fence)

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> Watch:
        self.interruption.called(method)
        return self.inner.watch(method, args, fence=fence)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def case(memory_path: Path) -> Laboratory:
    return Laboratory("resize", memory_path / "laboratory")


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build()


def worker_on(cloud: Cloud, interruption: Interruption, clock: FastClock | None = None) -> Worker:
    """A worker whose lease is not renewed in the background: what it does is the same each time."""
    connections = interruption.connections()
    return Worker(cloud.database, cloud.settings, connections=connections, clock=clock or FastClock(), announced=False)


def take(cloud: Cloud, job: Submitted, owner: str = "successor") -> Lease:
    """Takes a job over as another worker does when the lease has ended."""
    cloud.expire(job)
    with cloud.database.write() as tx:
        lease = tx.jobs.take(job.job_id, owner, 600)
    assert lease is not None
    return lease


def never() -> None:
    raise AssertionError("This is not interrupted.")


def calls_of(case: Laboratory) -> int:
    """How many calls to hosts a run makes at least: one that waits for a host may look more often than another."""
    interruption = Interruption(0, never)
    cloud = case.fresh()
    worker_on(cloud, interruption).take_and_run(case.job.job_id)
    assert cloud.job(case.job).state is JobState.DONE
    return len(interruption.calls) - SLACK


# --- taken over in the middle ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_zombie_neither_acts_nor_writes(case: Laboratory) -> None:
    total = calls_of(case)
    tried = range(1, total, STEP)
    for at in tried:
        cloud = case.fresh()
        seen: dict[str, Any] = {}

        def strike(cloud: Cloud = cloud, seen: dict[str, Any] = seen) -> None:
            seen["lease"] = take(cloud, case.job)
            seen["rows"] = everything(cloud)
            seen["effects"] = len(cloud.world.effects())

        interruption = Interruption(at, strike)
        worker_on(cloud, interruption).take_and_run(case.job.job_id)
        where = f"call {at} of {total}: {interruption.calls[at - 1 :]}"
        assert everything(cloud) == seen["rows"], where
        # The one call that had passed its check may still take effect; nothing of ours follows it.
        effects = cloud.world.effects()[seen["effects"] :]
        late = [effect.method for effect in effects if effect.caused is not Cause.WORLD]
        assert late in ([], [interruption.calls[at - 1]]), where
        assert cloud.job(case.job).epoch == seen["lease"].epoch, where
        assert cloud.run(case.job, tries=3) is JobState.DONE, f"{where}\n{cloud.story(case.job)}"
        assert cloud.state(case.job) == case.done, where
        with cloud.database.read() as tx:
            assert tx.events.flaw(case.job.migration_id) is None, where
    assert len(tried) >= 4


@pytest.fixture
def world(cloud: Cloud) -> Iterator[World]:
    """What a task of a just accepted resize is given; the job is taken over by `take` in the tests."""
    job = cloud.service.resize("web", "big", host="h2")
    with cloud.database.write() as tx:
        lease = tx.jobs.take(job.job_id, "first", 600)
    assert lease is not None
    work = UnitOfWork(job.migration_id)
    connections = Connections()
    gate = Gate(
        connections,
        cloud.settings,
        FastClock(),
        database=cloud.database,
        lease=lease,
        work=work,
        stop=threading.Event(),
    )
    yield World(cloud.database, gate, lease, work, FastClock(), cloud.settings)
    connections.close()


def submitted(world: World) -> Submitted:
    return Submitted(world.lease.migration_id, world.lease.job_id)


def test_an_old_epoch_opens_no_intent(cloud: Cloud, world: World) -> None:
    with world.gate.scope("Probe", Direction.FORWARD), world.intent("probe") as tx:
        tx.events.add(world.lease.migration_id, "note", "while it is ours")
    take(cloud, submitted(world))
    before, entered = everything(cloud), False
    with pytest.raises(LeaseLost), world.gate.scope("Probe", Direction.FORWARD), world.intent("probe"):
        entered = True
    assert not entered
    assert world.lease.lost
    assert everything(cloud) == before


def test_an_intent_under_way_is_not_overtaken(cloud: Cloud, world: World) -> None:
    """Who takes the job over while a fenced transaction is open waits for its end, on SQLite as on PostgreSQL."""
    order: list[str] = []

    def overtake() -> None:
        take(cloud, submitted(world))
        order.append("taken over")

    thread = threading.Thread(target=overtake)
    with cloud.database.write(world.lease) as tx:
        thread.start()
        thread.join(0.2)
        tx.events.add(world.lease.migration_id, "note", "written under the old epoch")
        order.append("written")
    thread.join()
    assert order == ["written", "taken over"]


def test_an_old_epoch_does_not_act(cloud: Cloud, world: World) -> None:
    with cloud.database.read() as tx:
        host = tx.hosts.get("h1")
    hypervisor = world.gate.host(host)
    with world.gate.scope("Probe", Direction.FORWARD):
        hypervisor.set_autostart(cloud.uuid, True)
        take(cloud, submitted(world))
        before = cloud.world.snapshot()
        for act in (
            lambda: hypervisor.set_autostart(cloud.uuid, False),
            lambda: hypervisor.destroy(cloud.uuid),
            lambda: world.gate.start(host, "transfer", cloud.uuid, host.peer_uri, "", "<domain/>", 0),
            world.gate.check,
        ):
            with pytest.raises(LeaseLost):
                act()
    assert cloud.world.snapshot() == before
    assert cloud.world.running(cloud.uuid) == ("h1",)


def test_an_old_epoch_does_not_save_a_flow(cloud: Cloud, world: World) -> None:
    """A zombie turned a REVERTED flow into SUCCESS with TaskFlow's own backends."""
    job = submitted(world)
    connection = FlowStore(cloud.database, world.lease, world.work).get_connection()
    assert cloud.service.rollback(job.migration_id) == job
    cloud.expire(job)
    assert cloud.run(job) is JobState.DONE
    detail = connection.get_flow_details(job.job_id)
    assert detail.state == "REVERTED"
    before = everything(cloud)
    detail.state = "SUCCESS"
    with pytest.raises(LeaseLost):
        connection.update_flow_details(detail)
    for atom in detail:
        atom.state = "SUCCESS" if atom.state != "SUCCESS" else "FAILURE"
        with pytest.raises(LeaseLost):
            connection.update_atom_details(atom)
    assert everything(cloud) == before


def test_an_old_epoch_does_not_renew_or_put_down(cloud: Cloud, world: World) -> None:
    successor = take(cloud, submitted(world))
    before = everything(cloud)
    with cloud.database.write() as tx:
        assert not tx.jobs.renew(world.lease, 600)
        tx.jobs.put_down(world.lease, JobState.DONE, reason="zombie")
    assert world.lease.lost
    assert everything(cloud) == before
    with cloud.database.write() as tx:
        assert tx.jobs.renew(successor, 600)


def test_a_lease_that_is_known_to_be_lost_asks_nobody(cloud: Cloud, world: World) -> None:
    world.lease.lost = True
    with pytest.raises(LeaseLost), world.gate.scope("Probe", Direction.FORWARD):
        world.gate.check()


# --- too late --------------------------------------------------------------------------------------------


class LateClock(FastClock):
    """Of a worker that was stopped: more time has passed than it has a lease for, after every renewal."""

    def boottime(self) -> float:
        return super().boottime() + 600


def test_with_too_little_lease_left_nothing_is_begun(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    before = cloud.world.snapshot()
    worker_on(cloud, Interruption(0, never), LateClock()).take_and_run(job.job_id)
    row = cloud.job(job)
    assert (row.state, row.direction) == (JobState.QUEUED, Direction.FORWARD)
    assert row.reason == "too little of the lease is left to begin an effect"
    assert cloud.world.snapshot() == before
    assert cloud.world.effects() == ()
    assert cloud.run(job, tries=2) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.FINISHED


def test_a_lease_that_runs_low_is_renewed_before_an_act(cloud: Cloud, world: World) -> None:
    need = cloud.settings.act_timeout + cloud.settings.fence_window
    world.lease.surely_until = world.clock.boottime() + need - 1
    with cloud.database.read() as tx:
        host = tx.hosts.get("h1")
    with world.gate.scope("Probe", Direction.FORWARD):
        world.gate.host(host).set_autostart(cloud.uuid, True)
    assert world.lease.surely_until > world.clock.boottime() + need


# --- stopped, turned back --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_worker_hands_over_and_the_job_is_kept(case: Laboratory) -> None:
    total = calls_of(case)
    for at in range(2, total, 2 * STEP):
        cloud = case.fresh()
        stop = threading.Event()
        interruption = Interruption(at, stop.set)
        worker = worker_on(cloud, interruption)
        worker.stop = stop
        worker.take_and_run(case.job.job_id)
        row = cloud.job(case.job)
        assert (row.state, row.owner, row.attempts) in ((JobState.QUEUED, None, 0), (JobState.QUEUED, None, 1)), at
        assert (row.reason, row.direction) == ("the worker was asked to stop", Direction.FORWARD), at
        with cloud.database.read() as tx:
            assert tx.events.of(case.job.migration_id)[-1].kind == "stopped", at
        assert cloud.run(case.job) is JobState.DONE, at
        assert cloud.state(case.job) == case.done, at


@pytest.mark.slow
def test_a_rollback_asked_for_in_mid_flow_turns_the_running_flow_back(case: Laboratory) -> None:
    total = calls_of(case)
    turned = forward = 0
    for at in range(3, total, STEP):
        cloud = case.fresh()
        refused: list[str] = []

        def strike(cloud: Cloud = cloud, refused: list[str] = refused) -> None:
            try:
                cloud.service.rollback(case.job.migration_id)
            except Conflict as error:
                refused.append(str(error))

        worker_on(cloud, Interruption(at, strike)).take_and_run(case.job.job_id)
        row = cloud.job(case.job)
        assert (row.state, row.epoch) == (JobState.DONE, 1), f"{at}: {cloud.story(case.job)}"
        if refused:
            forward += 1
            assert "can only go forward" in refused[0]
            assert cloud.migration(case.job).status is MigrationStatus.FINISHED, at
        else:
            turned += 1
            assert cloud.migration(case.job).status is MigrationStatus.ERROR, at
            assert cloud.state(case.job) == case.before, at
            assert cloud.world.running(cloud.uuid) == ("h1",), at
    assert turned >= 3
    assert turned + forward >= 4


def test_going_back_is_no_reason_to_turn_back(cloud: Cloud, world: World) -> None:
    cloud.service.rollback(world.lease.migration_id)
    with world.gate.scope("Probe", Direction.FORWARD), pytest.raises(TurnBack):
        world.gate.check()
    with world.gate.scope("Probe.revert", Direction.BACK):
        world.gate.check()


def test_a_wait_ends_when_the_worker_is_stopped(world: World) -> None:
    world.gate._stop.set()
    with world.gate.scope("Probe", Direction.FORWARD), pytest.raises(Stopping):
        world.gate.pause(3600)


# --- the database is away --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 9, 21])
def test_a_read_that_fails_is_a_handover_and_no_failure(cloud: Cloud, at: int) -> None:
    """With PostgreSQL a connection may break at any statement."""
    job = cloud.service.resize("web", "big", host="h2")
    asked = 0

    def fail(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        nonlocal asked
        if statement.startswith("SELECT") and "migrations.definition" in statement:
            asked += 1
            if asked == at:
                raise sa.exc.OperationalError(statement, {}, Exception("server closed the connection unexpectedly"))

    sa.event.listen(cloud.database.engine, "before_cursor_execute", fail)
    worker_on(cloud, Interruption(0, never)).take_and_run(job.job_id)
    sa.event.remove(cloud.database.engine, "before_cursor_execute", fail)
    assert asked == at, "the run went on without the database"
    row = cloud.job(job)
    assert (row.state, row.direction) == (JobState.QUEUED, Direction.FORWARD), cloud.story(job)
    assert "does not answer" in (row.reason or "")
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.FINISHED


def test_nothing_but_a_handover_leaves_a_fenced_transaction(cloud: Cloud, world: World) -> None:
    lines = sa.select(sa.func.count()).select_from(Event)
    with cloud.database.read() as tx:
        before = tx.session.scalar(lines)
    with pytest.raises(Handover, match="the database does not answer"), cloud.database.fenced(world.lease, "p") as tx:
        tx.events.add(world.lease.migration_id, "note", "a line of what was never done")
        tx.session.execute(sa.text("SELECT nonsense FROM nowhere"))
    with cloud.database.read() as tx:
        assert tx.instances.get("web").vm_state is VmState.ACTIVE
        assert tx.session.scalar(lines) == before
        assert tx.session.scalar(sa.select(Job.state)) is JobState.RUNNING
