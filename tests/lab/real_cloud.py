"""A small cloud whose hosts are simulated, and one of whose services is real: a resize takes seconds in it."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from resizeflow.chaos.cloud import Cloud


class RealCloud(Cloud):
    """A `Cloud` with a real Cinder or Neutron, which keeps its state in SQLite."""

    machine: ClassVar[str]
    """The name of the machine that is moved."""

    @property
    @abstractmethod
    def service_database(self) -> Path:
        """The real service's."""

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Nobody has the files open that are to be replaced."""
        self.release()
        yield

    @contextlib.contextmanager
    def by_hand(self) -> Iterator[sqlite3.Connection]:
        """The simulated world's file, to be changed."""
        self.world.close()
        with contextlib.closing(sqlite3.connect(self.world.path, timeout=20)) as world, world:
            yield world

    def edit(self, host: str, change: Callable[[str], str]) -> None:
        """Changes the machine's definition on a host, and what runs there."""
        with self.by_hand() as world:
            where = (host, self.uuid)
            texts = world.execute("SELECT inactive_xml, live_xml FROM domains WHERE host = ? AND uuid = ?", where)
            changed = [xml and change(xml) for xml in texts.fetchone()]
            both = "UPDATE domains SET inactive_xml = ?, live_xml = ? WHERE host = ? AND uuid = ?"
            world.execute(both, (*changed, *where))

    def definition(self, host: str) -> str:
        """The machine's definition on a host; empty without one."""
        with self.by_hand() as world:
            found = world.execute("SELECT inactive_xml FROM domains WHERE host = ? AND uuid = ?", (host, self.uuid))
            return "".join(xml for (xml,) in found)
