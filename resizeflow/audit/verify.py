"""Whether all logs are what was written: `resizeflow audit verify`. In batches, however long the logs are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from resizeflow.audit.heads import Head
from resizeflow.audit.lines import ROWS, Lines
from resizeflow.persistence import flaws
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import GENESIS, SEALED, row_of, seal_link
from resizeflow.persistence.database import Database
from resizeflow.persistence.flaws import Flaw, What
from resizeflow.persistence.models import FLEET, SEALS, UNSEALED, AuditKeyRow, Event, EventLog, Migration, Seal
from resizeflow.persistence.seals import AT_REST, FIRST
from resizeflow.persistence.transaction import Transaction

BATCH = 100
"""Logs that are looked at in one transaction."""
_LOGS = EventLog.__table__
Sealed = tuple[Seal, bool]
"""A seal, and whether it fits the one before it."""
Progress = Callable[[int], None]
"""It is told of how many more lines and seals have been looked at."""


def silent(_more: int) -> None:
    """The progress that nobody waits for."""


@dataclass(frozen=True)
class Finding:
    """A flaw, and in which log."""

    log: str
    """The migration's id, FLEET or SEALS."""
    instance: str | None
    """The machine's name, where it is known."""
    flaw: Flaw


@dataclass
class Report:
    """What was looked at, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    logs: int = 0
    lines: int = 0
    plain: int = 0
    """Of the lines those from before schema 0006, chained by hashes that anybody can compute."""
    pruned: int = 0
    """Lines that are only in archives."""
    seals: int = 0
    unsealed: int = 0
    """Logs of closed migrations that wait to be sealed."""
    heads: int = 0
    """Heads that were kept elsewhere and held against the seals."""


def verify(
    database: Database,
    *,
    migration: str | None = None,
    heads: Sequence[Head] = (),
    progress: Progress = silent,
) -> Report:
    """Looks at every log, or only at a migration's. Raises UsageError without the key's file."""
    report = Report()
    with database.read() as tx:
        if (strange := _strange_key(tx)) is not None:
            report.findings.append(strange)
            return report
    after: str | None = FIRST
    while after is not None:
        with database.read() as tx:
            after = _verify_logs(tx, report, progress, after, migration)
    if migration is None:
        with database.read() as tx:
            report.findings += _without_end(tx)
            report.findings += _verify_seals(tx, report, progress)
            report.findings += [finding for head in heads for finding in _against(tx, head)]
            report.heads = len(heads)
            unsealed = sa.select(sa.func.count()).where(sa.text(UNSEALED), _LOGS.c.id != FLEET, AT_REST)
            report.unsealed = tx.connection.scalar(unsealed.select_from(_LOGS)) or 0
    return report


def rows_to_verify(database: Database, migration: str | None = None) -> int:
    """How many lines and seals there are, of all logs or only of a migration's."""
    rows = sa.select(sa.func.sum(_LOGS.c.seq - _LOGS.c.pruned_seq))
    with database.read() as tx:
        return tx.connection.scalar(rows if migration is None else rows.where(_LOGS.c.id == migration)) or 0


def _strange_key(tx: Transaction) -> Finding | None:
    """Under another key nothing at all would fit."""
    fingerprint, key = tx.connection.scalar(sa.select(AuditKeyRow.fingerprint)), tx.audit_key
    nothing_written = fingerprint is None and tx.connection.scalar(sa.select(_LOGS.c.id).limit(1)) is None
    if nothing_written or fingerprint == key.fingerprint:
        return None
    said = f"it says that it is written under the audit key {fingerprint}" if fingerprint else "it names no audit key"
    found = f"{said}, and {key.file} holds {key.fingerprint}; nothing else was looked at"
    return Finding("all", None, Flaw(0, What.CHANGED, found))


# --- logs ------------------------------------------------------------------------------------------------


def _verify_logs(tx: Transaction, report: Report, progress: Progress, after: str, migration: str | None) -> str | None:
    """A batch of logs; the last one, None if there are no more."""
    query = sa.select(EventLog).where(EventLog.id > after, EventLog.id != SEALS).order_by(EventLog.id).limit(BATCH)
    if migration is not None:
        query = query.where(EventLog.id == migration)
    logs = tx.session.scalars(query).all()
    ids = [log.id for log in logs]
    seals = seals_of(tx, ids)
    known = set(tx.connection.scalars(sa.select(Migration.id).where(Migration.id.in_(ids)))) | {FLEET}
    lines = Lines(tx, ids)
    for log in logs:
        walk = Walk(tx.audit_key, log, lines.of(log.id), seals[log.id])
        found = list(walk.flaws())
        if log.id not in known:
            found.append(Flaw(0, What.MISSING, "the records do not have its migration"))
        report.findings += [Finding(log.id, log.instance, flaw) for flaw in found]
        report.logs += 1
        report.lines += walk.lines
        report.plain += max(log.plain_seq - log.pruned_seq, 0)
        report.pruned += log.pruned_seq
        progress(walk.lines)
    if migration is not None and not logs:
        report.findings += [finding for finding in _without_end(tx) if finding.log == migration]
    return ids[-1] if len(ids) == BATCH else None


class Walk:
    """One log, held against its chain and its seals while its lines go by."""

    def __init__(
        self, key: AuditKey, log: EventLog, lines: Iterable[Any], seals: Sequence[Sealed], to: int | None = None
    ) -> None:
        """A seal that does not fit the one before it is found in the seals' own chain. `to`: the last line, if it is
        not the log's."""
        self._key = key
        self._log = log
        self._to = to
        self._lines = lines
        self._seals = [seal for seal, fits in seals if fits]
        self._wanted = {seal.seq for seal, _fits in seals}
        self._has_last = log.last_seal in {0, *(seal.number for seal, _fits in seals)}
        self._heads = {log.pruned_seq: log.pruned_chain}
        self.lines = 0

    def flaws(self) -> Iterator[Flaw]:
        """All of a log. One that is flawed is not held against its seals as well, unless it ends before them."""
        found = list(flaws.flaws(self._key, self._log, self._passing(), to=self._to))
        yield from found
        for seal in self._seals:
            if seal.seq > self._log.seq:
                when = f"{seal.sealed_at:%Y-%m-%d %H:%M} UTC"
                what = f"it is cut off: the log had {seal.seq} lines when it was sealed on {when}"
                yield Flaw(self._log.seq + 1, What.CUT_OFF, what, seal.sealed_at)
            elif not found and self._heads.get(seal.seq, seal.head) != seal.head:
                yield Flaw(seal.seq, What.CHANGED, "it is not the line with which the log was sealed", seal.sealed_at)
        if not self._has_last:
            yield Flaw(self._log.seq, What.MISSING, f"it was sealed as number {self._log.last_seal}: that seal is gone")
        elif self._log.sealed and self._log.seq not in self._wanted:
            yield Flaw(self._log.seq, What.MISSING, "the log is said to be sealed, and no seal says so")

    def _passing(self) -> Iterator[Any]:
        for line in self._lines:
            self.lines += 1
            if line.seq in self._wanted:
                self._heads[line.seq] = line.chain
            yield line


def seals_of(tx: Transaction, ids: Sequence[str]) -> Mapping[str, list[Sealed]]:
    """The seals of some logs."""
    before = aliased(Seal)
    query = (
        sa.select(Seal, before.chain)
        .outerjoin(before, before.number == Seal.number - 1)
        .where(Seal.migration_id.in_(ids))
        .order_by(Seal.number)
    )
    seals = defaultdict(list)
    for seal, chain in tx.session.execute(query):
        fits = seal.chain == seal_link(tx.audit_key, chain or GENESIS, row_of(seal, SEALED))
        seals[seal.migration_id].append((seal, fits))
    return seals


# --- what should be there --------------------------------------------------------------------------------


def _without_end(tx: Transaction) -> list[Finding]:
    """Logs of which nothing says where they end: those of migrations, of seals, and of lines that are there."""
    found: dict[str, Finding] = {}

    def add(log_id: str, name: str | None, text: str, at: datetime | None = None) -> None:
        known = found[log_id].instance if log_id in found else None
        found[log_id] = Finding(log_id, known or name, Flaw(1, What.MISSING, text, at))

    migrations = sa.select(Migration.id, Migration.instance_name).where(_has_no_log(Migration.id))
    for log_id, name in tx.connection.execute(migrations):
        add(log_id, name, "the whole log is missing")
    seals = sa.select(Seal.migration_id, sa.func.max(Seal.seq), sa.func.max(Seal.sealed_at))
    for log_id, seq, at in tx.connection.execute(_each(seals, Seal.migration_id)):
        text = f"the whole log is missing: it had {seq} lines when it was sealed on {at:%Y-%m-%d %H:%M} UTC"
        add(log_id, None, text, at)
    lines = sa.select(Event.migration_id, sa.func.max(Event.instance), sa.func.count(), sa.func.max(Event.at))
    for log_id, name, count, at in tx.connection.execute(_each(lines, Event.migration_id)):
        add(log_id, name, f"nothing says where its log ends, of which {count} lines are there", at)
    return sorted(found.values(), key=lambda finding: finding.log)


def _each(query: Any, log_id: Any) -> Any:
    """A question about all rows of each log that has no end."""
    return query.where(_has_no_log(log_id)).group_by(log_id)


def _has_no_log(column: Any) -> sa.ColumnElement[bool]:
    return ~sa.exists().where(_LOGS.c.id == column)


def _verify_seals(tx: Transaction, report: Report, progress: Progress) -> Iterator[Finding]:
    """The chain of the seals."""
    columns = Seal.__table__.c
    rows = tx.connection.execution_options(yield_per=ROWS).execute(sa.select(*columns).order_by(columns.number))

    def passing() -> Iterator[Any]:
        for row in rows:
            report.seals += 1
            progress(1)
            yield row

    log = tx.session.get(EventLog, SEALS)
    for flaw in flaws.flaws(tx.audit_key, log, passing(), flaws.SEALS):
        yield Finding(SEALS, None, flaw)


def _against(tx: Transaction, head: Head) -> Iterator[Finding]:
    """Whether a head that was kept elsewhere is the end, or an earlier one, of the seals that are there."""
    if head.number == 0:
        return
    chain = tx.connection.scalar(sa.select(Seal.chain).where(Seal.number == head.number))
    at = datetime.fromisoformat(head.at)
    if chain is None:
        found = f"it is cut off, or an older picture of the database was put back: the head of {head.at} has it"
        yield Finding(SEALS, None, Flaw(head.number, What.CUT_OFF, found, at))
    elif chain != head.chain:
        found = f"it is not the seal that the head of {head.at} ends with: another history was put in its place"
        yield Finding(SEALS, None, Flaw(head.number, What.CHANGED, found, at))
