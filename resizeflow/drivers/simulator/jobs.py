"""What goes on in a simulated world by itself, worked out whenever anybody looks."""

from __future__ import annotations

import sqlite3

from resizeflow.drivers.definition import read
from resizeflow.drivers.interface import Missing
from resizeflow.drivers.simulator.disks import Shelf, local_disks
from resizeflow.drivers.simulator.effects import Cause, Origin, log


def settle(db: sqlite3.Connection, now: float) -> None:
    """Lets everything happen that was due: shutdowns and the ends of transfers."""
    for row in db.execute("SELECT * FROM domains WHERE off_at <= ?", (now,)).fetchall():
        power_off(db, row["host"], row["uuid"])
        by = Origin(row["off_job"], row["off_epoch"], Cause.WORLD)
        log(db, by, time=row["off_at"], host=row["host"], method="shutdown", subject=row["uuid"])
    due = "SELECT * FROM transfers WHERE started + seconds <= ? ORDER BY started"
    for row in db.execute(due, (now,)).fetchall():
        _end_transfer(db, row)
        by = Origin(row["job"], row["epoch"], Cause.WORLD)
        ended = row["started"] + row["seconds"]
        log(db, by, time=ended, host=row["host"], method="transfer", subject=row["uuid"])


def progress(row: sqlite3.Row, now: float) -> float:
    """How far a job has come, 0 to 1."""
    if row["seconds"] <= 0:
        return 1.0
    return float(min(max((now - row["started"]) / row["seconds"], 0.0), 1.0))


def power_off(db: sqlite3.Connection, host: str, uuid: str) -> None:
    """The domain's QEMU ends, and its jobs with it; the other end of a transfer notices."""
    sent = db.execute("DELETE FROM transfers WHERE host = ? AND uuid = ? RETURNING peer", (host, uuid)).fetchall()
    db.execute("DELETE FROM transfers WHERE peer = ? AND uuid = ?", (host, uuid))
    db.execute("DELETE FROM merges WHERE host = ? AND uuid = ?", (host, uuid))
    db.execute("DELETE FROM domains WHERE host = ? AND uuid = ? AND inactive_xml IS NULL", (host, uuid))
    db.execute(
        """UPDATE domains SET live_xml = NULL, state = 'shutoff', incoming = 0,
           off_at = NULL, off_job = NULL, off_epoch = NULL WHERE host = ? AND uuid = ? AND live_xml IS NOT NULL""",
        (host, uuid),
    )
    for row in sent:
        power_off(db, row["peer"], uuid)


def _end_transfer(db: sqlite3.Connection, job: sqlite3.Row) -> None:
    db.execute("DELETE FROM transfers WHERE host = ? AND uuid = ?", (job["host"], job["uuid"]))
    try:
        copied = _copied(db, job)
    except Missing:
        copied = False
    if copied:
        db.execute("UPDATE domains SET incoming = 0 WHERE host = ? AND uuid = ?", (job["peer"], job["uuid"]))
        power_off(db, job["host"], job["uuid"])
    else:
        power_off(db, job["peer"], job["uuid"])


def _copied(db: sqlite3.Connection, job: sqlite3.Row) -> bool:
    """Writes the sender's disks to the receiver's; False if they did not fit, or it was to break."""
    here, there = Shelf.of(db, job["host"]), Shelf.of(db, job["peer"])
    live = "SELECT live_xml FROM domains WHERE host = ? AND uuid = ?"
    sent, received = (
        db.execute(live, (host, job["uuid"])).fetchone()["live_xml"] for host in (job["host"], job["peer"])
    )
    targets = {disk.device: disk.path for disk in read(received).disks}
    for disk in local_disks(sent):
        source, target = disk.path or "", targets[disk.device] or ""
        content = here.content(source)
        size = sum(volume.allocation for volume in here.chain(source))
        free = there.facts().available
        if job["breaks"] or size - there.at(target).allocation > free:
            there.write(target, f"{content} (partial)", min(size // 2, free))
            return False
        there.write(target, content, size)
    return True
