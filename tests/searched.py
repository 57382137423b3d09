"""A search for secrets wherever a run leaves something: in the state database, in logs, calls, what is printed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from resizeflow import drivers
from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.interface import Connection, DriverError, Fence, Watch
from resizeflow.service import Submitted
from tests.console import Console

VIEWS = (
    "migration show {migration}",
    "migration history {migration}",
    "migration list",
    "instance show {machine}",
    "instance event list {machine}",
    "notification list",
    "migrate {machine} --dry-run",
    "doctor",
)
"""Commands that tell of a machine and its migrations."""


@dataclass
class Search:
    """Secrets by name, in each form that somebody might write them in."""

    secrets: Mapping[str, tuple[bytes, ...]]
    seen: int = 0
    """How many bytes were looked through."""

    def database(self, cloud: Cloud) -> Iterator[str]:
        """Each secret that is in a cell of the database, or in a byte of its files: also of rows that are deleted."""
        with closing(sqlite3.connect(cloud.folder / "state.sqlite")) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in database.execute(f"SELECT * FROM {table}"):  # noqa: S608 - our own names
                    for cell in row:
                        content = cell if isinstance(cell, bytes) else str(cell).encode()
                        yield from self.content(f"table {table}", content)
        for path in cloud.folder.glob("state.sqlite*"):
            yield from self.content(f"file {path.name}", path.read_bytes())

    def texts(self, texts: Mapping[str, str]) -> Iterator[str]:
        """Each secret that is in one of the texts, by their names."""
        for name, text in texts.items():
            yield from self.content(name, text.encode())

    def content(self, place: str, content: bytes) -> Iterator[str]:
        """Each secret that is in one thing."""
        self.seen += len(content)
        for name, forms in self.secrets.items():
            if any(form in content for form in forms):
                yield f"{name} in {place}"


@dataclass
class Calls:
    """Connections that write down, as a log of calls would, what every call was given, answered and raised."""

    lines: list[str] = field(default_factory=list)

    def connect(self, uri: str) -> Connection:
        """A connection that is written down."""
        return _Written(drivers.connect(uri), self.lines)


class _Written:
    def __init__(self, inner: Connection, lines: list[str]) -> None:
        self._inner = inner
        self._lines = lines

    def open(self, timeout: float) -> None:
        self._inner.open(timeout)

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        try:
            answer = self._inner.call(method, args, timeout=timeout, fence=fence)
        except DriverError as error:
            self._lines.append(f"{method}{args!r}: {error!r}")
            raise
        self._lines.append(f"{method}{args!r}: {answer!r}")
        return answer

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> Watch:
        self._lines.append(f"{method}{args!r}")
        return self._inner.watch(method, args, fence=fence)

    def close(self) -> None:
        self._inner.close()


def printed(cloud: Cloud, machine: str, jobs: Sequence[Submitted]) -> dict[str, str]:
    """What commands say of a machine and of the jobs' migrations, for people with the program's own log."""
    console = Console(cloud.folder / "resizeflow.conf")
    lines = {view.format(machine=machine, migration=job.migration_id) for view in VIEWS for job in jobs}
    told = {}
    for line in sorted(lines):
        answers = [console.type(*line.split(), "-f", "json"), console.type("--debug", *line.split())]
        assert [answer.code for answer in answers] == [0, 0], answers
        told[line] = "".join(answer.out + answer.err for answer in answers)
    return told
