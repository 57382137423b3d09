"""A simulated world as a test or a rehearsal arranges and inspects it."""

from __future__ import annotations

import json
import sqlite3
import uuid as uuids
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.simulator.connection import arrive
from resizeflow.drivers.simulator.disks import Shelf
from resizeflow.drivers.simulator.effects import LoggedEffect, logged
from resizeflow.drivers.simulator.faults import Fault, arrange
from resizeflow.drivers.simulator.jobs import power_off, settle
from resizeflow.drivers.simulator.machines import accept
from resizeflow.drivers.simulator.power import by_itself, come_back, go_away, run
from resizeflow.drivers.simulator.store import DEFAULTS, Store, boottime

POOL = "default"
MACHINES = ("q35", "pc-q35-7.2", "pc", "pc-i440fx-7.2")


class SimulatedWorld:
    """The world in a file."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self._store = Store(self.path)

    def create(self) -> SimulatedWorld:
        """Makes the file; it must not exist yet."""
        self._store.create()
        return self

    def close(self) -> None:
        """Lets the file go."""
        self._store.close()

    def uri(self, host: str) -> str:
        """Where the driver finds a host; also how other hosts reach it."""
        return f"sim://{self.path}?host={host}"

    # --- arranging ---------------------------------------------------------------------------------------

    def add_host(
        self,
        name: str,
        *,
        uuid: str | None = None,
        vcpus: int = 16,
        memory_mb: int = 65536,
        pool_gb: int = 500,
        bridges: Iterable[str] = ("br0",),
        machines: Iterable[str] = MACHINES,
        domain_types: Iterable[str] = ("qemu", "kvm"),
        cpus: Iterable[str] = ("qemu64",),
        storage: str | None = None,
    ) -> None:
        """Adds a host with a pool of its own; hosts of the same `storage` share one, as over NFS."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO storages (name, pool, path, capacity) VALUES (?, ?, ?, ?)",
                (storage or name, POOL, "/var/lib/libvirt/images", pool_gb * 2**30),
            )
            db.execute(
                """INSERT INTO hosts (name, uuid, vcpus, memory_mb, machines, domain_types, bridges, cpus, storage)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    name,
                    uuid or str(uuids.uuid5(uuids.NAMESPACE_DNS, name)),
                    vcpus,
                    memory_mb,
                    json.dumps(sorted(machines)),
                    json.dumps(sorted(domain_types)),
                    json.dumps(sorted(bridges)),
                    json.dumps(sorted(cpus)),
                    storage or name,
                ),
            )

    def create_guest(
        self,
        host: str,
        name: str,
        vcpus: int,
        memory_mb: int,
        disks: Mapping[str, int],
        *,
        running: bool = True,
        listens: bool = True,
        disk_format: str = "qcow2",
        uuid: str | None = None,
        devices: str = "",
        cpu: str = "",
    ) -> str:
        """A machine with disks (device → GiB) and a NIC on the host's first bridge; returns its UUID.

        One that does not listen ignores a shutdown. `devices` is XML of further devices, `cpu` the `<cpu>` element.
        """
        uuid = uuid or str(uuids.uuid4())
        with self._store.transaction() as db:
            shelf = Shelf.of(db, host)
            bridge = json.loads(_host(db, host)["bridges"])[0]
            files = {device: shelf.path_of(f"{name}-{device}.{disk_format}") for device in disks}
            xml = _guest_xml(
                name=name,
                uuid=uuid,
                vcpus=vcpus,
                memory_mb=memory_mb,
                devices=_disks_xml(files, disk_format) + _nic_xml(uuid, bridge) + devices,
                cpu=cpu,
            )
            for device, gigabytes in disks.items():
                file, size = f"{name}-{device}.{disk_format}", gigabytes * 2**30
                _fill(shelf, file, size, f"made:{name}-{device}", volume_format=disk_format, written=size // 16)
            accept(db, host, xml)
            db.execute(
                "INSERT INTO domains (host, uuid, name, inactive_xml, state) VALUES (?, ?, ?, ?, 'shutoff')",
                (host, uuid, name, xml),
            )
            if not listens:
                db.execute("INSERT INTO deaf_guests VALUES (?)", (uuid,))
            if running:
                run(db, host, xml)
        return uuid

    def create_volume(
        self, host: str, name: str, capacity: int, content: str, *, volume_format: str = "raw", written: int = 0
    ) -> str:
        """A file in the host's pool, of which so many bytes are `written`; returns its path."""
        with self._store.transaction() as db:
            shelf = Shelf.of(db, host)
            _fill(shelf, name, capacity, content, volume_format=volume_format, written=written)
            return shelf.path_of(name)

    def set_domain(
        self, host: str, uuid: str, *, snapshots: int = 0, managed_save: bool = False, autostart: bool = False
    ) -> None:
        """What stands in the way of moving a machine, and whether it starts with its host."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE domains SET snapshots = ?, managed_save = ?, autostart = ? WHERE host = ? AND uuid = ?",
                (snapshots, managed_save, autostart, host, uuid),
            )

    def set_speed(self, **seconds: float) -> None:
        """How long things take: `transfer_seconds`, `merge_seconds`, `shutdown_seconds`."""
        unknown = seconds.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(f"There is no speed {', '.join(sorted(unknown))}.")
        with self._store.transaction() as db:
            db.executemany("UPDATE settings SET value = ? WHERE name = ?", [(v, k) for k, v in seconds.items()])

    def fail(
        self,
        host: str | None,
        method: str,
        message: str = "as arranged",
        times: int = 1,
        *,
        fault: Fault = Fault.REFUSE,
        attempts: int | None = None,
    ) -> None:
        """The next `times` calls of a method go wrong, on a host or (None) on any. A host that HANGs wakes up by
        itself after so many `attempts` to connect, or by `wake`."""
        with self._store.transaction() as db:
            arrange(db, host, method, message, times=times, fault=fault, attempts=attempts)

    def fault_at(self, point: str, fault: str) -> None:
        """As a failpoint's action: the act of the point `TASK.METHOD#N.checked` goes wrong (`hang:3`: 3 attempts)."""
        kind, _, attempts = fault.partition(":")
        method = point.split(".")[-2].partition("#")[0]
        self.fail(None, method, fault=Fault(kind), attempts=int(attempts) if attempts else None)

    def heal(self) -> None:
        """Removes all faults."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM faults")

    def set_free_bytes(self, host: str, free: int) -> None:
        """Somebody else's files take all but this much of the host's pool."""
        with self._store.transaction() as db:
            shelf = Shelf.of(db, host)
            taken = shelf.facts().available - free
            db.execute("UPDATE storages SET other_bytes = other_bytes + ? WHERE name = ?", (taken, shelf.storage))

    def set_up(self, host: str, up: bool, *, attempts: int | None = None) -> None:
        """Whether the host can be reached; it comes back by itself after so many `attempts` to connect."""
        with self._store.transaction() as db:
            _host(db, host)
            if up:
                come_back(db, host)
            else:
                go_away(db, host, hung=False, attempts=attempts)

    def hang(self, host: str, *, attempts: int | None = None) -> None:
        """The host's daemon hangs: looks get no answer, acts none either, but they are done when it wakes up."""
        with self._store.transaction() as db:
            _host(db, host)
            go_away(db, host, hung=True, attempts=attempts)

    def wake(self, host: str) -> None:
        """The host answers again, and does all that had hung in it, oldest first."""
        with self._store.transaction() as db:
            come_back(db, host)
        arrive(self._store, host)

    def crash(self, host: str) -> None:
        """The host loses its power: nothing runs there any more, until `set_up` boots it."""
        with self._store.transaction() as db:
            settle(db, boottime())
            for row in db.execute("SELECT uuid FROM domains WHERE host = ?", (host,)).fetchall():
                power_off(db, host, row["uuid"])
                by_itself(db, host, "crash", row["uuid"])
            db.execute("DELETE FROM late_calls WHERE host = ?", (host,))
            go_away(db, host, hung=False, attempts=None)
            db.execute("UPDATE hosts SET booting = 1 WHERE name = ?", (host,))

    # --- inspecting --------------------------------------------------------------------------------------

    def content(self, host: str, volume: str) -> str:
        """What a guest would read from a volume: one word for each write, oldest first."""
        with self._settled() as db:
            shelf = Shelf.of(db, host)
            return shelf.content(shelf.path_of(volume))

    def running(self, uuid: str) -> tuple[str, ...]:
        """The hosts on which the machine's CPUs run."""
        with self._settled() as db:
            rows = db.execute(
                "SELECT host FROM domains WHERE uuid = ? AND state = ? ORDER BY host",
                (uuid, PowerState.RUNNING),
            )
            return tuple(row["host"] for row in rows)

    def effects(self) -> tuple[LoggedEffect, ...]:
        """All effects so far, in their order."""
        with self._settled() as db:
            return logged(db)

    def snapshot(self, *, contents: bool = True) -> dict[str, Any]:
        """The whole world, comparable; without `contents` what guests wrote is left out."""
        with self._settled() as db:
            hosts = db.execute("SELECT * FROM hosts ORDER BY name").fetchall()
            return {
                "hosts": {host["name"]: _host_snapshot(db, host) for host in hosts},
                "storages": {
                    host["storage"]: _storage_snapshot(Shelf.of(db, host["name"]), contents) for host in hosts
                },
                "jobs": [
                    f"{kind} of {row['uuid']} on {row['host']}"
                    for kind in ("transfers", "merges")
                    for row in db.execute(f"SELECT host, uuid FROM {kind} ORDER BY 1, 2")  # noqa: S608 - our names
                ],
            }

    @contextmanager
    def _settled(self) -> Iterator[sqlite3.Connection]:
        with self._store.transaction() as db:
            settle(db, boottime())
            yield db


def _host(db: sqlite3.Connection, name: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM hosts WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise ValueError(f"There is no host '{name}'.")
    return row


def _fill(shelf: Shelf, name: str, capacity: int, content: str, *, volume_format: str, written: int) -> None:
    row = (shelf.storage, name, capacity, written, volume_format, content)
    shelf.db.execute("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, NULL, NULL, ?)", row)


def _guest_xml(*, name: str, uuid: str, vcpus: int, memory_mb: int, devices: str, cpu: str) -> str:
    return (
        f"<domain type='qemu'><name>{escape(name)}</name><uuid>{uuid}</uuid>"
        f"<memory unit='MiB'>{memory_mb}</memory><currentMemory unit='MiB'>{memory_mb}</currentMemory>"
        f"<vcpu>{vcpus}</vcpu><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>"
        f"{cpu}<devices>{devices}</devices></domain>"
    )


def _disks_xml(files: Mapping[str, str], disk_format: str) -> str:
    return "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type={quoteattr(disk_format)}/>"
        f"<source file={quoteattr(path)}/><target dev={quoteattr(device)} bus='virtio'/></disk>"
        for device, path in files.items()
    )


def _nic_xml(uuid: str, bridge: str) -> str:
    mac = ":".join(("52:54:00", uuid[0:2], uuid[2:4], uuid[4:6]))
    return (
        f"<interface type='bridge'><mac address='{mac}'/><source bridge={quoteattr(bridge)}/>"
        f"<model type='virtio'/></interface>"
    )


def _host_snapshot(db: sqlite3.Connection, host: sqlite3.Row) -> dict[str, Any]:
    domains = db.execute("SELECT * FROM domains WHERE host = ? ORDER BY uuid", (host["name"],))
    return {
        "up": bool(host["up"]),
        "domains": {
            row["uuid"]: {
                "name": row["name"],
                "state": row["state"],
                "autostart": bool(row["autostart"]),
                "incoming": bool(row["incoming"]),
                "inactive": _canonical(row["inactive_xml"]),
                "live": _canonical(row["live_xml"]),
            }
            for row in domains
        },
    }


def _canonical(xml: str | None) -> str | None:
    return None if xml is None else str(etree.canonicalize(xml, strip_text=True))


def _storage_snapshot(shelf: Shelf, contents: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for volume in shelf.volumes():
        shown[volume.name] = {
            "capacity": volume.capacity,
            "format": volume.format,
            "backing": volume.backing_path,
        }
        if contents:
            shown[volume.name] |= {
                "allocation": volume.allocation,
                "content": shelf.content(volume.path),
            }
    return shown
