"""A simulated host: libvirt's behaviour as far as it matters here, thinly."""

from __future__ import annotations

import json
import sqlite3

from resizeflow.drivers.bridge import BridgeHost, BridgeLink
from resizeflow.drivers.hypervisor import (
    DomainFacts,
    HostFacts,
    Hypervisor,
    MergeFacts,
    PoolFacts,
    PowerState,
    SecretFacts,
    SecretSpec,
    StreamTarget,
    VolumeFacts,
    VolumeSpec,
)
from resizeflow.drivers.interface import Exists, Missing, Refused
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.simulator import secrets, streams, vlans
from resizeflow.drivers.simulator.agents import log_unplugged
from resizeflow.drivers.simulator.disks import Shelf, as_written, local_disk, local_disks, swap_in, swap_word, with_file
from resizeflow.drivers.simulator.host_session import HostSession
from resizeflow.drivers.simulator.jobs import power_off, progress
from resizeflow.drivers.simulator.machines import (
    accept,
    describe,
    find_domain,
    parsed,
    refuse_if_used,
    require_cpu,
    start,
    write_disks,
)
from resizeflow.drivers.simulator.store import boottime, setting
from resizeflow.drivers.swap import PAGE, Swap

_POLL_SECONDS = 0.005


class SimulatedHost(Hypervisor, BridgeHost):
    """One host and its bridges, for the length of a call."""

    def __init__(self, session: HostSession) -> None:
        self._session = session
        self._name = session.name

    # --- looks -------------------------------------------------------------------------------------------

    def facts(self) -> HostFacts:
        with self._session.looking("facts") as db:
            row = self._session.host(db)
        return HostFacts(
            uuid=row["uuid"],
            hostname=self._name,
            vcpus=row["vcpus"],
            memory_mb=row["memory_mb"],
            machines=frozenset(json.loads(row["machines"])),
            domain_types=frozenset(json.loads(row["domain_types"])),
            bridges=frozenset(json.loads(row["bridges"])),
        )

    def check_cpu(self, xml: str) -> None:
        with self._session.looking("check_cpu") as db:
            require_cpu(db, self._name, xml)

    def pool(self, pool: str) -> PoolFacts:
        with self._session.looking("pool") as db:
            return self._session.shelf(db, pool).facts()

    def volume(self, pool: str, name: str) -> VolumeFacts | None:
        with self._session.looking("volume") as db:
            return self._session.shelf(db, pool).volume(name)

    def volumes(self, pool: str) -> tuple[VolumeFacts, ...]:
        with self._session.looking("volumes") as db:
            return self._session.shelf(db, pool).volumes()

    def swap(self, pool: str, name: str) -> Swap | None:
        with self._session.looking("swap") as db:
            shelf = self._session.shelf(db, pool)
            return swap_in(shelf.content(shelf.path_of(name)))

    def domain(self, uuid: str) -> DomainFacts | None:
        with self._session.looking("domain") as db:
            row = find_domain(db, self._name, uuid)
            return None if row is None else describe(db, row)

    def domains(self) -> tuple[DomainFacts, ...]:
        with self._session.looking("domains") as db:
            rows = db.execute("SELECT * FROM domains WHERE host = ? ORDER BY name", (self._name,)).fetchall()
            return tuple(describe(db, row) for row in rows)

    def definition_with_secrets(self, uuid: str) -> str:
        with self._session.looking("definition_with_secrets") as db:
            row = self._session.domain_row(db, uuid)
            return as_written(row["inactive_xml"] or row["live_xml"])

    def merge(self, uuid: str, device: str) -> MergeFacts | None:
        with self._session.looking("merge") as db:
            self._session.domain_row(db, uuid)
            row = _merge_job(db, self._name, uuid, device)
            if row is None:
                return None
            done = progress(row, boottime())
            return MergeFacts(done >= 1, int(row["bytes"] * done), row["bytes"])

    def secrets(self) -> tuple[SecretFacts, ...]:
        return secrets.secret_facts(self._session)

    def secret_value(self, uuid: str) -> Secret | None:
        return secrets.secret_value(self._session, uuid)

    def bridge_links(self, bridge: str) -> tuple[BridgeLink, ...]:
        return vlans.links(self._session, bridge)

    # --- acts: volumes -----------------------------------------------------------------------------------

    def create_volume(self, pool: str, spec: VolumeSpec) -> None:
        with self._session.acting("create_volume", spec.name, pool, spec) as db:
            shelf = self._session.shelf(db, pool)
            if shelf.volume(spec.name) is not None:
                raise Exists(f"storage volume '{spec.name}' exists already")
            if spec.backing_path is not None:
                if not spec.backing_format:
                    raise Refused(f"overlay '{spec.name}' needs the format of its backing file")
                if shelf.at(spec.backing_path).capacity > spec.capacity:
                    raise Refused(f"overlay '{spec.name}' is smaller than its backing file")
            db.execute(
                "INSERT INTO volumes VALUES (?, ?, ?, 0, ?, ?, ?, ?)",
                (
                    shelf.storage,
                    spec.name,
                    spec.capacity,
                    spec.format,
                    spec.backing_path,
                    spec.backing_format,
                    "" if spec.backing_path is None else None,
                ),
            )

    def grow_volume(self, pool: str, name: str, capacity: int) -> None:
        with self._session.acting("grow_volume", name, pool, capacity) as db:
            shelf = self._session.shelf(db, pool)
            volume = shelf.at(shelf.path_of(name))
            if capacity < volume.capacity:
                raise Refused(f"volume '{name}' cannot shrink from {volume.capacity} to {capacity}")
            if capacity > volume.capacity:
                refuse_if_used(db, self._name, shelf, volume, running_only=True)
                db.execute(
                    "UPDATE volumes SET capacity = ? WHERE storage = ? AND name = ?",
                    (capacity, shelf.storage, name),
                )

    def make_swap(self, pool: str, name: str, swap_space: Swap) -> None:
        with self._session.acting("make_swap", name, pool, swap_space) as db:
            shelf = self._session.shelf(db, pool)
            volume = shelf.at(shelf.path_of(name))
            if volume.format != "raw" or volume.capacity < swap_space.size:
                raise Refused(f"volume '{name}' is not raw, or smaller than {swap_space.size} bytes")
            refuse_if_used(db, self._name, shelf, volume, running_only=False)
            shelf.write(volume.path, swap_word(swap_space), PAGE)

    def delete_volume(self, pool: str, name: str) -> None:
        with self._session.acting("delete_volume", name, pool) as db:
            shelf = self._session.shelf(db, pool)
            volume = shelf.at(shelf.path_of(name))
            refuse_if_used(db, self._name, shelf, volume, running_only=False)
            overlays = [other.name for other in shelf.volumes() if other.backing_path == volume.path]
            if overlays:
                raise Refused(f"volume '{name}' is the backing file of '{overlays[0]}'")
            db.execute("DELETE FROM volumes WHERE storage = ? AND name = ?", (shelf.storage, name))

    # --- acts: domains -----------------------------------------------------------------------------------

    def define(self, xml: str) -> None:
        with self._session.acting("define", parsed(xml).uuid, xml) as db:
            definition = accept(db, self._name, xml)
            db.execute(
                """INSERT INTO domains (host, uuid, name, inactive_xml, state) VALUES (?, ?, ?, ?, 'shutoff')
                   ON CONFLICT (host, uuid) DO UPDATE SET inactive_xml = excluded.inactive_xml""",
                (self._name, definition.uuid, definition.name, xml),
            )

    def undefine(self, uuid: str) -> None:
        with self._session.acting("undefine", uuid) as db:
            row = self._session.domain_row(db, uuid)
            if row["live_xml"] is not None or row["managed_save"]:
                raise Refused(f"domain '{row['name']}' is active or has a saved state")
            db.execute("DELETE FROM domains WHERE host = ? AND uuid = ?", (self._name, uuid))

    def set_autostart(self, uuid: str, on: bool) -> None:
        with self._session.acting("set_autostart", uuid, on) as db:
            if self._session.domain_row(db, uuid)["inactive_xml"] is None:
                raise Refused("cannot set autostart for transient domain")
            self._session.update(db, uuid, autostart=int(on))

    def start_paused(self, uuid: str) -> None:
        with self._session.acting("start_paused", uuid) as db:
            row = self._session.domain_row(db, uuid)
            if row["live_xml"] is not None:
                raise Exists(f"domain '{row['name']}' is already running")
            if row["managed_save"]:
                raise Refused(f"domain '{row['name']}' has a managed save image")
            start(db, self._name, row["inactive_xml"])

    def start_carrier(self, xml: str) -> None:
        with self._session.acting("start_carrier", parsed(xml).uuid, xml) as db:
            start(db, self._name, xml)

    def resume(self, uuid: str) -> None:
        with self._session.acting("resume", uuid) as db:
            row = self._session.active_row(db, uuid)
            if row["incoming"]:
                raise Refused(f"domain '{row['name']}' is still incoming")
            if row["state"] == PowerState.RUNNING:
                return
            self._session.update(db, uuid, state=PowerState.RUNNING)
            log_unplugged(db, self._name, row["live_xml"], boottime())
            write_disks(db, self._name, row["live_xml"])

    def suspend(self, uuid: str) -> None:
        with self._session.acting("suspend", uuid) as db:
            if self._session.active_row(db, uuid)["state"] != PowerState.PAUSED:
                self._session.update(db, uuid, state=PowerState.PAUSED)

    def announce(self, uuid: str) -> None:
        with self._session.acting("announce", uuid) as db:
            row = self._session.active_row(db, uuid)
            self._session.update(db, uuid, state=row["state"])  # it changes nothing here, and is logged as an effect

    def shutdown(self, uuid: str) -> None:
        with self._session.acting("shutdown", uuid) as db:
            row = self._session.domain_row(db, uuid)
            deaf = db.execute("SELECT 1 FROM deaf_guests WHERE uuid = ?", (uuid,)).fetchone()
            if row["state"] == PowerState.RUNNING and row["off_at"] is None and not deaf:
                off_at, by = boottime() + setting(db, "shutdown_seconds"), self._session.origin
                self._session.update(db, uuid, off_at=off_at, off_job=by.job, off_epoch=by.epoch)

    def destroy(self, uuid: str) -> None:
        with self._session.acting("destroy", uuid) as db:
            self._session.domain_row(db, uuid)
            power_off(db, self._name, uuid)

    def define_secret(self, spec: SecretSpec) -> None:
        secrets.define(self._session, spec)

    def undefine_secret(self, uuid: str) -> None:
        secrets.undefine(self._session, uuid)

    def carry_vlan(self, bridge: str, vlan: int) -> None:
        vlans.carry(self._session, bridge, vlan)

    def drop_vlan(self, bridge: str, vlan: int) -> None:
        vlans.drop(self._session, bridge, vlan)

    def set_access_vlan(self, device: str, vlan: int) -> None:
        vlans.set_access(self._session, device, vlan)

    def start_merge(self, uuid: str, device: str, bandwidth: int) -> None:
        with self._session.acting("start_merge", uuid, device, bandwidth) as db:
            path = local_disk(self._session.active_row(db, uuid)["live_xml"], device)
            shelf = Shelf.of(db, self._name)
            overlay = shelf.at(path)
            if overlay.backing_path is None:
                raise Refused(f"disk '{device}' has no backing file to merge into")
            if _merge_job(db, self._name, uuid, device) is not None:
                raise Exists(f"disk '{device}' already has a block job")
            # From here on the base is neither what it was nor what it will be; the overlay holds all.
            content = shelf.content(path)
            shelf.write(path, content, overlay.allocation)
            shelf.write(overlay.backing_path, f"{content} (partial)", 0)
            seconds = setting(db, "merge_seconds")
            job = (self._name, uuid, device, boottime(), seconds, overlay.capacity)
            db.execute("INSERT INTO merges VALUES (?, ?, ?, ?, ?, ?)", job)

    def pivot_merge(self, uuid: str, device: str) -> None:
        with self._session.acting("pivot_merge", uuid, device) as db:
            row, job = self._session.active_row(db, uuid), _merge_job(db, self._name, uuid, device)
            if row["state"] != PowerState.PAUSED:
                raise Refused(f"domain '{row['name']}' is not paused")
            if job is None:
                raise Missing(f"disk '{device}' has no block job")
            if progress(job, boottime()) < 1:
                raise Refused(f"the block job of disk '{device}' is not ready")
            shelf = Shelf.of(db, self._name)
            overlay = shelf.at(local_disk(row["live_xml"], device))
            base = shelf.at(overlay.backing_path or "")
            db.execute(
                "UPDATE volumes SET capacity = max(capacity, ?) WHERE storage = ? AND name = ?",
                (overlay.capacity, shelf.storage, base.name),
            )
            shelf.write(base.path, shelf.content(overlay.path), base.allocation + overlay.allocation)
            for column in ("live_xml", "inactive_xml"):
                if row[column] is not None:
                    self._session.update(db, uuid, **{column: with_file(row[column], device, overlay.path, base)})
            db.execute("DELETE FROM merges WHERE host = ? AND uuid = ? AND device = ?", (self._name, uuid, device))

    # --- start and watch ---------------------------------------------------------------------------------

    def transfer(self, uuid: str, peer_uri: str, data_uri: str, xml: str, bandwidth: int) -> None:
        peer, by = self._session.peer(peer_uri), self._session.origin
        with self._session.acting("transfer", uuid, peer_uri, data_uri, xml, bandwidth) as db:
            row = self._session.active_row(db, uuid)
            if describe(db, row).job_running:
                raise Refused("another migration job is already running")
            if not peer.place(db)["up"]:
                raise Refused(f"unable to connect to '{peer_uri}'")
            here, there = Shelf.of(db, self._name), Shelf.of(db, peer.name)
            size = 0
            for disk in local_disks(row["live_xml"]):
                volume = here.at(disk.path or "")
                if there.at(local_disk(xml, disk.device)).capacity != volume.capacity:
                    raise Refused("Source and target image have different sizes")
                size += volume.capacity
            start(db, peer.name, xml, incoming=True)
            job = (self._name, uuid, peer.name, boottime(), setting(db, "transfer_seconds"), size, by.job, by.epoch)
            db.execute("INSERT INTO transfers VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)", job)
        while (sender := self.domain(uuid)) is not None and sender.job_running:
            if self._session.stopped.wait(_POLL_SECONDS):
                return
        arrived = SimulatedHost(peer).domain(uuid)
        if arrived is None or arrived.live_xml is None:
            raise Refused(f"migration of '{uuid}' failed")

    def stream(self, pool: str, name: str, target: StreamTarget) -> None:
        streams.stream(self._session, pool, name, target)


def _merge_job(db: sqlite3.Connection, host: str, uuid: str, device: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM merges WHERE host = ? AND uuid = ? AND device = ?", (host, uuid, device)
    ).fetchone()
    return row
