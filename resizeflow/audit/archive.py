"""Archives: logs as JSON lines that verify with the key alone (`resizeflow audit export`, `audit verify --archive`).

    {"header": {"archive": "resizeflow event log", "format": 1, "version": ..., "at": ..., "key": ..., "before": ...}}
    {"log": {where the log ends, signed}, "to": last line that is here, "seals": so many of them follow}
    {"seal": {...}, "previous": the chain of the seal before it}
    {"line": {...}}
    {"end": {"logs": ..., "lines": ..., "sha256": of all lines of the file before this one, "signature": ...}}

Times are ISO 8601 in UTC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import sqlalchemy as sa

from resizeflow import __version__
from resizeflow.audit.lines import Lines
from resizeflow.audit.verify import BATCH, Finding, Progress, Report, Sealed, Walk, seals_of, silent
from resizeflow.errors import UsageError
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import (
    COVERED,
    GENESIS,
    SEALED,
    SIGNED,
    archive_signature,
    is_same,
    row_of,
    seal_link,
)
from resizeflow.persistence.flaws import Flaw, What
from resizeflow.persistence.models import FLEET, SEALS, Event, EventLog, Migration, Seal
from resizeflow.persistence.seals import AT_REST
from resizeflow.persistence.transaction import Transaction

NAME, FORMAT = "resizeflow event log", 1
IS_ARCHIVED = "archive"
"""What findings about the file itself are found in."""


class Broken(Exception):
    """The file is not what was written; `line` counts from 1."""

    def __init__(self, line: int, what: What, found: str) -> None:
        super().__init__(found)
        self.flaw = Flaw(line, what, found)


@dataclass(frozen=True)
class ArchivedLog:
    """A log in an archive. Its lines must be taken before the next log is."""

    log: SimpleNamespace
    """As a row of `event_logs`."""
    to: int
    seals: list[Sealed]
    lines: Iterator[SimpleNamespace]
    """Rows of `events`."""


# --- which logs ------------------------------------------------------------------------------------------


def closed_before(before: datetime) -> sa.Select[Any]:
    """The ends of logs of migrations that were closed before a moment and have lines left; with the fleet's."""
    closed = sa.exists().where(Migration.id == EventLog.id, Migration.closed_at < before)
    return (
        sa.select(EventLog)
        .where(sa.or_(EventLog.id == FLEET, sa.and_(closed, AT_REST)), EventLog.seq > EventLog.pruned_seq)
        .order_by(EventLog.id)
    )


def last_line(tx: Transaction, log: EventLog, before: datetime | None) -> int:
    """How far a log goes into an archive of what was before a moment: the fleet's up to there, the others whole."""
    if log.id != FLEET or before is None:
        return log.seq
    first = tx.connection.scalar(
        sa.select(sa.func.min(Event.seq)).where(Event.migration_id == FLEET, Event.at >= before)
    )
    return log.seq if first is None else max(first - 1, log.pruned_seq)


# --- writing ---------------------------------------------------------------------------------------------


def export(tx: Transaction, *, before: datetime | None = None, migration: str | None = None) -> Iterator[str]:
    """The lines of an archive: of what was closed before a moment, of one migration, or of everything."""
    logs = _wanted(before, migration)
    sha, counts = hashlib.sha256(), {"logs": 0, "lines": 0}
    for kind, record in _records(tx, logs, before):
        line = json.dumps(record, default=_word) + "\n"
        sha.update(line.encode())
        for name in counts:
            counts[name] += name == f"{kind}s"
        yield line
    end: dict[str, Any] = {**counts, "sha256": sha.hexdigest()}
    yield json.dumps({"end": {**end, "signature": archive_signature(tx.audit_key, end)}}) + "\n"


def lines_to_export(tx: Transaction, *, before: datetime | None = None, migration: str | None = None) -> int:
    """How many lines of logs there are for an archive; what of the fleet's is later than `before` is counted, too."""
    logs = _wanted(before, migration).subquery()
    return tx.connection.scalar(sa.select(sa.func.sum(logs.c.seq - logs.c.pruned_seq))) or 0


def _wanted(before: datetime | None, migration: str | None) -> sa.Select[Any]:
    logs = sa.select(EventLog).where(EventLog.id != SEALS).order_by(EventLog.id)
    if before is not None:
        logs = closed_before(before)
    return logs if migration is None else logs.where(EventLog.id == migration)


def _records(tx: Transaction, logs: sa.Select[Any], before: datetime | None) -> Iterator[tuple[str, dict[str, Any]]]:
    now, key = tx.now(), tx.audit_key.fingerprint
    header = {"archive": NAME, "format": FORMAT, "version": __version__, "at": now, "key": key, "before": before}
    yield "header", {"header": header}
    batch = tx.session.scalars(logs.limit(BATCH)).all()
    while batch:
        ids = [log.id for log in batch]
        seals, lines = seals_of(tx, ids), Lines(tx, ids)
        for log in batch:
            to = last_line(tx, log, before)
            yield "log", {"log": row_of(log, (*SIGNED, "signature", "sealed")), "to": to, "seals": len(seals[log.id])}
            for seal, _fits in seals[log.id]:
                previous = tx.connection.scalar(sa.select(Seal.chain).where(Seal.number == seal.number - 1))
                yield "seal", {"seal": row_of(seal, (*SEALED, "chain")), "previous": previous}
            for line in lines.of(log.id):
                if line.seq <= to:
                    yield "line", {"line": row_of(line, (*COVERED, "chain"))}
        batch = tx.session.scalars(logs.where(EventLog.id > ids[-1]).limit(BATCH)).all()


def _word(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in an archive")


# --- reading ---------------------------------------------------------------------------------------------


def header_of(file: Path, key: AuditKey) -> dict[str, Any]:
    """The first record. Raises UsageError for what is no archive, or one of another key."""
    try:
        with file.open(encoding="utf-8") as lines:
            header = json.loads(next(lines, ""))["header"]
        known = (header["archive"], header["format"]) == (NAME, FORMAT)
        made_with = header["key"]
    except OSError as error:
        raise UsageError(f"The archive {file} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        known, made_with = False, ""
    if not known:
        raise UsageError(f"{file} is no archive that this version of `resizeflow audit export` writes.")
    if made_with != key.fingerprint:
        raise UsageError(
            f"The archive {file} was written under the audit key {made_with}, and {key.file} holds {key.fingerprint}: "
            "set [audit] key_file to the file with that key."
        )
    return cast("dict[str, Any]", header)


def logs_of(file: Path, key: AuditKey, progress: Progress) -> Iterator[ArchivedLog]:
    """The logs of an archive, in a stream; `progress` is told of bytes. Raises Broken, at the latest behind the last
    one."""
    count = 0

    def number(record: dict[str, Any]) -> int:
        nonlocal count
        count += "log" in record
        return count

    for _, records in groupby(_read(file, key, progress), key=number):
        first = next(records)
        log = _row(first.get("log"), (*SIGNED, "signature", "sealed"))
        seals = [_sealed(record, key) for record in islice(records, first.get("seals", 0))]
        lines = (_row(record.get("line"), (*COVERED, "chain")) for record in records)  # noqa: B031 - the rest of them
        yield ArchivedLog(log, first.get("to", log.seq), seals, lines)


def _sealed(record: dict[str, Any], key: AuditKey) -> Sealed:
    seal = _row(record.get("seal"), (*SEALED, "chain"))
    fits = seal.chain == seal_link(key, record.get("previous") or GENESIS, vars(seal))
    return cast("Seal", seal), fits


def verify_archive(file: Path, key: AuditKey, progress: Progress = silent) -> Report:
    """Looks at a whole archive with the key alone; `progress` is told of its bytes. Raises UsageError for what is no
    archive of this key."""
    header_of(file, key)
    report = Report()
    try:
        for archived in logs_of(file, key, progress):
            walk = walk_of(archived, key)
            report.findings += [Finding(archived.log.id, archived.log.instance, flaw) for flaw in walk.flaws()]
            report.logs += 1
            report.lines += walk.lines
            report.plain += max(min(archived.log.plain_seq, archived.to) - archived.log.pruned_seq, 0)
            report.seals += len(archived.seals)
    except Broken as broken:
        report.findings.append(Finding(IS_ARCHIVED, None, broken.flaw))
    return report


def walk_of(archived: ArchivedLog, key: AuditKey, lines: Iterable[Any] | None = None) -> Walk:
    """A walk along an archived log; `lines`: its own, or they in passing."""
    log = cast("EventLog", archived.log)
    return Walk(key, log, archived.lines if lines is None else lines, archived.seals, archived.to)


def _read(file: Path, key: AuditKey, progress: Progress) -> Iterator[dict[str, Any]]:
    """The records between header and end, of which the end says that they are all there."""
    sha, counts = hashlib.sha256(), {"logs": 0, "lines": 0}
    number, end = 0, None
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            progress(len(line))
            if end is not None:
                raise Broken(number, What.INSERTED, "it was added after the file's end")
            try:
                record = json.loads(line)
                kind = next(iter(record))
            except (ValueError, TypeError, StopIteration):
                raise Broken(number, What.CHANGED, "it is not a record of an archive") from None
            if kind == "end":
                end = record["end"]
                continue
            sha.update(line)
            for name in counts:
                counts[name] += name == f"{kind}s"
            if kind != "header":
                yield record
    if end is None:
        raise Broken(number + 1, What.CUT_OFF, "the file is cut off: its end is missing")
    right = {**counts, "sha256": sha.hexdigest()}
    if end != {**right, "signature": end.get("signature")}:
        raise Broken(number, What.CHANGED, "the file is not the one that was signed: records were changed or taken out")
    if not is_same(end.get("signature"), archive_signature(key, right)):
        raise Broken(number, What.CHANGED, "the file's end is not signed with the key")


def _row(values: Any, columns: tuple[str, ...]) -> SimpleNamespace:
    try:
        row = {name: values[name] for name in columns}
        moments = {name: datetime.fromisoformat(row[name]) for name in ("at", "sealed_at") if name in row}
    except (KeyError, TypeError, ValueError):
        raise Broken(0, What.CHANGED, "the file has a record that no archive has") from None
    return SimpleNamespace(**row | moments)
