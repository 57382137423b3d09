"""Seals: where each log stood once, in a chain of their own whose end can be kept elsewhere (`resizeflow audit head`).

Somebody who puts an old picture of a log back, with its signed end, is not found by that log alone: its seals say that
it was longer. A migration's log is sealed when it is first met, so that it cannot vanish, and when it is closed and
no job of it is left; once more if it goes on after that. The fleet's is sealed whenever it went on. A log's signed end
says which seal was its last, so the seals cannot be removed, and begun anew, either.
"""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from resizeflow.persistence.chain import SIGNED, is_signed, seal_link, signature
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import FLEET, SEALS, UNSEALED, EventLog, Job, Migration, Seal
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL, JobState

FIRST = ""
"""Before all logs."""
AT_ONCE = 200
"""Logs that are sealed in one transaction."""
_LOGS, _SEALS = cast("sa.Table", EventLog.__table__), cast("sa.Table", Seal.__table__)
_IS_CLOSED = sa.exists().where(Migration.id == _LOGS.c.id, Migration.status.in_(sorted(TERMINAL)))
_HAS_JOB = sa.exists().where(Job.migration_id == _LOGS.c.id, Job.state != JobState.DONE)
AT_REST = sa.or_(_LOGS.c.id == FLEET, sa.and_(_IS_CLOSED, ~_HAS_JOB))
"""A log that is not expected to go on; the fleet's is sealed as it is."""
_NEW = _LOGS.c.last_seal == 0
_WENT_ON = ~sa.exists().where(_SEALS.c.migration_id == _LOGS.c.id, _SEALS.c.seq == _LOGS.c.seq)
_HAS_LAST = sa.exists().where(_SEALS.c.number == _LOGS.c.last_seal, _SEALS.c.migration_id == _LOGS.c.id)
"""Else a new seal would hide that the last one was removed."""
_UNSEALED = (
    sa.select(*(_LOGS.c[name] for name in (*SIGNED, "signature")), AT_REST.label("at_rest"))
    .where(
        sa.text(UNSEALED),
        _LOGS.c.id != SEALS,
        _LOGS.c.id > sa.bindparam("after"),
        sa.or_(_LOGS.c.last_seal == 0, _HAS_LAST),
    )
    .order_by(_LOGS.c.id)
)
_TO_SEAL = _UNSEALED.where(sa.or_(_NEW, AT_REST))
_SEALED = (
    sa.update(_LOGS)
    .where(_LOGS.c.id == sa.bindparam("log"))
    .values(last_seal=sa.bindparam("number"), signature=sa.bindparam("signed"), sealed=sa.bindparam("rests"))
)


def seal_logs(database: Database, *, in_flight: bool = False) -> int:
    """Seals what is to be sealed; how many logs. Any number of workers may do it at once: a log is sealed by whoever
    has locked it. `in_flight`: also logs as they are now that will go on."""
    query = _UNSEALED.where(_WENT_ON) if in_flight else _TO_SEAL
    sealed = 0
    after: str | None = None
    with database.read() as tx:
        if tx.connection.execute(query.limit(1), {"after": FIRST}).first() is not None:
            after = FIRST
    while after is not None:
        with database.write() as tx:
            count, after = _seal_some(tx, query, after)
        sealed += count
    return sealed


def _seal_some(tx: Transaction, query: sa.Select[Any], after: str) -> tuple[int, str | None]:
    """How many were sealed, and the last log that was looked at, None if there are no more. One whose end was forged
    is left as it is."""
    query = query.limit(AT_ONCE).with_for_update(of=_LOGS, key_share=True, skip_locked=True)
    rows = [dict(row) for row in tx.connection.execute(query, {"after": after}).mappings()]
    logs = [row for row in rows if is_signed(tx.audit_key, row)]
    if logs:
        end = tx.events.end_of(SEALS)
        genuine = is_signed(tx.audit_key, end)
        seals, sealed = [], []
        for log in logs:
            end["seq"] += 1
            seal = {
                "number": end["seq"],
                "migration_id": log["id"],
                "seq": log["seq"],
                "head": log["chain"],
                "sealed_at": tx.now(),
            }
            seal["chain"] = end["chain"] = seal_link(tx.audit_key, end["chain"], seal)
            seals.append(seal)
            signed = signature(tx.audit_key, log | {"last_seal": seal["number"]})
            sealed.append({"log": log["id"], "number": seal["number"], "signed": signed, "rests": log["at_rest"]})
        tx.connection.execute(sa.insert(_SEALS), seals)
        tx.connection.execute(_SEALED, sealed)
        tx.events.move_on(end, genuine=genuine)
    return len(logs), rows[-1]["id"] if len(rows) == AT_ONCE else None
