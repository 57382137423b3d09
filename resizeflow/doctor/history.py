"""Invariants 9 and 10: every migration's log is whole, and no secret is at rest."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, cast

import sqlalchemy as sa

from resizeflow.audit.verify import Progress
from resizeflow.doctor.report import Breach
from resizeflow.persistence.flaws import first_flaw
from resizeflow.persistence.models import AtomDetail, Debt, Event, EventLog, FlowDetail, Job, Migration, Notification
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL

BATCH = 500
"""Migrations whose logs are held in memory at once."""
TOLD = {"SUCCESS": "done", "REVERTED": "undone"}
"""What the log says of a task in the transaction that saves its state (persistence/flow_store.py)."""

# --- 9: the log ------------------------------------------------------------------------------------------


def check_logs(tx: Transaction, progress: Progress) -> Iterator[Breach]:
    """Invariant 9: every migration's log is complete and its chain verifies.

    In place of the log's end an older one may have been put, which was signed as well. So the log is held against what
    other rows know to have happened: the end of each task, the choice of the destination, each debt, the end of the
    migration. Raises UsageError without its key.
    """
    tx.audit_key.require_same(tx.connection)
    columns = (Migration.id, Migration.status, Migration.dest_host_id)
    migrations = tx.session.execute(sa.select(*columns).order_by(Migration.id)).all()
    for start in range(0, len(migrations), BATCH):
        batch = migrations[start : start + BATCH]
        ids = [row.id for row in batch]
        logs = _logs(tx, ids)
        known = {row.id: row for row in tx.session.scalars(sa.select(EventLog).where(EventLog.id.in_(ids)))}
        ends = _ends(tx, ids)
        debts = Counter(tx.session.scalars(sa.select(Debt.migration_id).where(Debt.migration_id.in_(ids))).all())
        for row in batch:
            log = logs[row.id]
            progress(len(log))
            if (flaw := first_flaw(tx.audit_key, known.get(row.id), log)) is not None:
                yield Breach(9, f"migration {row.id}", f"its log, {flaw}", "a log whose chain verifies")
                continue
            if row.id in known and known[row.id].pruned_seq:
                continue  # what would have to be there stands in an archive
            kinds = Counter(event.kind for event in log)
            tasks = Counter(event.text for event in log if event.kind == "task")
            wanted = {
                "a line that it was accepted": kinds["state"] >= 1,
                "a line about its destination": row.dest_host_id is None or kinds["destination"] >= 1,
                "a line about its end": row.status not in TERMINAL or kinds["state"] > 1,
                "a line about each debt": kinds["debt"] >= debts[row.id],
            } | {f"`{line}`": tasks[line] >= count for line, count in ends[row.id].items()}
            for line, told in wanted.items():
                if not told:
                    found = f"its log of {len(log)} lines is not complete"
                    yield Breach(9, f"migration {row.id}", found, f"{line} among them")


def _logs(tx: Transaction, ids: Sequence[str]) -> dict[str, list[Event]]:
    """Each migration's lines, in order. Plain rows, of which there are many; they have an event's attributes."""
    logs = defaultdict(list)
    query = sa.select(*Event.__table__.c).where(Event.migration_id.in_(ids)).order_by(Event.migration_id, Event.seq)
    for row in tx.session.execute(query):
        logs[row.migration_id].append(cast("Event", row))
    return logs


def _ends(tx: Transaction, ids: Sequence[str]) -> dict[str, Counter[str]]:
    """Per migration the lines that its tasks' states call for, and how often."""
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    query = (
        sa.select(FlowDetail.parent_uuid, AtomDetail.name, AtomDetail.state)
        .join(FlowDetail, FlowDetail.uuid == AtomDetail.parent_uuid)
        .where(FlowDetail.parent_uuid.in_(ids), AtomDetail.state.in_(list(TOLD)))
    )
    for migration_id, name, state in tx.session.execute(query):
        ends[migration_id][f"{name} {TOLD[state or '']}"] += 1
    return ends


# --- 10: secrets -----------------------------------------------------------------------------------------

SECRETS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "%pass%",
        re.compile(r"""\b(?:passwd|password|auth_password)\\?["']?\s*[=:]\s*\\?["'][^"'\\]+""", re.IGNORECASE),
    ),
    ("%secret_key%", re.compile(r"""\bsecret_key\\?["']?\s*[=:]\s*\\?["'][^"'\\]+""", re.IGNORECASE)),
    ("%auth_password%", re.compile(r"\bauth[._]password\W+\w")),
    ("%==%", re.compile(r"\bAQ[A-Za-z0-9+/]{36}==")),
    ("%-Token%", re.compile(r"\bX-(?:Auth|Service|Subject)-Token\W+\w", re.IGNORECASE)),
    ("%gAAAAA%", re.compile(r"\bgAAAAA[\w-]{40,}")),
)
"""How a database finds what may hold a secret, and how to tell it: `passwd='...'` of a domain's XML and the like in
JSON, quotes escaped or not; a CHAP password as iSCSI and Cinder name it; a Ceph key; a token of Keystone's, by the
header that it is sent in or by its form."""
_KEPT: tuple[tuple[str, Any, tuple[sa.ColumnElement[Any], ...]], ...] = tuple(
    (subject, key, columns)  # type: ignore[misc]
    for subject, key, columns in (
        (
            "migration",
            Migration.id,
            (Migration.definition, Migration.dest_definition, Migration.error, sa.cast(Migration.verdicts, sa.Text)),
        ),
        ("log of migration", Event.migration_id, (Event.text, Event.error, sa.cast(Event.data, sa.Text))),
        ("job", Job.id, (Job.reason,)),
        ("debt of migration", Debt.migration_id, (Debt.reason,)),
        ("task", AtomDetail.name, (sa.cast(AtomDetail.content, sa.Text),)),
        ("notification", Notification.message_id, (sa.cast(Notification.payload, sa.Text),)),
    )
)


def check_secrets(tx: Transaction) -> Iterator[Breach]:
    """Invariant 10: no secret at rest, wherever the words of a host or of Cinder, or a definition, are kept."""
    for subject, key, columns in _KEPT:
        suspicious = sa.or_(*(column.like(hint) for column in columns for hint, _ in SECRETS))
        hits = {
            row[0]
            for row in tx.session.execute(sa.select(key, *columns).where(suspicious))
            if any(text and pattern.search(text) for text in row[1:] for _, pattern in SECRETS)
        }
        for hit in sorted(hits):
            expected = "no secret; change it where it is in force, and remove the row's"
            yield Breach(10, f"{subject} {hit}", "a password, key or token", expected)
