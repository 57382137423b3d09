"""A worker's hold on a job, as the worker knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Left:
    """What a worker that died has left of a job."""

    silent_seconds: float
    """Since it was surely alive: it had just renewed its lease."""
    task: str | None
    """The task that it was in; None: between two."""
    bytes_done: int
    bytes_total: int
    """How far the transfer was."""


@dataclass
class Lease:
    """Who holds which job, under which epoch, and until when that is sure.

    The epoch is the one of the take-over and is never read again: a worker that lost its job must not learn the
    new owner's. `surely_until` is on CLOCK_BOOTTIME, counted from before the renewal was sent, so it is never
    later than what the database says.
    """

    job_id: str
    migration_id: str
    owner: str
    epoch: int
    surely_until: float
    lost: bool = field(default=False)
    turned_back: bool = field(default=False)
    """The job's direction is back, as it was seen last: by a fenced transaction or by the gate."""
    asked_by: str | None = None
    """The user who asked for the job, and on which machine."""
    asked_from: str | None = None
    asked_at: datetime | None = None
    taken_at: float = 0.0
    """By CLOCK_BOOTTIME."""
    taken_from: str | None = None
    """The worker in whose hands the job was when its lease ended; None if it was put down."""
    left: Left | None = None
    """What that worker left."""

    @property
    def died(self) -> str | None:
        """The worker that died with the job; one that only had lost the database for a while did not."""
        return self.taken_from if self.taken_from != self.owner else None
