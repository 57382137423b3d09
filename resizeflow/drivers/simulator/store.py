"""The file that holds a simulated world, shared by all processes that act on it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE storages (
    name TEXT PRIMARY KEY, pool TEXT NOT NULL, path TEXT NOT NULL, capacity INTEGER NOT NULL,
    other_bytes INTEGER NOT NULL DEFAULT 0);
CREATE TABLE places (
    name TEXT PRIMARY KEY, up INTEGER NOT NULL DEFAULT 1, hung INTEGER NOT NULL DEFAULT 0, attempts_left INTEGER);
CREATE TABLE hosts (
    name TEXT PRIMARY KEY REFERENCES places, uuid TEXT NOT NULL UNIQUE, vcpus INTEGER NOT NULL,
    memory_mb INTEGER NOT NULL,
    machines TEXT NOT NULL, domain_types TEXT NOT NULL, bridges TEXT NOT NULL,
    cpus TEXT NOT NULL DEFAULT '["qemu64"]',
    storage TEXT NOT NULL REFERENCES storages, booting INTEGER NOT NULL DEFAULT 0);
CREATE TABLE volumes (
    storage TEXT NOT NULL REFERENCES storages, name TEXT NOT NULL, capacity INTEGER NOT NULL,
    allocation INTEGER NOT NULL, format TEXT NOT NULL, backing TEXT, backing_format TEXT, content TEXT,
    PRIMARY KEY (storage, name));
CREATE TABLE domains (
    host TEXT NOT NULL REFERENCES hosts, uuid TEXT NOT NULL, name TEXT NOT NULL, inactive_xml TEXT,
    live_xml TEXT, state TEXT NOT NULL, autostart INTEGER NOT NULL DEFAULT 0,
    incoming INTEGER NOT NULL DEFAULT 0, snapshots INTEGER NOT NULL DEFAULT 0,
    managed_save INTEGER NOT NULL DEFAULT 0, off_at REAL, off_job TEXT, off_epoch INTEGER,
    PRIMARY KEY (host, uuid), UNIQUE (host, name));
CREATE TABLE secrets (
    host TEXT NOT NULL REFERENCES hosts, uuid TEXT NOT NULL, kind TEXT NOT NULL, migration TEXT, value BLOB,
    PRIMARY KEY (host, uuid));
CREATE TABLE vlan_bridges (host TEXT NOT NULL REFERENCES hosts, bridge TEXT NOT NULL, PRIMARY KEY (host, bridge));
CREATE TABLE uplink_vlans (
    host TEXT NOT NULL REFERENCES hosts, bridge TEXT NOT NULL, vlan INTEGER NOT NULL, PRIMARY KEY (host, bridge, vlan));
CREATE TABLE tap_vlans (
    host TEXT NOT NULL REFERENCES hosts, device TEXT NOT NULL, vlan INTEGER NOT NULL, PRIMARY KEY (host, device));
CREATE TABLE deaf_guests (uuid TEXT PRIMARY KEY);
CREATE TABLE transfers (
    host TEXT NOT NULL, uuid TEXT NOT NULL, peer TEXT NOT NULL, started REAL NOT NULL, seconds REAL NOT NULL,
    bytes INTEGER NOT NULL, job TEXT, epoch INTEGER, breaks INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (host, uuid));
CREATE TABLE merges (
    host TEXT NOT NULL, uuid TEXT NOT NULL, device TEXT NOT NULL, started REAL NOT NULL,
    seconds REAL NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (host, uuid, device));
CREATE TABLE cinder (ceph_key BLOB NOT NULL);
CREATE TABLE cinder_volumes (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, gib INTEGER NOT NULL, multiattach INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'available', attach_status TEXT NOT NULL DEFAULT 'detached', content TEXT NOT NULL,
    chap_user TEXT, chap_password TEXT);
CREATE TABLE attachments (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, volume TEXT NOT NULL REFERENCES cinder_volumes,
    instance TEXT NOT NULL, status TEXT NOT NULL, connector TEXT, connection_info TEXT);
CREATE TABLE neutron_ports (
    id TEXT PRIMARY KEY, mac TEXT NOT NULL UNIQUE, instance TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'DOWN',
    mtu INTEGER NOT NULL, seen_at REAL);
CREATE TABLE neutron_bindings (
    port TEXT NOT NULL REFERENCES neutron_ports, host TEXT NOT NULL, status TEXT NOT NULL, vif_type TEXT NOT NULL,
    vnic_type TEXT NOT NULL, profile TEXT NOT NULL, PRIMARY KEY (port, host));
CREATE TABLE neutron_agents (host TEXT PRIMARY KEY, alive INTEGER NOT NULL, plugs INTEGER NOT NULL);
CREATE TABLE faults (
    id INTEGER PRIMARY KEY, host TEXT, method TEXT NOT NULL, message TEXT NOT NULL, times INTEGER NOT NULL,
    fault TEXT NOT NULL, attempts INTEGER);
CREATE TABLE late_calls (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, method TEXT NOT NULL, call BLOB NOT NULL);
CREATE TABLE effects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, host TEXT NOT NULL, method TEXT NOT NULL,
    subject TEXT NOT NULL, digest TEXT NOT NULL, job TEXT, epoch INTEGER, caused TEXT NOT NULL);
"""

DEFAULTS = {"transfer_seconds": 0.03, "merge_seconds": 0.02, "shutdown_seconds": 0.01, "plug_seconds": 0.0}

_EVENTFUL = """SELECT 1 WHERE EXISTS (SELECT 1 FROM faults) OR EXISTS (SELECT 1 FROM transfers)
    OR EXISTS (SELECT 1 FROM domains WHERE off_at IS NOT NULL)
    OR EXISTS (SELECT 1 FROM places WHERE NOT up OR hung)"""


def address(uri: str) -> tuple[Path, str]:
    """The file and the place's name of `sim:///FILE?host=NAME`. Raises ValueError."""
    parts = urlsplit(uri)
    names = parse_qs(parts.query).get("host", [])
    if parts.scheme != "sim" or not parts.path or len(names) != 1:
        raise ValueError(f"'{uri}' is not of the form sim:///FILE?host=NAME.")
    return Path(parts.path), names[0]


def boottime() -> float:
    """The clock by which simulated jobs progress: the same for all processes of this machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def setting(db: sqlite3.Connection, name: str) -> float:
    """One of the world's speeds."""
    return float(db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()[0])


class Store:
    """One connection to the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    def create(self) -> None:
        """Makes a new, empty world."""
        self._connect("rwc").executescript(f"PRAGMA journal_mode=WAL; {SCHEMA}")
        with self.transaction() as db:
            db.executemany("INSERT INTO settings VALUES (?, ?)", DEFAULTS.items())

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time; everything or nothing."""
        with self._within("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A view that does not change, beside a writer."""
        with self._within("BEGIN") as db:
            yield db

    def row(self, query: str, parameters: tuple[object, ...] = ()) -> sqlite3.Row | None:
        """The first row of one question, which is a view of its own."""
        row: sqlite3.Row | None = self._connected().execute(query, parameters).fetchone()
        return row

    def eventful(self) -> bool:
        """Whether there is anything that happens by itself: a job, a shutdown, a fault that waits, a host away."""
        return self.row(_EVENTFUL) is not None

    def close(self) -> None:
        """Lets the file go."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _within(self, begin: str) -> Iterator[sqlite3.Connection]:
        db = self._connected()
        db.execute(begin)
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def _connected(self) -> sqlite3.Connection:
        return self._connect("rw") if self._db is None else self._db

    def _connect(self, mode: str) -> sqlite3.Connection:
        self._db = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?mode={mode}",
            uri=True,
            timeout=60,
            isolation_level=None,
            check_same_thread=False,
        )
        self._db.row_factory = sqlite3.Row
        # Workers are killed, this machine is not: what the kernel has taken is safe.
        self._db.execute("PRAGMA synchronous=OFF")
        return self._db
