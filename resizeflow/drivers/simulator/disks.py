"""The disks of a simulated host: volumes, their backing chains, and what is written on them.

Content is a line of words, one for each write (`made`, then `run:h1` for each time that CPUs ran on h1), so
that a test sees whether a disk holds all that was ever written. An overlay without content shows its backing.
Swap space begins with a word that says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from lxml import etree

from resizeflow.drivers.definition import Disk, read
from resizeflow.drivers.hypervisor import PoolFacts, VolumeFacts
from resizeflow.drivers.interface import Missing
from resizeflow.drivers.swap import Swap

RUN_BYTES = 2**20
"""What each run of a guest writes to each of its disks."""


@dataclass(frozen=True)
class Shelf:
    """The storage of one host, within a transaction."""

    db: sqlite3.Connection
    storage: str
    pool: str
    path: str

    @classmethod
    def of(cls, db: sqlite3.Connection, host: str) -> Shelf:
        """The storage that a host uses; several hosts may use one."""
        row = db.execute(
            "SELECT s.* FROM storages s JOIN hosts h ON h.storage = s.name WHERE h.name = ?", (host,)
        ).fetchone()
        return cls(db, row["name"], row["pool"], row["path"])

    def check_pool(self, pool: str) -> None:
        """Raises `Missing` unless this is the pool's name."""
        if pool != self.pool:
            raise Missing(f"There is no pool '{pool}'.")

    def facts(self) -> PoolFacts:
        """Sizes of the pool."""
        row = self.db.execute(
            """SELECT capacity, other_bytes + coalesce((SELECT sum(allocation) FROM volumes
               WHERE storage = storages.name), 0) AS used FROM storages WHERE name = ?""",
            (self.storage,),
        ).fetchone()
        return PoolFacts(self.pool, self.path, row["capacity"], max(row["capacity"] - row["used"], 0))

    def path_of(self, name: str) -> str:
        """Where a volume of that name is."""
        return str(PurePosixPath(self.path) / name)

    def volumes(self) -> tuple[VolumeFacts, ...]:
        """All volumes, by name."""
        rows = self.db.execute("SELECT * FROM volumes WHERE storage = ? ORDER BY name", (self.storage,))
        return tuple(self._facts(row) for row in rows)

    def volume(self, name: str) -> VolumeFacts | None:
        """A volume by its name."""
        row = self._row(self.path_of(name))
        return None if row is None else self._facts(row)

    def at(self, path: str) -> VolumeFacts:
        """A volume by its path. Raises `Missing`."""
        row = self._row(path)
        if row is None:
            raise Missing(f"Cannot access storage file '{path}': No such file or directory.")
        return self._facts(row)

    def chain(self, path: str) -> Iterator[VolumeFacts]:
        """A volume and all that it lies upon, top first. Raises `Missing` where the chain is broken."""
        below: str | None = path
        while below is not None:
            volume = self.at(below)
            yield volume
            below = volume.backing_path

    def known_chain(self, path: str) -> set[str]:
        """The paths of a chain, as far as it goes."""
        paths: set[str] = set()
        below: str | None = path
        while below is not None and below not in paths:
            paths.add(below)
            row = self._row(below)
            below = None if row is None else row["backing"]
        return paths

    def content(self, path: str) -> str:
        """What a guest reads there. Raises `Missing` where the chain is broken."""
        for volume in self.chain(path):
            row = self._row(volume.path)
            if row is not None and row["content"] is not None:
                return str(row["content"])
        return ""

    def write(self, path: str, content: str, allocation: int) -> None:
        """Replaces what is there; `allocation` counts as far as it is larger than what was allocated."""
        self.db.execute(
            """UPDATE volumes SET content = ?, allocation = max(allocation, min(?, capacity))
               WHERE storage = ? AND name = ?""",
            (content, allocation, self.storage, PurePosixPath(path).name),
        )

    def ran(self, disk: Disk, host: str) -> None:
        """A guest's CPUs run with this disk: it is not what it was."""
        if disk.path is not None and not disk.readonly:
            volume = self.at(disk.path)
            words = f"{self.content(disk.path)} run:{host}".strip()
            self.write(disk.path, words, volume.allocation + RUN_BYTES)

    def _row(self, path: str) -> sqlite3.Row | None:
        where = PurePosixPath(path)
        if str(where.parent) != self.path:
            return None
        row: sqlite3.Row | None = self.db.execute(
            "SELECT * FROM volumes WHERE storage = ? AND name = ?", (self.storage, where.name)
        ).fetchone()
        return row

    def _facts(self, row: sqlite3.Row) -> VolumeFacts:
        return VolumeFacts(
            name=row["name"],
            path=self.path_of(row["name"]),
            capacity=row["capacity"],
            allocation=row["allocation"],
            format=row["format"],
            backing_path=row["backing"],
        )


def swap_word(swap: Swap) -> str:
    """The content of a volume that was made swap space."""
    return f"{'hibernated' if swap.hibernated else 'swap'}:{swap.uuid}:{swap.size}:{quote(swap.label)}"


def swap_in(content: str) -> Swap | None:
    """The swap signature with which a volume's content begins."""
    kind, _, words = content.partition(" ")[0].partition(":")
    if kind not in ("swap", "hibernated"):
        return None
    identity, size, label = words.split(":")
    return Swap(identity, int(size), unquote(label), hibernated=kind == "hibernated")


def local_disks(xml: str) -> tuple[Disk, ...]:
    """The disks of a definition that are files."""
    return tuple(disk for disk in read(xml).disks if disk.path is not None)


def local_disk(xml: str, device: str) -> str:
    """The file of one device. Raises `Missing`."""
    for disk in local_disks(xml):
        if disk.device == device and disk.path is not None:
            return disk.path
    raise Missing(f"The domain has no disk '{device}' that is a file.")


def with_file(xml: str, device: str, old: str, new: VolumeFacts) -> str:
    """The definition with the device's file replaced, if it is the old one."""
    root = etree.fromstring(xml)
    for disk in root.findall("devices/disk"):
        source, target, driver = disk.find("source"), disk.find("target"), disk.find("driver")
        ours = target is not None and target.get("dev") == device
        if ours and source is not None and source.get("file") == old:
            source.set("file", new.path)
            if driver is not None:
                driver.set("type", new.format)
    return etree.tostring(root, encoding="unicode")


def as_written(xml: str) -> str:
    """The definition in the words in which a host shows it, whatever those it came in."""
    return etree.tostring(etree.fromstring(xml), encoding="unicode")


@lru_cache(maxsize=64)
def without_secrets(xml: str) -> str:
    """The definition as libvirt gives it to those who do not ask for passwords."""
    root = etree.fromstring(xml)
    for graphics in root.findall("devices/graphics[@passwd]"):
        del graphics.attrib["passwd"]
    return etree.tostring(root, encoding="unicode")
