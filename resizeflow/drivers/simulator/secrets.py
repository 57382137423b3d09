"""The libvirt secrets of a simulated host."""

from __future__ import annotations

import sqlite3

from resizeflow.drivers.hypervisor import SecretFacts, SecretSpec
from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.simulator.host_session import HostSession


def secret_facts(session: HostSession) -> tuple[SecretFacts, ...]:
    """All secrets of the host."""
    with session.looking("secrets") as db:
        rows = db.execute("SELECT * FROM secrets WHERE host = ? ORDER BY uuid", (session.name,)).fetchall()
        return tuple(SecretFacts(row["uuid"], row["kind"], row["migration"]) for row in rows)


def secret_value(session: HostSession, uuid: str) -> Secret | None:
    """The value of a secret, None if it has none."""
    with session.looking("secret_value") as db:
        value = _known(db, session.name, uuid)["value"]
        return None if value is None else Secret(value)


def define(session: HostSession, spec: SecretSpec) -> None:
    """Makes a secret; one that is not ours is neither changed nor taken, as libvirt refuses it by its use."""
    with session.acting("define_secret", spec.uuid, spec) as db:
        there = _find(db, session.name, spec.uuid)
        if there is not None and there["migration"] is None:
            raise Refused(f"a secret with UUID {spec.uuid} is already defined for another use")
        db.execute(
            "REPLACE INTO secrets VALUES (?, ?, ?, ?, ?)",
            (session.name, spec.uuid, spec.kind, spec.migration, spec.secret.value),
        )


def undefine(session: HostSession, uuid: str) -> None:
    """Forgets a secret."""
    with session.acting("undefine_secret", uuid) as db:
        _known(db, session.name, uuid)
        db.execute("DELETE FROM secrets WHERE host = ? AND uuid = ?", (session.name, uuid))


def _find(db: sqlite3.Connection, host: str, uuid: str) -> sqlite3.Row | None:
    where = (host, uuid)
    row: sqlite3.Row | None = db.execute("SELECT * FROM secrets WHERE host = ? AND uuid = ?", where).fetchone()
    return row


def _known(db: sqlite3.Connection, host: str, uuid: str) -> sqlite3.Row:
    row = _find(db, host, uuid)
    if row is None:
        raise Missing(f"no secret with matching uuid '{uuid}'")
    return row
