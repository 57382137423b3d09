"""The rules by which a simulated host accepts, starts and describes its domains."""

from __future__ import annotations

import json
import sqlite3

from lxml import etree

from resizeflow.drivers.definition import Definition, read
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.drivers.interface import Exists, Missing, Refused
from resizeflow.drivers.simulator.disks import Shelf, local_disks, without_secrets
from resizeflow.drivers.simulator.jobs import progress
from resizeflow.drivers.simulator.network_disks import open_all, write_all
from resizeflow.drivers.simulator.store import boottime
from resizeflow.drivers.simulator.taps import new_taps, with_devices


def find_domain(db: sqlite3.Connection, host: str, uuid: str) -> sqlite3.Row | None:
    """A domain of a host, None if it knows none."""
    where = (host, uuid)
    row: sqlite3.Row | None = db.execute("SELECT * FROM domains WHERE host = ? AND uuid = ?", where).fetchone()
    return row


def parsed(xml: str) -> Definition:
    """A definition that came in a call. Raises `Refused`."""
    try:
        return read(xml)
    except ValueError as error:
        raise Refused(str(error)) from error


def accept(db: sqlite3.Connection, host: str, xml: str) -> Definition:
    """What a host checks whenever it is handed a definition. Raises `Refused`."""
    definition = parsed(xml)
    facts = db.execute("SELECT * FROM hosts WHERE name = ?", (host,)).fetchone()
    if definition.machine and definition.machine not in json.loads(facts["machines"]):
        raise Refused(f"machine type '{definition.machine}' is unknown")
    if definition.domain_type not in json.loads(facts["domain_types"]):
        raise Refused(f"domain type '{definition.domain_type}' is not supported")
    clash = db.execute(
        "SELECT * FROM domains WHERE host = ? AND (uuid = ?) != (name = ?)",
        (host, definition.uuid, definition.name),
    ).fetchone()
    if clash is not None:
        raise Refused(f"domain '{clash['name']}' already exists with uuid {clash['uuid']}")
    return definition


def require_cpu(db: sqlite3.Connection, host: str, xml: str) -> None:
    """Raises `Refused` if the host has not the CPU model that a definition asks for, unless that may be left out."""
    cpu = etree.fromstring(xml).find("cpu")
    model = None if cpu is None or cpu.get("check") == "none" else cpu.findtext("model")
    cpus = json.loads(db.execute("SELECT cpus FROM hosts WHERE name = ?", (host,)).fetchone()["cpus"])
    if model is not None and model not in cpus:
        raise Refused(f"the CPU is incompatible with host CPU: it is no {model}")


def start(db: sqlite3.Connection, host: str, xml: str, *, incoming: bool = False) -> None:
    """Starts a domain, its CPUs stopped. A defined one of that UUID keeps its definition."""
    definition = accept(db, host, xml)
    known = find_domain(db, host, definition.uuid)
    if known is not None and known["live_xml"] is not None:
        raise Exists(f"domain '{definition.name}' is already running")
    bridges = json.loads(db.execute("SELECT bridges FROM hosts WHERE name = ?", (host,)).fetchone()["bridges"])
    for nic in definition.nics:
        if nic.bridge is not None and nic.bridge not in bridges:
            raise Refused(f"Cannot get interface MTU on '{nic.bridge}': No such device")
    require_cpu(db, host, xml)
    _take_image_locks(db, Shelf.of(db, host), xml)
    open_all(db, host, definition.uuid, xml)
    new_taps(db, host, definition.nics)
    db.execute(
        """INSERT INTO domains (host, uuid, name, live_xml, state, incoming) VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT (host, uuid) DO UPDATE
           SET live_xml = excluded.live_xml, state = excluded.state, incoming = excluded.incoming""",
        (host, definition.uuid, definition.name, xml, PowerState.PAUSED, int(incoming)),
    )


def write_disks(db: sqlite3.Connection, host: str, xml: str) -> None:
    """A guest's CPUs begin to run: they write on each of its disks."""
    for disk in local_disks(xml):
        Shelf.of(db, host).ran(disk, host)
    write_all(db, host, xml)


def refuse_if_used(db: sqlite3.Connection, host: str, shelf: Shelf, volume: VolumeFacts, *, running_only: bool) -> None:
    """Raises `Refused` if a domain of the host names the volume or has it in a chain."""
    for row in db.execute("SELECT * FROM domains WHERE host = ?", (host,)).fetchall():
        for xml in (row["live_xml"], None if running_only else row["inactive_xml"]):
            for disk in () if xml is None else local_disks(xml):
                if volume.path in shelf.known_chain(disk.path or ""):
                    raise Refused(f"volume '{volume.name}' is in use by domain '{row['name']}'")


def describe(db: sqlite3.Connection, row: sqlite3.Row) -> DomainFacts:
    """A domain as its host shows it."""
    where = (row["host"], row["uuid"])
    job = db.execute("SELECT * FROM transfers WHERE host = ? AND uuid = ?", where).fetchone()
    merges = db.execute("SELECT device FROM merges WHERE host = ? AND uuid = ?", where).fetchall()
    live = None if row["live_xml"] is None else with_devices(without_secrets(row["live_xml"]))
    return DomainFacts(
        uuid=row["uuid"],
        name=row["name"],
        state=PowerState(row["state"]),
        persistent=row["inactive_xml"] is not None,
        autostart=bool(row["autostart"]),
        inactive_xml=without_secrets(row["inactive_xml"] or row["live_xml"]),
        live_xml=live,
        incoming=bool(row["incoming"]),
        job_running=job is not None,
        bytes_done=0 if job is None else int(job["bytes"] * progress(job, boottime())),
        bytes_total=0 if job is None else job["bytes"],
        merging=frozenset(merge["device"] for merge in merges),
        snapshots=row["snapshots"],
        managed_save=bool(row["managed_save"]),
    )


def _take_image_locks(db: sqlite3.Connection, shelf: Shelf, xml: str) -> None:
    """QEMU's image lock: a file that one domain writes is used by no other, on any host of the storage."""
    written, read_too = _locked(shelf, xml)
    others = db.execute(
        """SELECT d.live_xml FROM domains d JOIN hosts h ON h.name = d.host
           WHERE d.live_xml IS NOT NULL AND h.storage = ?""",
        (shelf.storage,),
    )
    for row in others.fetchall():
        others_written, others_read = _locked(shelf, row["live_xml"])
        clashes = (written & others_read) | (others_written & read_too)
        if clashes:
            raise Refused(f'Failed to get "write" lock: {min(clashes)} is in use')


def _locked(shelf: Shelf, xml: str) -> tuple[set[str], set[str]]:
    """(files written, files opened at all)."""
    written: set[str] = set()
    opened: set[str] = set()
    for disk in local_disks(xml):
        try:
            opened.update(volume.path for volume in shelf.chain(disk.path or ""))
        except Missing as error:
            raise Refused(str(error)) from None
        if not disk.readonly:
            written.add(disk.path or "")
    return written, opened
