"""Ways in which a Cinder fails: away, hung, killed in the middle of what it does."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from lab.cinder import Cinder

MANY_ROWS = "SELECT count(*) FROM sqlite_master a, sqlite_master b, sqlite_master c, sqlite_master d, sqlite_master e"
"""A question that takes SQLite for ever."""


@contextlib.contextmanager
def away(cinder: Cinder, how: str) -> Iterator[None]:
    """It is `killed`, so that nobody listens, or `hung`: it takes requests and does not answer."""
    (cinder.kill if how == "killed" else cinder.freeze)()
    try:
        yield
    finally:
        (cinder.start if how == "killed" else cinder.thaw)()


@contextlib.contextmanager
def stuck_at(cinder: Cinder, write: str) -> Iterator[None]:
    """Cinder does not come past a write (`INSERT ON volume_attachment`): what it wrote before is there for good."""
    _sql(cinder, f"CREATE TRIGGER stuck BEFORE {write} BEGIN {MANY_ROWS}; END")
    try:
        yield
    finally:
        cinder.kill()
        _sql(cinder, "DROP TRIGGER stuck")
        cinder.start()


def is_stuck(cinder: Cinder) -> bool:
    """Whether it is in the middle of writing, and stays there."""
    for _ in range(10):
        try:
            with contextlib.closing(sqlite3.connect(cinder.database, timeout=0)) as database:
                database.execute("BEGIN IMMEDIATE")
                return False
        except sqlite3.OperationalError:
            time.sleep(0.05)
    return True


def has_unread(cinder: Cinder) -> bool:
    """Whether a request has come to it that it has not looked at."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if int(local.partition(":")[2], 16) == cinder.port and state == "01" and int(queues.partition(":")[2], 16) > 0:
            return True
    return False


def _sql(cinder: Cinder, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(cinder.database, timeout=30)) as database, database:
        database.execute(statement)
