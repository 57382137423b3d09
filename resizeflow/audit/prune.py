"""Lines that stand in an archive are taken out of the database; what is left verifies (`resizeflow audit prune`).

A log keeps its end, and where it was pruned: from which line and chain it goes on. The seals stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resizeflow.audit.archive import Broken, closed_before, header_of, last_line, logs_of, walk_of
from resizeflow.audit.verify import Progress, silent
from resizeflow.errors import ResizeflowError
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import COVERED, SIGNED, is_signed, row_of, signature
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import FLEET, Event, EventLog
from resizeflow.persistence.seals import seal_logs
from resizeflow.persistence.transaction import Transaction

AT_ONCE = 5000
"""Lines that are deleted in one transaction."""
_LINE = (*COVERED, "chain")


class NotArchived(ResizeflowError):
    """What is to be pruned does not stand in the archive as it is in the database."""

    exit_code = 4
    http_code = 409


@dataclass(frozen=True)
class Piece:
    """Consecutive lines of a log, as an archive has them."""

    log_id: str
    lines: list[Any]


@dataclass
class Pruned:
    """What was done."""

    lines: int = 0
    logs: int = 0


def prune(database: Database, file: Path, *, before: datetime | None = None, progress: Progress = silent) -> Pruned:
    """Deletes lines of migrations that were closed before a moment, and of the fleet's log from before it. By default
    it is the moment that the archive was exported with. Killed in the middle, it is run again. Raises UsageError for
    what is no archive of this key, and NotArchived, before anything is deleted, for one that is not whole or lacks
    something. `progress` is told of bytes: the archive is read twice, to be verified and to be pruned with."""
    with database.read() as tx:
        key, before = tx.audit_key, before or _moment(file, header_of(file, tx.audit_key))
    ends = _ends(file, key, progress)
    seal_logs(database)
    with database.read() as tx:
        wanted = {log.id: last_line(tx, log, before) for log in tx.session.scalars(closed_before(before))}
        wanted = {log_id: to for log_id, to in wanted.items() if _require_archived(tx, log_id, to, ends, file)}
    pruned = Pruned(logs=len(wanted))
    pieces: list[Piece] = []
    for piece in _pieces(file, key, wanted, progress):
        pieces.append(piece)
        if sum(len(one.lines) for one in pieces) >= AT_ONCE:
            pruned.lines += _take_out(database, pieces, file)
            pieces = []
    pruned.lines += _take_out(database, pieces, file)
    return pruned


def what_was_pruned(tx: Transaction, log_id: str) -> str | None:
    """A sentence for who looks for lines that are only in archives."""
    log = tx.session.get(EventLog, log_id)
    if log is None or not log.pruned_seq:
        return None
    which = f"Lines 1 to {log.pruned_seq}" if log.pruned_seq < log.seq else f"All {log.pruned_seq} lines"
    return f"{which} of this log went into an archive and were pruned (`resizeflow audit prune`)."


def _moment(file: Path, header: dict[str, Any]) -> datetime:
    if header["before"] is None:
        raise NotArchived(
            f"The archive {file} was not exported with --before: say with --before up to when is to be pruned."
        )
    return datetime.fromisoformat(header["before"])


# --- what stands in the archive --------------------------------------------------------------------------


def _ends(file: Path, key: AuditKey, progress: Progress) -> dict[str, tuple[int, int, str]]:
    """Of each log in a verified archive: the line before the first, the last one, and the chain of that."""
    ends = {}
    try:
        for archived in logs_of(file, key, progress):
            chain = archived.log.pruned_chain

            def passing(lines: Iterator[Any] = archived.lines) -> Iterator[Any]:
                nonlocal chain
                for line in lines:
                    chain = line.chain
                    yield line

            if (flaw := next(walk_of(archived, key, passing()).flaws(), None)) is not None:
                raise NotArchived(
                    f"The archive {file} is not whole: log {archived.log.id}, {flaw}. Nothing was deleted."
                )
            ends[archived.log.id] = (archived.log.pruned_seq, archived.to, chain)
    except Broken as broken:
        raise NotArchived(f"The archive {file} is not whole: {broken}. Nothing was deleted.") from None
    return ends


def _require_archived(tx: Transaction, log_id: str, to: int, ends: dict[str, tuple[int, int, str]], file: Path) -> bool:
    """Whether there is something to be pruned of a log. Raises NotArchived if the archive lacks a line of it, or the
    log is not sealed."""
    log = tx.session.get_one(EventLog, log_id)
    if to <= log.pruned_seq:
        return False
    name = "the fleet" if log_id == FLEET else f"migration {log_id}"
    if not is_signed(tx.audit_key, row_of(log, (*SIGNED, "signature"))) or not (log.sealed or log_id == FLEET):
        raise NotArchived(f"The log of {name} is not sealed: `resizeflow audit verify` says why. Nothing was deleted.")
    first, last, chain = ends.get(log_id, (0, 0, ""))
    if first > log.pruned_seq or last < to or (last == log.seq and chain != log.chain):
        raise NotArchived(
            f"The archive {file} does not have the whole log of {name}: export once more, and prune with that archive. "
            "Nothing was deleted."
        )
    return True


def _pieces(file: Path, key: AuditKey, wanted: dict[str, int], progress: Progress) -> Iterator[Piece]:
    for archived in logs_of(file, key, progress):
        log_id = archived.log.id
        lines = (line for line in archived.lines if line.seq <= wanted.get(log_id, 0))
        while lines_now := list(islice(lines, AT_ONCE)):
            yield Piece(log_id, lines_now)


# --- what is deleted -------------------------------------------------------------------------------------


def _take_out(database: Database, pieces: list[Piece], file: Path) -> int:
    """Deletes pieces in one transaction, which is told in the fleet's log; how many lines."""
    with database.write() as tx:
        counts = {piece.log_id: _delete(tx, piece, file) for piece in pieces}
        count = sum(counts.values())
        if count:
            logs = sum(map(bool, counts.values()))
            tx.events.command(f"{count} lines of {logs} logs pruned; they are in {file.name}", lines=count, logs=logs)
    return count


def _delete(tx: Transaction, piece: Piece, file: Path) -> int:
    """What is left of a piece, if it stands in the log as it stands in the archive."""
    log = tx.events.end_of(piece.log_id)
    left = [line for line in piece.lines if line.seq > log["pruned_seq"]]
    if not left:
        return 0
    here = sa.and_(Event.migration_id == piece.log_id, Event.seq.between(log["pruned_seq"] + 1, left[-1].seq))
    rows = tx.connection.execute(sa.select(*Event.__table__.c).where(here).order_by(Event.seq)).all()
    if [row_of(row, _LINE) for row in rows] != [row_of(line, _LINE) for line in left] or not is_signed(
        tx.audit_key, log
    ):
        raise NotArchived(
            f"The log of {piece.log_id} is not what the archive {file} has: `resizeflow audit verify` says where. It "
            "was left as it is."
        )
    tx.connection.execute(sa.delete(Event).where(here))
    log |= {"pruned_seq": left[-1].seq, "pruned_chain": left[-1].chain}
    tx.connection.execute(
        sa.update(EventLog)
        .where(EventLog.id == piece.log_id)
        .values(pruned_seq=log["pruned_seq"], pruned_chain=log["pruned_chain"], signature=signature(tx.audit_key, log))
    )
    return len(left)
