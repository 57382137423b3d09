"""Ways in which a real Cinder or Neutron fails: away, hung, killed in the middle of what it does."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

MANY_ROWS = "SELECT count(*) FROM sqlite_master a, sqlite_master b, sqlite_master c, sqlite_master d, sqlite_master e"
"""A question that takes SQLite for ever."""


class Server(Protocol):
    """What can be done to one, and where its state is."""

    @property
    def port(self) -> int: ...
    @property
    def database(self) -> Path: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


@contextlib.contextmanager
def away(server: Server, how: str) -> Iterator[None]:
    """It is `killed`, so that nobody listens, or `hung`: it takes requests and does not answer."""
    (server.kill if how == "killed" else server.freeze)()
    try:
        yield
    finally:
        (server.start if how == "killed" else server.thaw)()


@contextlib.contextmanager
def stuck_at(server: Server, write: str) -> Iterator[None]:
    """It does not come past a write (`INSERT ON volume_attachment`): what it wrote before is there for good."""
    _sql(server, f"CREATE TRIGGER stuck BEFORE {write} BEGIN {MANY_ROWS}; END")
    try:
        yield
    finally:
        server.kill()
        _sql(server, "DROP TRIGGER stuck")
        server.start()


def is_stuck(server: Server) -> bool:
    """Whether it is in the middle of writing, and stays there."""
    for _ in range(10):
        try:
            with contextlib.closing(sqlite3.connect(server.database, timeout=0)) as database:
                database.execute("BEGIN IMMEDIATE")
                return False
        except sqlite3.OperationalError:
            time.sleep(0.05)
    return True


def has_unread(server: Server) -> bool:
    """Whether a request has come to it that it has not looked at, from somebody who still waits for the answer."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if int(local.partition(":")[2], 16) == server.port and state == "01" and int(queues.partition(":")[2], 16) > 0:
            return True
    return False


def _sql(server: Server, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(server.database, timeout=30)) as database, database:
        database.execute(statement)
