"""Hosts that go away and come back, and domains that run from their first moment."""

from __future__ import annotations

import sqlite3

from resizeflow.drivers.hypervisor import DriverError, PowerState
from resizeflow.drivers.simulator.disks import Shelf, local_disks
from resizeflow.drivers.simulator.effects import Cause, Origin, log
from resizeflow.drivers.simulator.machines import start
from resizeflow.drivers.simulator.store import boottime


def run(db: sqlite3.Connection, host: str, xml: str) -> None:
    """Starts a domain with its CPUs running. Raises what `start` raises."""
    start(db, host, xml)
    db.execute("UPDATE domains SET state = ? WHERE host = ? AND live_xml = ?", (PowerState.RUNNING, host, xml))
    for disk in local_disks(xml):
        Shelf.of(db, host).ran(disk, host)


def go_away(db: sqlite3.Connection, host: str, *, hung: bool, attempts: int | None) -> None:
    """The host is not reached any more, or hangs, until it is brought back, or for so many attempts to connect."""
    db.execute("UPDATE hosts SET up = ?, hung = ?, attempts_left = ? WHERE name = ?", (hung, hung, attempts, host))


def come_back(db: sqlite3.Connection, host: str) -> None:
    """The host answers again. One that had lost its power boots, and starts what has autostart."""
    row = db.execute("SELECT booting FROM hosts WHERE name = ?", (host,)).fetchone()
    db.execute("UPDATE hosts SET up = 1, hung = 0, booting = 0, attempts_left = NULL WHERE name = ?", (host,))
    if not row["booting"]:
        return
    domains = "SELECT uuid, inactive_xml FROM domains WHERE host = ? AND autostart"
    for domain in db.execute(domains, (host,)).fetchall():
        try:
            run(db, host, domain["inactive_xml"])
        except DriverError:
            continue
        by_itself(db, host, "boot", domain["uuid"])


def by_itself(db: sqlite3.Connection, host: str, method: str, uuid: str) -> None:
    """Logs what happened to a domain without a call."""
    log(db, Origin(caused=Cause.WORLD), time=boottime(), host=host, method=method, subject=uuid)
