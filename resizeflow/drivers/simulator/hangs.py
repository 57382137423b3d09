"""Calls that hang in a simulated host, Cinder or Neutron: their callers give up, it does them when it wakes up."""

from __future__ import annotations

import pickle
from typing import Any

from resizeflow.drivers.interface import Effect, Fence
from resizeflow.drivers.simulator.faults import EFFECTS, Fault, strike
from resizeflow.drivers.simulator.power import go_away
from resizeflow.drivers.simulator.store import Store


def swallow(store: Store, host: str, method: str, args: tuple[Any, ...], fence: Fence | None) -> bool:
    """Keeps an act for later if the place hangs, or is to hang at this one; then its caller gets no answer."""
    if EFFECTS[method] is Effect.LOOK:
        return False
    with store.transaction() as db:
        waiting = db.execute(
            """SELECT id, attempts FROM faults WHERE coalesce(host, ?) = ? AND method = ? AND fault = ? AND times != 0
               ORDER BY id LIMIT 1""",
            (host, host, method, Fault.HANG),
        ).fetchone()
        if waiting is not None:
            strike(db, host, method, making=True)
            go_away(db, host, hung=True, attempts=waiting["attempts"])
        if not db.execute("SELECT 1 FROM places WHERE name = ? AND hung", (host,)).fetchone():
            return False
        db.execute(
            "INSERT INTO late_calls (host, method, call) VALUES (?, ?, ?)", (host, method, pickle.dumps((args, fence)))
        )
    return True


def arriving(store: Store, host: str) -> list[tuple[str, tuple[Any, ...], Fence | None]]:
    """What hung in a place that wakes up, oldest first."""
    with store.transaction() as db:
        rows = db.execute("SELECT * FROM late_calls WHERE host = ? ORDER BY id", (host,)).fetchall()
        db.execute("DELETE FROM late_calls WHERE host = ?", (host,))
    return [(row["method"], *pickle.loads(row["call"])) for row in rows]  # noqa: S301 - written by `swallow`
