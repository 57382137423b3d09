"""TaskFlow's job board on our `jobs` table: our workers and TaskFlow's own conductors take their jobs from it.

A claim is a lease: it has an epoch, which fences every write of whoever claimed the job, and it ends by itself. Of
TaskFlow's ways to end a claim none can lose a job here: one that is trashed, or consumed before its flow has ended,
needs a person's attention.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry
from taskflow import exceptions as taskflow_exc
from taskflow import states
from taskflow.jobs import base

from resizeflow.handover import Attention, Handover, Stopping
from resizeflow.lease import Lease
from resizeflow.persistence import next_actions
from resizeflow.persistence.database import AWAY, Database, in_short
from resizeflow.persistence.flow_store import ENDED, FlowStore
from resizeflow.persistence.models import AtomDetail, Event, FlowDetail, Job
from resizeflow.persistence.progress import what_remains
from resizeflow.persistence.transaction import Transaction
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.states import JobState, OnCrash, Outcome

T = TypeVar("T")
POLL = 1.0
"""Seconds between two looks at the board: a job is taken over at most so long after its lease has ended."""
LONGEST_BACKOFF = 60.0
"""Seconds that a job waits at most after an attempt that failed."""
_STATES: dict[JobState, str] = {
    JobState.QUEUED: states.UNCLAIMED,
    JobState.RUNNING: states.CLAIMED,
    JobState.NEEDS_ATTENTION: states.UNCLAIMED,
    JobState.DONE: states.COMPLETE,
}


class BoardJob(base.Job):
    """A job as TaskFlow knows it, and once it is claimed, as its owner knows it."""

    def __init__(self, board: DatabaseJobBoard, row: Job) -> None:
        details = {"flow_uuid": row.id, "migration_id": row.migration_id, "instance_id": row.instance_id}
        super().__init__(board, row.flow, uuid=row.id, details=details, book_data={"uuid": row.migration_id})
        self._at = board
        self._created_on = row.created_at
        self.work = UnitOfWork(row.migration_id)
        """What its run has to tell, not yet written."""
        self.lease: Lease | None = None
        """The last claim made with this object."""
        self.handover: Handover | None = None
        """Why its run left the flow; `abandon` and `trash` write it down."""

    @property
    def state(self) -> str:
        return _STATES[self._at.row(self).state]

    @property
    def priority(self) -> base.JobPriority:
        return base.JobPriority.NORMAL

    @property
    def created_on(self) -> datetime:
        return self._created_on

    @property
    def last_modified(self) -> datetime:
        """The time of the latest line of its migration's log."""
        return self._at.last_modified(self)

    @property
    def held(self) -> Lease:
        """Our claim. Raises JobFailure if there is none."""
        if self.lease is None:
            raise taskflow_exc.JobFailure(f"Job {self.uuid} is not claimed.")
        return self.lease

    def expires_in(self) -> float:
        """Seconds for which the present claim, anybody's, still holds; 0 if there is none."""
        return self._at.expires_in(self)

    def extend_expiry(self, expiry: float) -> bool:
        """Lets our claim last for `expiry` seconds from now; False if it is ours no more."""
        return self._at.extend_expiry(self, expiry)

    def claimed(self, lease: Lease) -> None:
        """A new claim: what an earlier one left in this object does not count any more."""
        self.lease, self.handover, self._book = lease, None, None

    def _load_book(self) -> Any:
        # The book of a job that is not ours can be read and never written: no job has epoch -1.
        lease = self.lease or Lease(self.uuid, self.book_uuid, "nobody", -1, 0.0, lost=True)
        return FlowStore(self._at.database, lease, self.work).get_connection().get_logbook(self.book_uuid)


class DatabaseJobBoard(base.JobBoard):
    """The board. Its methods raise JobFailure while the database does not answer, and after a lost claim."""

    def __init__(self, database: Database, lease_seconds: float, flows: Mapping[str, Sequence[str]]) -> None:
        """`flows`: by name, the tasks of the flows that are known here; jobs of others are not offered."""
        super().__init__("resizeflow", {})
        self.database = database
        self.lease_seconds = lease_seconds
        self.flows = flows
        self._connected = False

    # --- connection --------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._connected

    def connect(self) -> None:
        """Sees that the database answers."""
        self._read(lambda tx: tx.session.execute(sa.select(sa.literal(1))))
        self._connected = True

    def close(self) -> None:
        """Nothing is held open between transactions."""
        self._connected = False

    def register_entity(self, entity: Any) -> None:
        """Lists a conductor among the workers that are up, for the time of a lease."""
        self._write(lambda tx: tx.workers.seen(entity.name, self.lease_seconds, self.flows.keys()))

    # --- looking -----------------------------------------------------------------------------------------

    def iterjobs(self, only_unclaimed: bool = False, ensure_fresh: bool = False) -> Iterator[BoardJob]:  # noqa: ARG002
        """The jobs that can be claimed now, the longest waiting first; then, unless `only_unclaimed`, those that
        somebody holds or that wait for their time. What waits for a person is not on the board."""

        def look(tx: Transaction) -> list[BoardJob]:
            free = list(tx.jobs.takeable(self.flows.keys()))
            found = [tx.jobs.get(job_id) for job_id in free]
            if not only_unclaimed:
                open_states = [JobState.QUEUED, JobState.RUNNING]
                others = sa.select(Job).where(Job.state.in_(open_states), Job.id.not_in(free)).order_by(Job.created_at)
                found += tx.session.scalars(others)
            return [BoardJob(self, row) for row in found]

        return iter(self._read(look))

    def wait(self, timeout: float | None = None) -> Iterator[BoardJob]:
        """Waits until a job can be claimed, at most `timeout` seconds; the jobs that can."""
        clock = self.database.clock
        end = None if timeout is None else clock.boottime() + timeout
        while True:
            jobs = list(self.iterjobs(only_unclaimed=True))
            left = POLL if end is None else end - clock.boottime()
            if jobs or left <= 0:
                return iter(jobs)
            clock.sleep(min(left, POLL))

    @property
    def job_count(self) -> int:
        """How many jobs are not done."""
        query = sa.select(sa.func.count()).select_from(Job).where(Job.state != JobState.DONE)
        return int(self._read(lambda tx: tx.session.scalar(query)) or 0)

    def find_owner(self, job: BoardJob) -> str | None:
        """Who holds a job under a lease that has not ended."""

        def look(tx: Transaction) -> str | None:
            row = tx.jobs.get(job.uuid)
            return row.owner if row.state is JobState.RUNNING and tx.jobs.seconds_left(job.uuid) > 0 else None

        return self._read(look)

    def job(self, job_id: str) -> BoardJob:
        """A job by its id. Raises NotFound."""
        return BoardJob(self, self._read(lambda tx: tx.jobs.get(job_id)))

    def row(self, job: BoardJob) -> Job:
        """A job's row as it is now. Raises NotFound."""
        return self._read(lambda tx: tx.jobs.get(job.uuid))

    def last_modified(self, job: BoardJob) -> datetime:
        query = sa.select(sa.func.max(Event.at)).where(Event.migration_id == job.book_uuid)
        return self._read(lambda tx: tx.session.scalar(query)) or job.created_on

    def expires_in(self, job: BoardJob) -> float:
        return self._read(lambda tx: tx.jobs.seconds_left(job.uuid))

    # --- posting and claiming ----------------------------------------------------------------------------

    def post(
        self,
        name: str,
        book: Any = None,
        details: Mapping[str, Any] | None = None,
        priority: base.JobPriority = base.JobPriority.NORMAL,  # noqa: ARG002
    ) -> BoardJob:
        """Queues flow `name` for a migration; `details` has its `migration_id` and `instance_id`. Raises JobFailure if
        that instance has an unfinished job."""
        if book is not None or not details or not {"migration_id", "instance_id"} <= details.keys():
            raise ValueError("A job is posted with details migration_id and instance_id, and makes its own book.")

        def create(tx: Transaction) -> Job:
            job = tx.jobs.create(str(uuid.uuid4()), details["migration_id"], details["instance_id"], name)
            tx.events.add(job.migration_id, "command", f"job {name} was posted")
            return job

        return BoardJob(self, self._write(create))

    @base.check_who
    def claim(self, job: BoardJob, who: str) -> None:
        """Takes a free job under a new epoch, for the time of a lease. Raises UnclaimableJob if it is not free."""

        def take(tx: Transaction) -> Lease | None:
            lease = tx.jobs.take(job.uuid, who, self.lease_seconds)
            return None if lease is None or self._has_ended(tx, lease) else self._taken(tx, lease)

        lease = self._write(take, "job.take")
        if lease is None:
            raise taskflow_exc.UnclaimableJob(f"Job {job.uuid} is not free.")
        job.claimed(lease)

    def _has_ended(self, tx: Transaction, lease: Lease) -> bool:
        """Whether nothing is left of a job: running a REVERTED flow would start it over."""
        state = tx.session.get_one(FlowDetail, lease.job_id).state
        if state not in ENDED:
            return False
        tx.events.lease = lease
        self._end(tx, lease, state)
        return True

    @staticmethod
    def _end(tx: Transaction, lease: Lease, state: str | None) -> None:
        tx.jobs.put_down(lease, JobState.DONE, reason=None)
        text = f"the job's flow has ended ({state}): it is done"
        tx.events.add(lease.migration_id, "lease", text, transition=f"{JobState.RUNNING} -> {JobState.DONE}")

    def _taken(self, tx: Transaction, lease: Lease) -> Lease:
        """Tells of a take-over; after a crash, turns the job back if that is its policy."""
        tx.events.lease = lease
        died = lease.taken_from
        what = f"takes the job over from {died}, whose lease has ended" if died else "takes the job up"
        tx.events.add(
            lease.migration_id,
            "lease",
            f"worker {lease.owner} {what}, epoch {lease.epoch}",
            transition=f"{'lapsed' if died else JobState.QUEUED} -> {JobState.RUNNING}",
            **({"from": died, **asdict(lease.left)} if lease.left else {}),
        )
        if lease.died and tx.jobs.get(lease.job_id).on_crash is OnCrash.ROLLBACK and tx.jobs.turn_back(lease.job_id):
            why = f"worker {died} died, and the job is to be rolled back after a crash"
            migration = tx.migrations.get(lease.migration_id)
            migration.error = migration.error or why
            tx.events.add(lease.migration_id, "note", f"{why}: direction back")
        return lease

    def extend_expiry(self, job: BoardJob, expiry: float) -> bool:
        return self._write(lambda tx: tx.jobs.renew(job.held, expiry))

    # --- ending a claim ----------------------------------------------------------------------------------

    @base.check_who
    def consume(self, job: BoardJob, who: str) -> None:
        """The job is done, if its flow has ended; else it needs attention: nobody says so in its place."""
        if self.row(job).state is JobState.DONE:
            return  # The flow store says so together with the flow's last state.
        with self._claimed(job, who, "job.done") as tx:
            state = tx.session.get_one(FlowDetail, job.uuid).state
            if state in ENDED:
                self._end(tx, job.held, state)
            else:
                self._stop_for_a_person(tx, job, f"{who} says it is done, but its flow is {state or 'not begun'}")

    @base.check_who
    def abandon(self, job: BoardJob, who: str) -> None:
        """Puts the job down for the next one: at once, or when what its handover waits for may have come."""
        handover = job.handover or Handover(f"put down by {who}")
        if isinstance(handover, Attention):
            self.trash(job, who)
            return
        with self._claimed(job, who, "job.put_down") as tx:
            delay = handover.delay
            if handover.counts and not delay:
                delay = min(2.0 ** (tx.jobs.get(job.uuid).attempts - 1), LONGEST_BACKOFF)
            tx.jobs.put_down(job.held, JobState.QUEUED, reason=handover.reason, delay=delay, counts=handover.counts)
            job.work.write_lines(tx)
            stopped = isinstance(handover, Stopping)
            tx.events.add(
                job.book_uuid,
                "stopped" if stopped else "waiting",
                handover.reason,
                transition=f"{JobState.RUNNING} -> {JobState.QUEUED}",
                seconds=self._held_for(job),
                outcome=Outcome.WAITING,
                next_action=None if stopped else next_actions.of_wait(handover.reason),
                delay=delay,
            )

    @base.check_who
    def trash(self, job: BoardJob, who: str) -> None:
        """Nothing is discarded: the job needs a person's attention, and says why and what remains."""
        gave_up = f"{who} gave it up: its flow {job.name} could not be rebuilt"
        with self._claimed(job, who, "job.put_down") as tx:
            job.work.write_lines(tx)
            self._stop_for_a_person(tx, job, job.handover.reason if job.handover else gave_up)

    def _stop_for_a_person(self, tx: Transaction, job: BoardJob, why: str) -> None:
        row = tx.jobs.get(job.uuid)
        atoms = tx.session.execute(sa.select(AtomDetail.name, AtomDetail.state).where(AtomDetail.parent_uuid == row.id))
        stored = {atom.name: atom.state for atom in atoms}
        reason = f"{why.rstrip('.')}. {what_remains(self.flows.get(row.flow, sorted(stored)), stored, row.direction)}"
        tx.jobs.put_down(job.held, JobState.NEEDS_ATTENTION, reason=reason)
        tx.events.add(
            row.migration_id,
            "attention",
            reason,
            transition=f"{JobState.RUNNING} -> {JobState.NEEDS_ATTENTION}",
            seconds=self._held_for(job),
            outcome=Outcome.NEEDS_ATTENTION,
            error=why,
            next_action=next_actions.of_attention(reason),
        )
        tx.outbox.stopped(row, reason)

    def _held_for(self, job: BoardJob) -> float:
        """Seconds since it was taken up."""
        return round(self.database.clock.boottime() - job.held.taken_at, 3)

    # --- the database ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _claimed(self, job: BoardJob, who: str, point: str) -> Iterator[Transaction]:
        """A transaction that only the job's present owner gets."""
        if job.held.owner != who:
            raise taskflow_exc.JobFailure(f"Job {job.uuid} is claimed by {job.held.owner}, not by {who}.")
        try:
            with self.database.fenced(job.held, point) as tx:
                if tx.jobs.get(job.uuid).state is not JobState.RUNNING:
                    job.held.lost = True
                    raise taskflow_exc.JobFailure(f"Job {job.uuid} is not claimed any more.")
                yield tx
        except Handover as lost:
            raise taskflow_exc.JobFailure(lost.reason) from lost

    def _read(self, look: Callable[[Transaction], T]) -> T:
        with _answering(), self.database.read() as tx:
            return look(tx)

    def _write(self, change: Callable[[Transaction], T], point: str | None = None) -> T:
        with _answering(), self.database.write(point=point) as tx:
            return change(tx)


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except sa.exc.NoResultFound as error:
        raise taskflow_exc.NotFound("There is no such job.") from error
    except DBDuplicateEntry as error:
        raise taskflow_exc.JobFailure("The instance has an unfinished job.") from error
    except AWAY as error:
        raise taskflow_exc.JobFailure(f"the database does not answer: {in_short(error)}") from error
