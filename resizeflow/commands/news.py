"""What is new of a job: read from the database, by whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resizeflow.flows import TASKS
from resizeflow.persistence.database import AWAY, Database
from resizeflow.persistence.models import Debt, Event, Instance, Job, Migration
from resizeflow.states import JobState


@dataclass(frozen=True)
class News:
    """A job as it is now, and the lines of the log that were not told before."""

    migration: Migration
    job: Job
    instance: Instance | None
    events: Sequence[Event]
    debts: Sequence[Debt]
    lease_left: float
    workers: int
    """Workers that are up and know the job's flow."""

    @property
    def tasks(self) -> list[str]:
        """The names of the flow's tasks, in order."""
        return [task.__name__ for task in TASKS.get(self.job.flow, ())]

    @property
    def over(self) -> bool:
        """Whether nothing will happen any more unless a person decides."""
        return self.job.state in (JobState.DONE, JobState.NEEDS_ATTENTION)


class Feed:
    """Reads a job's news, each line of the log once."""

    def __init__(self, database: Database, job_id: str, *, from_the_beginning: bool = False) -> None:
        self._database = database
        self._job_id = job_id
        self._whole = from_the_beginning
        self._seen = 0

    def read(self) -> News | None:
        """None while the database does not answer."""
        try:
            with self._database.read() as tx:
                job = tx.jobs.get(self._job_id)
                migration = tx.migrations.get(job.migration_id)
                events = tx.events.of(migration.id, after=self._seen)
                if not self._whole:
                    # A confirm's log begins where the resize's ended.
                    events = [line for line in events if line.at >= job.created_at or line.request_id == job.id]
                news = News(
                    migration=migration,
                    job=job,
                    instance=tx.instances.find(migration.instance_id),
                    events=events,
                    debts=[debt for debt in tx.debts.open() if debt.migration_id == migration.id],
                    lease_left=tx.jobs.seconds_left(job.id) if job.state is JobState.RUNNING else 0.0,
                    workers=len(tx.workers.up(job.flow)),
                )
        except AWAY:
            return None
        self._seen = max([self._seen, *(event.seq for event in events)])
        return news
