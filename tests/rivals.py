"""Two transactions that really overlap, on a database that tells who waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.handover import Handover
from resizeflow.lease import Lease
from resizeflow.persistence.database import Database
from resizeflow.service import Submitted

WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
PATIENCE = 240.0
"""Seconds after which a thread that should have got its lock counts as stuck."""


class Rival:
    """Does something in a thread of its own; `result` is what it returned or raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.result: Any = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except (Exception, Handover) as error:
            self.result = error

    def waits(self, database: Database) -> Rival:
        """Returns when the database says that somebody waits for a lock."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with database.read() as tx:
                if tx.session.scalar(WAITING):
                    return self
            assert self._thread.is_alive(), f"It did not wait: {self.result!r}"
            time.sleep(0.01)
        raise AssertionError("Nobody came to wait.")

    def end(self) -> Any:
        """What came of it."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.result


def take(cloud: Cloud, job: Submitted, owner: str = "second") -> Lease | None:
    with cloud.database.write() as tx:
        return tx.jobs.take(job.job_id, owner, 600)


def overdue(cloud: Cloud, job: Submitted) -> Lease:
    """The lease of a worker whose time is up, though it does not know."""
    lease = take(cloud, job, "first")
    assert lease is not None
    cloud.expire(job)
    return lease


def at_once(*works: Callable[[], object]) -> list[Any]:
    """What comes of things that begin together."""
    start = threading.Barrier(len(works))

    def begun(work: Callable[[], object]) -> Callable[[], object]:
        return lambda: (start.wait(PATIENCE), work())[1]

    return [rival.end() for rival in [Rival(begun(work)) for work in works]]
