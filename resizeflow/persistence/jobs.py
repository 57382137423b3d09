"""Jobs and their leases: the board that workers take work from. Leases end by the database's clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import GenericFunction
from taskflow import states

from resizeflow.handover import TurnBack
from resizeflow.lease import Lease, Left
from resizeflow.persistence.models import AtomDetail, FlowDetail, Job, LogBook, Migration, UtcDateTime
from resizeflow.states import Direction, JobState, OnCrash

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction


class database_now(GenericFunction[float]):  # noqa: N801 - the name of an SQL function
    """The database's clock, seconds since 1970: the one clock that all workers share."""

    type = sa.Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: Any, **_kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(_element: database_now, _compiler: Any, **_kw: Any) -> str:
    return "extract(epoch from clock_timestamp())"


_UNDER_WAY = (
    sa.select(AtomDetail.name)
    .where(AtomDetail.parent_uuid == Job.id, AtomDetail.state.in_([states.RUNNING, states.REVERTING]))
    .limit(1)
    .correlate(Job)
    .scalar_subquery()
    .label("task")
)
"""The task that a job is in."""


@dataclass(frozen=True)
class Held:
    """A job in somebody's hands; `task` is None between two tasks."""

    owner: str | None
    instance: str
    migration_id: str
    flow: str
    epoch: int
    task: str | None


class Jobs:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session
        self.clock = tx.clock

    def create(
        self,
        job_id: str,
        migration_id: str,
        instance_id: str,
        flow: str,
        on_crash: OnCrash = OnCrash.RESUME,
        *,
        why: str = "",
    ) -> Job:
        """Queues a flow, asked for by whom the transaction is of; what else that tells is of the same request. `why`
        is told if no person asked. A second unfinished job of an instance is refused by the database."""
        if self.session.get(LogBook, migration_id) is None:
            self.session.add(LogBook(uuid=migration_id, name=f"migration {migration_id}"))
            self.session.flush()
        job = Job(
            id=job_id,
            migration_id=migration_id,
            instance_id=instance_id,
            flow=flow,
            state=JobState.QUEUED,
            direction=Direction.FORWARD,
            on_crash=on_crash,
            asked_by=self._tx.actor.user,
            asked_from=self._tx.actor.host,
            created_at=self.clock.now(),
        )
        self._tx.events.request_id = job_id
        self.session.add(job)
        self.session.add(FlowDetail(uuid=job_id, parent_uuid=migration_id, name=flow))
        self.session.flush()
        self._tx.events.add(
            migration_id,
            "flow",
            f"{flow} is queued{f' by a worker: {why}' if why else ''}",
            transition=f"none -> {states.PENDING}",
            flow=flow,
            on_crash=str(on_crash),
            by_itself=bool(why),
        )
        return job

    def get(self, job_id: str) -> Job:
        return self.session.get_one(Job, job_id, populate_existing=True)

    def of_migration(self, migration_id: str) -> Sequence[Job]:
        return self.session.scalars(
            sa.select(Job).where(Job.migration_id == migration_id).order_by(Job.created_at)
        ).all()

    def unfinished(self, migration_id: str) -> Job | None:
        return self.unfinished_of([migration_id]).get(migration_id)

    def unfinished_of(self, migration_ids: Collection[str]) -> dict[str, Job]:
        """The unfinished jobs of many migrations, by migration."""
        query = sa.select(Job).where(Job.migration_id.in_(migration_ids), Job.state != JobState.DONE)
        return {job.migration_id: job for job in self.session.scalars(query)}

    def busy(self, instance_id: str) -> Job | None:
        """The instance's unfinished job, if it has one."""
        return self.session.scalars(
            sa.select(Job).where(Job.instance_id == instance_id, Job.state != JobState.DONE)
        ).first()

    def takeable(self, flows: Collection[str]) -> Sequence[str]:
        """The ids of jobs that a worker may take now, the longest waiting first."""
        return self.session.scalars(
            sa.select(Job.id).where(Job.flow.in_(flows), self._free()).order_by(Job.not_before, Job.created_at)
        ).all()

    def next_free_in(self, flows: Collection[str]) -> float | None:
        """Seconds until the next job can be taken, because its wait or its lease ends; None if there is none."""
        moment = sa.case((Job.state == JobState.QUEUED, Job.not_before), else_=Job.lease_until)
        seconds = self.session.scalar(
            sa.select(sa.func.min(moment) - database_now()).where(
                Job.flow.in_(flows), Job.state.in_([JobState.QUEUED, JobState.RUNNING])
            )
        )
        return None if seconds is None else float(seconds)

    @staticmethod
    def _free() -> sa.ColumnElement[bool]:
        return sa.or_(
            sa.and_(Job.state == JobState.QUEUED, Job.not_before <= database_now()),
            sa.and_(Job.state == JobState.RUNNING, Job.lease_until < database_now()),
        )

    def take(self, job_id: str, owner: str, seconds: float) -> Lease | None:
        """Takes a free job under a new epoch; None if somebody was faster or its lease still holds. Why the job was
        put down last stays with it until it makes progress."""
        began = self.clock.boottime()
        row = self.session.execute(
            sa.select(Job, Migration.bytes_done, Migration.bytes_total, _UNDER_WAY, database_now().label("now"))
            .join(Migration, Migration.id == Job.migration_id)
            .where(Job.id == job_id, self._free())
            .with_for_update(key_share=True, of=Job)
            .execution_options(populate_existing=True)
        ).first()
        if row is None:
            return None
        job = row.Job
        died = job.owner if job.state is JobState.RUNNING else None
        # Whose lease it was had the same setting as we: only its end is stored.
        silent = row.now - job.lease_until + seconds
        lease = Lease(
            job_id,
            job.migration_id,
            owner,
            job.epoch + 1,
            surely_until=began + seconds,
            asked_by=job.asked_by,
            asked_from=job.asked_from,
            asked_at=job.created_at,
            taken_at=began,
            taken_from=died,
            left=Left(round(silent, 1), row.task, row.bytes_done, row.bytes_total) if died else None,
        )
        self.session.execute(
            sa.update(Job)
            .where(Job.id == job_id)
            .values(
                state=JobState.RUNNING,
                owner=owner,
                lease_until=database_now() + seconds,
                epoch=lease.epoch,
                attempts=Job.attempts + 1,
                reason=f"worker {died} died while it held the job, or was silent for its whole lease"
                if died
                else job.reason,
            )
            .execution_options(synchronize_session=False)
        )
        return lease

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Prolongs a lease that is still ours; False if it is not. The lease object knows of it when it is committed:
        what a database did not say for sure may not be believed."""
        began = self.clock.boottime()
        renewed = self.session.execute(
            sa.update(Job)
            .where(Job.id == lease.job_id, Job.epoch == lease.epoch, Job.state == JobState.RUNNING)
            .values(lease_until=database_now() + seconds)
            .execution_options(synchronize_session=False)
        )
        if renewed.rowcount != 1:  # type: ignore[attr-defined]
            lease.lost = True
            return False

        def believe(_session: Session) -> None:
            lease.surely_until = began + seconds

        sa.event.listen(self.session, "after_commit", believe, once=True)
        return True

    def put_down(
        self, lease: Lease, state: JobState, *, reason: str | None, delay: float = 0.0, counts: bool = True
    ) -> None:
        """Ends our hold: the job is queued again (not before `delay` seconds), done, or waits for a person.
        `counts` is False if this was no attempt without progress, only a wait."""
        self.session.execute(
            sa.update(Job)
            .where(Job.id == lease.job_id, Job.epoch == lease.epoch, Job.state == JobState.RUNNING)
            .values(
                state=state,
                owner=None,
                lease_until=0.0,
                not_before=database_now() + delay,
                reason=reason,
                attempts=Job.attempts - (0 if counts else 1),
            )
            .execution_options(synchronize_session=False)
        )

    def made_progress(self, lease: Lease) -> None:
        """A task ended well: earlier attempts, and why they ended, no longer count."""
        self.session.execute(
            sa.update(Job)
            .where(Job.id == lease.job_id, sa.or_(Job.attempts > 1, Job.reason.is_not(None)))
            .values(attempts=1, reason=None)
            .execution_options(synchronize_session=False)
        )

    def turn_back(self, job_id: str) -> bool:
        """Sets the direction to back, once; False after the pivot or if the job is done."""
        turned = self.session.execute(
            sa.update(Job)
            .where(Job.id == job_id, Job.pivot_at.is_(None), Job.state != JobState.DONE)
            .values(direction=Direction.BACK)
            .execution_options(synchronize_session=False)
        )
        return bool(turned.rowcount)  # type: ignore[attr-defined]

    def pivot(self, lease: Lease) -> None:
        """The point of no return, by compare-and-swap against the direction: a job that was turned back never
        passes it. Raises TurnBack."""
        pivoted = self.session.execute(
            sa.update(Job)
            .where(Job.id == lease.job_id, Job.direction == Direction.FORWARD)
            .values(pivot_at=sa.func.coalesce(Job.pivot_at, sa.literal(self.clock.now(), UtcDateTime())))
            .execution_options(synchronize_session=False)
        )
        if pivoted.rowcount != 1:  # type: ignore[attr-defined]
            raise TurnBack("the resize was turned back before its point of no return")

    def requeue(self, job_id: str) -> None:
        """A person's `resume`: a waiting job may be taken now, one that needs attention again."""
        self._tx.events.request_id = job_id
        self.session.execute(
            sa.update(Job)
            .where(Job.id == job_id, Job.state.in_([JobState.QUEUED, JobState.NEEDS_ATTENTION]))
            .values(state=JobState.QUEUED, not_before=0.0, attempts=0, reason=None)
            .execution_options(synchronize_session=False)
        )

    def give_up(self, job_id: str) -> bool:
        """Ends a job past its pivot without its flow's end, under a new epoch, so that who held it before can do
        nothing any more; False while somebody may hold it."""
        given_up = self.session.execute(
            sa.update(Job)
            .where(
                Job.id == job_id,
                Job.pivot_at.is_not(None),
                sa.or_(
                    Job.state.in_([JobState.QUEUED, JobState.NEEDS_ATTENTION]),
                    sa.and_(Job.state == JobState.RUNNING, Job.lease_until < database_now()),
                ),
            )
            .values(state=JobState.DONE, owner=None, lease_until=0.0, epoch=Job.epoch + 1)
            .execution_options(synchronize_session=False)
        )
        return bool(given_up.rowcount)  # type: ignore[attr-defined]

    def seconds_to_wait(self, job_id: str) -> float:
        """How long a queued job may not be taken yet."""
        wait = self.session.scalar(sa.select(Job.not_before - database_now()).where(Job.id == job_id))
        return max(float(wait or 0.0), 0.0)

    def seconds_left(self, job_id: str) -> float:
        """How long the present owner's lease still holds, by the database's clock."""
        left = self.session.scalar(sa.select(Job.lease_until - database_now()).where(Job.id == job_id))
        return max(float(left or 0.0), 0.0)

    def held(self) -> Sequence[Held]:
        """The jobs that somebody holds, each with the task that it is in."""
        rows = self.session.execute(
            sa.select(Job.owner, Migration.instance_name, Job.migration_id, Job.flow, Job.epoch, AtomDetail.name)
            .join(Migration, Migration.id == Job.migration_id)
            .outerjoin(
                AtomDetail,
                sa.and_(AtomDetail.parent_uuid == Job.id, AtomDetail.state.in_([states.RUNNING, states.REVERTING])),
            )
            .where(Job.state == JobState.RUNNING)
            .order_by(Migration.instance_name)
        )
        return [Held(*row) for row in rows]
