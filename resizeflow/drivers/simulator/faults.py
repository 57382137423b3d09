"""What a simulated host can be made to do wrong: the failure modes of real drivers, arranged beforehand."""

from __future__ import annotations

import enum
import sqlite3

from resizeflow.drivers.hypervisor import Effect, Refused, Unknown, Unreachable, effect_of

ALWAYS = -1
"""As a number of times: the fault stays."""


class Fault(enum.StrEnum):
    """How a call goes wrong."""

    REFUSE = "refuse"
    """The host says no."""
    UNREACHABLE = "unreachable"
    """The connection turns out to be gone before anything was sent."""
    LOSE_CALL = "lose-call"
    """The connection breaks; the host never got the call, which the caller cannot know."""
    LOSE_REPLY = "lose-reply"
    """The call takes effect, then the connection breaks."""
    HALF = "half"
    """What makes or fills a disk dies in the middle of it."""
    HANG = "hang"
    """The host's daemon hangs from this call on; the call is done when it wakes up, long after its caller gave up."""


HALVES = frozenset({"create_volume", "grow_volume", "transfer", "stream"})
"""The methods that can leave something half-made; all others are whole or nothing."""


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
    if fault is Fault.HANG and effect_of(method) is Effect.LOOK:
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


def halve(db: sqlite3.Connection, storage: str, method: str, name: str, capacity_before: int) -> None:
    """Leaves what an act on a disk, or a transfer that has just been started, has made by the middle of it."""
    where = (storage, name)
    if method == "create_volume":  # a file without a header
        db.execute(
            """UPDATE volumes SET capacity = 0, format = 'raw', backing = NULL, backing_format = NULL, content = ''
               WHERE storage = ? AND name = ?""",
            where,
        )
    elif method == "grow_volume":
        db.execute(
            "UPDATE volumes SET capacity = (capacity + ?) / 2 WHERE storage = ? AND name = ?", (capacity_before, *where)
        )
    elif method == "stream":
        db.execute("UPDATE volumes SET content = content || ' (half)' WHERE storage = ? AND name = ?", where)
    else:
        db.execute("UPDATE transfers SET breaks = 1 WHERE uuid = ?", (name,))
