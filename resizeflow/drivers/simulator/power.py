"""Places that go away and come back, and domains that run from their first moment."""

from __future__ import annotations

import sqlite3

from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.interface import DriverError
from resizeflow.drivers.simulator.effects import Cause, Origin, log
from resizeflow.drivers.simulator.machines import start, write_disks
from resizeflow.drivers.simulator.store import boottime


def run(db: sqlite3.Connection, host: str, xml: str) -> None:
    """Starts a domain with its CPUs running. Raises what `start` raises."""
    start(db, host, xml)
    db.execute("UPDATE domains SET state = ? WHERE host = ? AND live_xml = ?", (PowerState.RUNNING, host, xml))
    write_disks(db, host, xml)


def go_away(db: sqlite3.Connection, place: str, *, hung: bool, attempts: int | None) -> None:
    """The place is not reached any more, or hangs, until it is brought back, or for so many attempts to connect."""
    db.execute("UPDATE places SET up = ?, hung = ?, attempts_left = ? WHERE name = ?", (hung, hung, attempts, place))


def come_back(db: sqlite3.Connection, place: str) -> None:
    """The place answers again. A host that had lost its power boots, and starts what has autostart."""
    db.execute("UPDATE places SET up = 1, hung = 0, attempts_left = NULL WHERE name = ?", (place,))
    booting = db.execute("UPDATE hosts SET booting = 0 WHERE name = ? AND booting RETURNING name", (place,)).fetchall()
    for (host,) in booting:
        _boot(db, host)


def _boot(db: sqlite3.Connection, host: str) -> None:
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
