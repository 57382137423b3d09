"""After a database backup was restored: epochs have gone back, and the records may tell of an earlier time."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from resizeflow.doctor.machines import mark_of
from resizeflow.doctor.snapshot import World
from resizeflow.errors import Conflict
from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import Job
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import JobState

LEAP = 1_000_000
"""More take-overs than any job had between the backup and its restoration."""
REASON = (
    "the database was restored from a backup, what the hosts have may be newer: compare them (`resizeflow doctor`), "
    "put right what differs, then resume or roll back"
)


def require_no_worker(tx: Transaction) -> None:
    """Raises Conflict while a worker is up or a lease holds, by the database's clock."""
    if workers := [row.name for row in tx.workers.up()]:
        raise Conflict(
            f"Worker {', '.join(workers)} is up: stop all workers first. One that was killed, or that was up when the "
            "backup was made, counts as gone when its time ([worker] lease_seconds) is over."
        )
    held = sa.select(Job).where(Job.state == JobState.RUNNING, Job.lease_until > database_now())
    if job := tx.session.scalars(held).first():
        raise Conflict(
            f"Job {job.flow} of migration {job.migration_id} is held by {job.owner} for another "
            f"{tx.jobs.seconds_left(job.id):.0f} seconds: stop that process, and wait for the end of the lease."
        )


def set_apart(tx: Transaction, world: World, who: str) -> None:
    """Puts every unfinished job before a person, under an epoch that nobody can have been given: whoever still works
    for one of them from before the restoration finds itself fenced off. Raises Conflict while a worker is up."""
    require_no_worker(tx)
    marks = _epochs(world)
    for job in tx.session.scalars(sa.select(Job).where(Job.state != JobState.DONE).order_by(Job.created_at)):
        before = job.epoch
        job.epoch = max(before, marks[job.migration_id]) + LEAP
        job.state, job.owner, job.lease_until, job.reason = JobState.NEEDS_ATTENTION, None, 0.0, REASON
        if marks[job.migration_id] > before:
            job.reason += f"; marks of epoch {marks[job.migration_id]} on the hosts prove that it has gone on since"
        tx.session.flush()
        text = f"database restored: epoch {before} raised to {job.epoch}, job {job.flow} needs attention, by {who}"
        tx.events.add(job.migration_id, "restore", text, job=job.id, before=before, epoch=job.epoch)
    tx.workers.forget()


def _epochs(world: World) -> Counter[str]:
    """The highest epoch that the hosts' marks carry, by migration."""
    highest: Counter[str] = Counter()
    for seen in world.seen.values():
        for domain in seen.domains.values():
            for mark in (mark_of(domain), mark_of(domain, live=True)):
                if mark is not None:
                    highest[mark.migration] = max(highest[mark.migration], mark.epoch)
    return highest
