"""Jobs and their leases: the board that workers take work from. Leases end by the database's clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import GenericFunction

from resizeflow.clock import Clock
from resizeflow.handover import TurnBack
from resizeflow.lease import Lease
from resizeflow.persistence.models import FlowDetail, Job, LogBook, UtcDateTime, WorkerRow
from resizeflow.states import Direction, JobState


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


class Jobs:
    def __init__(self, session: Session, clock: Clock) -> None:
        self.session = session
        self.clock = clock

    def create(self, job_id: str, migration_id: str, instance_id: str, flow: str) -> Job:
        """Queues a flow. A second unfinished job of an instance is refused by the database."""
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
            created_at=self.clock.now(),
        )
        self.session.add(job)
        self.session.add(FlowDetail(uuid=job_id, parent_uuid=migration_id, name=flow))
        self.session.flush()
        return job

    def get(self, job_id: str) -> Job:
        return self.session.get_one(Job, job_id, populate_existing=True)

    def of_migration(self, migration_id: str) -> Sequence[Job]:
        return self.session.scalars(
            sa.select(Job).where(Job.migration_id == migration_id).order_by(Job.created_at)
        ).all()

    def unfinished(self, migration_id: str) -> Job | None:
        query = sa.select(Job).where(Job.migration_id == migration_id, Job.state != JobState.DONE)
        return self.session.scalars(query).first()

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

    @staticmethod
    def _free() -> sa.ColumnElement[bool]:
        return sa.or_(
            sa.and_(Job.state == JobState.QUEUED, Job.not_before <= database_now()),
            sa.and_(Job.state == JobState.RUNNING, Job.lease_until < database_now()),
        )

    def take(self, job_id: str, owner: str, seconds: float) -> Lease | None:
        """Takes a free job under a new epoch; None if somebody was faster or its lease still holds."""
        began = self.clock.boottime()
        taken = self.session.execute(
            sa.update(Job)
            .where(Job.id == job_id, self._free())
            .values(
                state=JobState.RUNNING,
                owner=owner,
                lease_until=database_now() + seconds,
                epoch=Job.epoch + 1,
                attempts=Job.attempts + 1,
                reason=None,
            )
            .execution_options(synchronize_session=False)
        )
        if taken.rowcount != 1:  # type: ignore[attr-defined]
            return None
        job = self.get(job_id)
        return Lease(job.id, job.migration_id, owner, job.epoch, surely_until=began + seconds)

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Prolongs a lease that is still ours; False if it is not."""
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
        lease.surely_until = began + seconds
        return True

    def put_down(
        self, lease: Lease, state: JobState, *, reason: str | None, delay: float = 0.0, counts: bool = True
    ) -> None:
        """Ends our hold: the job is queued again (not before `delay` seconds), done, or waits for a person.
        `counts` is False if this was no attempt without progress, only a wait."""
        self.session.execute(
            sa.update(Job)
            .where(Job.id == lease.job_id, Job.epoch == lease.epoch)
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
        """A task ended well: earlier attempts no longer count."""
        self.session.execute(
            sa.update(Job)
            .where(Job.id == lease.job_id, Job.attempts > 1)
            .values(attempts=1)
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
        self.session.execute(
            sa.update(Job)
            .where(Job.id == job_id, Job.state.in_([JobState.QUEUED, JobState.NEEDS_ATTENTION]))
            .values(state=JobState.QUEUED, not_before=0.0, attempts=0)
            .execution_options(synchronize_session=False)
        )

    def seconds_left(self, job_id: str) -> float:
        """How long the present owner's lease still holds, by the database's clock."""
        left = self.session.scalar(sa.select(Job.lease_until - database_now()).where(Job.id == job_id))
        return max(float(left or 0.0), 0.0)

    # --- workers -----------------------------------------------------------------------------------------

    def worker_seen(self, name: str, seconds: float) -> None:
        """A worker says that it is there, for the next `seconds`."""
        row = self.session.get(WorkerRow, name)
        if row is None:
            self.session.add(WorkerRow(name=name, started_at=self.clock.now(), seen_until=0.0))
            self.session.flush()
        self.session.execute(
            sa.update(WorkerRow)
            .where(WorkerRow.name == name)
            .values(seen_until=database_now() + seconds)
            .execution_options(synchronize_session=False)
        )

    def worker_gone(self, name: str) -> None:
        self.session.execute(sa.delete(WorkerRow).where(WorkerRow.name == name))

    def workers(self) -> Sequence[WorkerRow]:
        """The workers that are up."""
        return self.session.scalars(
            sa.select(WorkerRow).where(WorkerRow.seen_until > database_now()).order_by(WorkerRow.name)
        ).all()
