"""What a simulated world can be made to do wrong: the failure modes of real drivers, arranged beforehand."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Mapping

from resizeflow.drivers import bridge, hypervisor, network, volume
from resizeflow.drivers.interface import Effect, Refused, Unknown, Unreachable

EFFECTS: Mapping[str, Effect] = {**hypervisor.EFFECTS, **bridge.EFFECTS, **volume.EFFECTS, **network.EFFECTS}
"""Of hosts and their bridges, of Cinder and of Neutron: no name is in two of them."""

ALWAYS = -1
"""As a number of times: the fault stays."""


class Fault(enum.StrEnum):
    """How a call goes wrong."""

    REFUSE = "refuse"
    """The other end says no."""
    UNREACHABLE = "unreachable"
    """The connection turns out to be gone before anything was sent."""
    LOSE_CALL = "lose-call"
    """The connection breaks; the other end never got the call, which the caller cannot know."""
    LOSE_REPLY = "lose-reply"
    """The call takes effect, then the connection breaks."""
    HALF = "half"
    """What makes or fills something dies in the middle of it."""
    HANG = "hang"
    """The host's daemon, Cinder or Neutron hangs from this call on; it is done after the waking, long after its caller
    gave up."""


HALVES: Mapping[str, str] = {
    # A file without a header.
    "create_volume": """UPDATE volumes SET capacity = 0, format = 'raw', backing = NULL, backing_format = NULL,
        content = '' WHERE storage = (SELECT storage FROM hosts WHERE name = :place) AND name = :subject""",
    "grow_volume": """UPDATE volumes SET capacity = (capacity + :capacity) / 2
        WHERE storage = (SELECT storage FROM hosts WHERE name = :place) AND name = :subject""",
    "stream": """UPDATE volumes SET content = content || ' (half)'
        WHERE storage = (SELECT storage FROM hosts WHERE name = :place) AND name = :subject""",
    "transfer": "UPDATE transfers SET breaks = 1 WHERE uuid = :subject",
    "define_secret": "UPDATE secrets SET value = NULL WHERE host = :place AND uuid = :subject",
    # Cinder writes twice: the volume, then the attachment, whose connection_info comes last of all.
    "create_attachment": """DELETE FROM attachments WHERE number =
        (SELECT max(number) FROM attachments WHERE volume = :subject)""",
    "update_attachment": """UPDATE attachments SET connection_info = NULL
        WHERE volume = :subject AND status = 'attaching'""",
    "complete_attachment": "UPDATE cinder_volumes SET status = 'attaching' WHERE id = :subject",
    # Neutron too: the active one of two bindings is unbound, then they change places.
    "activate_binding": """UPDATE neutron_bindings
        SET status = CASE status WHEN 'ACTIVE' THEN 'INACTIVE' ELSE 'ACTIVE' END WHERE port = :subject""",
}
"""What can be half done, and what a call on the subject leaves that dies in the middle; all others are whole or
nothing."""


def arrange(
    db: sqlite3.Connection,
    host: str | None,
    method: str,
    message: str,
    *,
    times: int,
    fault: Fault,
    attempts: int | None,
) -> None:
    """Writes a fault down. Raises ValueError for one that cannot be."""
    if fault is Fault.HALF and method not in HALVES:
        raise ValueError(f"{method} cannot be half done.")
    if fault is Fault.HANG and EFFECTS[method] is Effect.LOOK:
        raise ValueError(f"{method} has no effect that could come late.")
    db.execute(
        "INSERT INTO faults (host, method, message, times, fault, attempts) VALUES (?, ?, ?, ?, ?, ?)",
        (host, method, message, times, fault, attempts),
    )


def strike(db: sqlite3.Connection, host: str, method: str, *, making: bool) -> sqlite3.Row | None:
    """The fault that waits for this call, once less from now on. Only what is `making` something leaves half of it."""
    row: sqlite3.Row | None = db.execute(
        """SELECT * FROM faults WHERE coalesce(host, ?) = ? AND method = ? AND times != 0 AND (? OR fault != ?)
           ORDER BY id LIMIT 1""",
        (host, host, method, making, Fault.HALF),
    ).fetchone()
    if row is not None:
        db.execute("UPDATE faults SET times = times - 1 WHERE id = ? AND times > 0", (row["id"],))
        db.execute("DELETE FROM faults WHERE times = 0")
    return row


def refuse(host: str, row: sqlite3.Row) -> None:
    """Raises what a fault without effect raises."""
    words = f"{host}: {row['message']}"
    if row["fault"] == Fault.REFUSE:
        raise Refused(words)
    if row["fault"] == Fault.UNREACHABLE:
        raise Unreachable(words)
    if row["fault"] == Fault.LOSE_CALL:
        raise Unknown(words)


def capacity_of(db: sqlite3.Connection, place: str, subject: str) -> int | None:
    """What `halve` has to know of before the call: how large a host's volume is."""
    row = db.execute(
        "SELECT capacity FROM volumes JOIN hosts USING (storage) WHERE hosts.name = ? AND volumes.name = ?",
        (place, subject),
    ).fetchone()
    return None if row is None else int(row["capacity"])


def halve(db: sqlite3.Connection, place: str, method: str, subject: str, capacity: int | None) -> None:
    """Leaves what an act, or a transfer that has just been started, has made by the middle of it."""
    db.execute(HALVES[method], {"place": place, "subject": subject, "capacity": capacity})
