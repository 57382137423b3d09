"""The log of effects: append-only, each with the lease that caused it. It judges nothing; a test's oracle does."""

from __future__ import annotations

import enum
import sqlite3
from dataclasses import dataclass


class Cause(enum.StrEnum):
    """How an effect came about."""

    CALL = "call"
    LATE = "late"
    """A call that hung in its place, and went on after its caller had given up."""
    WORLD = "world"
    """By itself: a transfer ended, a guest shut down. Its job and epoch are of the call that began it."""


@dataclass(frozen=True)
class Origin:
    """For whom something happens: a job under an epoch, both None if it was called without a fence."""

    job: str | None = None
    epoch: int | None = None
    caused: Cause = Cause.CALL


@dataclass(frozen=True)
class LoggedEffect:
    """An effect that happened. What `method` began and the world ended is there twice, the second time as WORLD."""

    seq: int
    time: float
    """CLOCK_BOOTTIME seconds."""
    host: str
    """Or `cinder`, `neutron`."""
    method: str
    subject: str
    """The UUID of a domain or secret, the name of a host's volume, the id of Cinder's, of Neutron's port."""
    digest: str
    job: str | None
    epoch: int | None
    caused: Cause


def log(
    db: sqlite3.Connection, origin: Origin, *, time: float, host: str, method: str, subject: str, digest: str = ""
) -> None:
    """Appends an effect, in the transaction in which it happens."""
    db.execute(
        "INSERT INTO effects (time, host, method, subject, digest, job, epoch, caused) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (time, host, method, subject, digest, origin.job, origin.epoch, origin.caused),
    )


def logged(db: sqlite3.Connection) -> tuple[LoggedEffect, ...]:
    """All effects so far, in their order."""
    rows = db.execute("SELECT * FROM effects ORDER BY seq").fetchall()
    return tuple(LoggedEffect(**{**dict(row), "caused": Cause(row["caused"])}) for row in rows)
