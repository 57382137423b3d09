"""A simulated world as a test or a rehearsal arranges and inspects it."""

from __future__ import annotations

import json
import sqlite3
import uuid as uuids
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.simulator import bindings, taps
from resizeflow.drivers.simulator.agents import report
from resizeflow.drivers.simulator.attachments import volume
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.drivers.simulator.connection import arrive
from resizeflow.drivers.simulator.disks import Shelf
from resizeflow.drivers.simulator.effects import LoggedEffect, logged
from resizeflow.drivers.simulator.exports import KINDS, new_key
from resizeflow.drivers.simulator.faults import Fault, arrange
from resizeflow.drivers.simulator.guests import (
    attach,
    attached,
    detach,
    disks_xml,
    guest_xml,
    nic_xml,
    plug_in,
    port_xml,
    unplug,
    with_volume,
)
from resizeflow.drivers.simulator.jobs import power_off, settle
from resizeflow.drivers.simulator.machines import accept
from resizeflow.drivers.simulator.neutron import NEUTRON
from resizeflow.drivers.simulator.power import by_itself, come_back, go_away, run
from resizeflow.drivers.simulator.snapshots import SeenPort, SeenVolume, see_port, see_volume, snapshot
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
        """Where the driver finds a host, `cinder` or `neutron`; also how other hosts reach it."""
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
            db.execute("INSERT INTO places (name) VALUES (?)", (name,))
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
        volumes: Mapping[str, str] | None = None,
        ports: Iterable[str] = (),
        bridged: bool = True,
    ) -> str:
        """A machine with disks (device → GiB), Cinder volumes (device → id), a NIC on the host's first bridge (but
        for Neutron's) if it is `bridged`, and ports of Neutron's, by their ids; returns its UUID.

        One that does not listen ignores a shutdown. `devices` is XML of further devices, `cpu` the `<cpu>` element.
        """
        uuid = uuid or str(uuids.uuid4())
        with self._store.transaction() as db:
            shelf = Shelf.of(db, host)
            own = [bridge for bridge in json.loads(_host(db, host)["bridges"]) if bridge != bindings.BRIDGE]
            nic = nic_xml(uuid, own[0]) if bridged else ""
            files = {device: shelf.path_of(f"{name}-{device}.{disk_format}") for device in disks}
            xml = guest_xml(
                name=name,
                uuid=uuid,
                vcpus=vcpus,
                memory_mb=memory_mb,
                devices=disks_xml(files, disk_format) + nic + devices,
                cpu=cpu,
            )
            for device, volume_id in (volumes or {}).items():
                xml = with_volume(xml, device, attached(db, host, uuid, volume_id))
            for port_id in ports:
                bindings.give(db, port_id, uuid, host)
                xml = xml.replace("</devices>", port_xml(bindings.port(db, port_id)) + "</devices>")
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

    def add_cinder(self) -> str:
        """Adds a Cinder, and the Ceph, the iSCSI target and the NFS server behind it; returns how it is reached."""
        with self._store.transaction() as db:
            db.execute("INSERT INTO places (name) VALUES (?)", (CINDER,))
            db.execute("INSERT INTO cinder VALUES (?)", (new_key(),))
        return self.uri(CINDER)

    def create_cinder_volume(self, kind: str = "rbd", gib: int = 1, *, multiattach: bool = False) -> str:
        """An available volume of a kind of connection (`rbd`, `iscsi`, `nfs`); returns its id."""
        if kind not in KINDS:
            raise ValueError(f"There is no back end of kind '{kind}'.")
        volume_id = str(uuids.uuid4())
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO cinder_volumes (id, name, kind, gib, multiattach, content) VALUES (?, ?, ?, ?, ?, ?)",
                (volume_id, f"{kind}-{volume_id[:8]}", kind, gib, multiattach, f"made:{kind}"),
            )
        return volume_id

    def attach_volume(self, host: str, uuid: str, volume_id: str, device: str) -> None:
        """A machine gets a volume while it is as it is, running or not; one that runs writes on it at once."""
        with self._store.transaction() as db:
            attach(db, host, uuid, volume_id, device)

    def detach_volume(self, host: str, uuid: str, volume_id: str) -> None:
        """A machine loses a volume while it is as it is."""
        with self._store.transaction() as db:
            detach(db, host, uuid, volume_id)

    def add_neutron(self) -> str:
        """Adds a Neutron without agents; returns how it is reached."""
        with self._store.transaction() as db:
            db.execute("INSERT INTO places (name) VALUES (?)", (NEUTRON,))
        return self.uri(NEUTRON)

    def set_agent(self, host: str, *, alive: bool = True, plugs: bool = True) -> None:
        """There is an agent of Neutron's on a host, which may not have any other name there. Neutron hears of it if it
        is `alive`; unless it `plugs`, it does nothing else."""
        with self._store.transaction() as db:
            db.execute("REPLACE INTO neutron_agents VALUES (?, ?, ?)", (host, alive, plugs))

    def create_port(self, *, mac: str | None = None, mtu: int = 1450) -> str:
        """A port that nobody has; returns its id."""
        port_id = str(uuids.uuid4())
        mac = mac or ":".join(("fa:16:3e", port_id[0:2], port_id[2:4], port_id[4:6]))
        with self._store.transaction() as db:
            db.execute("INSERT INTO neutron_ports (id, mac, instance, mtu) VALUES (?, ?, '', ?)", (port_id, mac, mtu))
        return port_id

    def delete_port(self, port_id: str) -> None:
        """Somebody deletes a port, whoever has it; its NIC stays."""
        with self._store.transaction() as db:
            bindings.remove(db, port_id)

    def attach_port(self, host: str, uuid: str, port_id: str) -> None:
        """A machine gets a port while it is as it is, running or not: Neutron's port first, then the NIC."""
        with self._store.transaction() as db:
            plug_in(db, host, uuid, port_id)

    def detach_port(self, host: str, uuid: str, port_id: str) -> None:
        """A machine loses a port while it is as it is."""
        with self._store.transaction() as db:
            unplug(db, host, uuid, port_id)

    def filter_vlans(self, host: str, bridge: str = "br0") -> None:
        """A bridge of the host filters VLANs; what is on it is in none yet."""
        with self._store.transaction() as db:
            taps.filter_vlans(db, host, bridge)

    def place_in_vlan(self, host: str, uuid: str, vlan: int) -> None:
        """A machine is in a VLAN, on all bridges of its host that filter them: the uplinks carry it, and if it runs its
        taps are in it."""
        with self._store.transaction() as db:
            taps.place(db, host, uuid, vlan)

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
        """How long things take: `transfer_seconds` (also of those under way), `merge_seconds`, `shutdown_seconds`,
        `plug_seconds`."""
        unknown = seconds.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(f"There is no speed {', '.join(sorted(unknown))}.")
        with self._store.transaction() as db:
            db.executemany("UPDATE settings SET value = ? WHERE name = ?", [(v, k) for k, v in seconds.items()])
            if "transfer_seconds" in seconds:
                db.execute("UPDATE transfers SET seconds = ?", (seconds["transfer_seconds"],))

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

    def set_up(self, place: str, up: bool, *, attempts: int | None = None) -> None:
        """Whether a host, `cinder` or `neutron` can be reached; it comes back by itself after so many `attempts`
        to connect."""
        with self._store.transaction() as db:
            _place(db, place)
            if up:
                come_back(db, place)
            else:
                go_away(db, place, hung=False, attempts=attempts)

    def hang(self, place: str, *, attempts: int | None = None) -> None:
        """A host, `cinder` or `neutron` hangs: looks get no answer, acts none either, but they are done when it wakes
        up."""
        with self._store.transaction() as db:
            _place(db, place)
            go_away(db, place, hung=True, attempts=attempts)

    def wake(self, place: str) -> None:
        """It answers again, and does all that had hung in it, oldest first."""
        with self._store.transaction() as db:
            come_back(db, place)
        arrive(self._store, place)

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

    def cinder_volume(self, volume_id: str) -> SeenVolume:
        """A Cinder volume with its attachments, its content, and who has it open."""
        with self._settled() as db:
            return see_volume(db, volume(db, volume_id))

    def see_port(self, port_id: str) -> SeenPort:
        """A port of Neutron's with its bindings, after the agents have told what they see."""
        with self._settled() as db:
            return see_port(db, bindings.port(db, port_id))

    def vlans(self, host: str) -> dict[str, Any]:
        """The VLANs of a host's bridges that filter them: those of `uplinks`, by bridge, and those of `taps`."""
        with self._settled() as db:
            return taps.shown(db, host)

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
        """The whole world, comparable with that of another run; without `contents` what guests wrote is left out."""
        with self._settled() as db:
            return snapshot(db, contents=contents)

    @contextmanager
    def _settled(self) -> Iterator[sqlite3.Connection]:
        with self._store.transaction() as db:
            settle(db, boottime())
            report(db, boottime(), finished=True)
            yield db


def _place(db: sqlite3.Connection, name: str) -> None:
    if db.execute("SELECT 1 FROM places WHERE name = ?", (name,)).fetchone() is None:
        raise ValueError(f"There is no host '{name}'.")


def _host(db: sqlite3.Connection, name: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM hosts WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise ValueError(f"There is no host '{name}'.")
    return row


def _fill(shelf: Shelf, name: str, capacity: int, content: str, *, volume_format: str, written: int) -> None:
    row = (shelf.storage, name, capacity, written, volume_format, content)
    shelf.db.execute("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, NULL, NULL, ?)", row)
