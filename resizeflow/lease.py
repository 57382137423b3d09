"""A worker's hold on a job, as the worker knows it."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    taken_from: str | None = None
    """The worker in whose hands the job was when its lease ended; None if it was put down."""
