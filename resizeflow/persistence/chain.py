"""How lines hang together: each carries the HMAC of itself on top of the one before, and the end is signed.

Who can write the database and does not have the key (persistence/audit_key.py) can compute none of it anew. Pure
functions over rows: `Event` and `EventLog`, or whatever has their attributes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.models import Event, EventLog

GENESIS = "0" * 64
COVERED = (
    "migration_id",
    "seq",
    "at",
    "instance_id",
    "instance",
    "project_id",
    "host",
    "request_id",
    "asked_by",
    "asked_from",
    "epoch",
    "worker",
    "kind",
    "task",
    "transition",
    "seconds",
    "outcome",
    "text",
    "error",
    "next_action",
    "data",
)
"""All of a line but the chain itself."""
_COVERED_BEFORE_0006 = ("migration_id", "seq", "at", "epoch", "worker", "kind", "task", "text", "data")
_SIGNED = ("id", "instance_id", "instance", "project_id", "seq", "chain", "plain_seq", "pruned_seq", "pruned_chain")


@dataclass(frozen=True)
class Flaw:
    """The first place where a log is not what was written."""

    seq: int
    what: str
    """`it does not fit the line before it`."""

    def __str__(self) -> str:
        return f"line {self.seq}: {self.what}"


def link(key: AuditKey, previous: str, line: Mapping[str, Any]) -> str:
    """The `chain` of a line on top of the previous one's."""
    return key.mac(_content(previous, line, COVERED))


def plain_link(previous: str, line: Mapping[str, Any]) -> str:
    """The same as it was before schema 0006: a hash that anybody can compute."""
    # The previous one stood before the list, and times had their zone.
    content = json.dumps([line[name] for name in _COVERED_BEFORE_0006], sort_keys=True, default=datetime.isoformat)
    return hashlib.sha256((previous + content).encode()).hexdigest()


def signature(key: AuditKey, log: Mapping[str, Any]) -> str:
    """The signature of where a log stands."""
    return key.mac(_content("log", log, _SIGNED))


def line_of(row: Event, columns: Iterable[str] = COVERED) -> dict[str, Any]:
    """A row as `link` takes it."""
    return {name: getattr(row, name) for name in columns}


def is_signed(key: AuditKey, log: EventLog) -> bool:
    """Whether where a log stands is what was written by one who has the key."""
    return log.signature == signature(key, line_of(log, _SIGNED))  # type: ignore[arg-type]


def first_flaw(key: AuditKey, log: EventLog | None, events: Iterable[Event]) -> Flaw | None:
    """Walks along a log, from its first line that is not pruned. None if it is what was written."""
    if log is None:
        strange = next(iter(events), None)
        return None if strange is None else Flaw(strange.seq, "nothing says that there is a log")
    if not is_signed(key, log):
        return Flaw(log.seq, "the signature of the log's end is false")
    previous, seq = log.pruned_chain, log.pruned_seq
    for event in events:
        if event.seq != seq + 1:
            return Flaw(seq + 1, "it is missing" if event.seq > seq + 1 else "there are two of the one before")
        line = line_of(event)
        fits = plain_link(previous, line) if event.seq <= log.plain_seq else link(key, previous, line)
        if event.chain != fits:
            return Flaw(event.seq, "it does not fit the line before it: it was changed, added or moved")
        previous, seq = event.chain, event.seq
    return _wrong_end(log, seq, previous)


def _wrong_end(log: EventLog, seq: int, chain: str) -> Flaw | None:
    """What is wrong about line `seq` as a log's last one."""
    if seq < log.seq:
        others = f", as are all up to line {log.seq}" if seq + 1 < log.seq else ""
        return Flaw(seq + 1, f"it is missing{others}")
    if seq > log.seq:
        return Flaw(log.seq + 1, "it was added to the end")
    return None if chain == log.chain else Flaw(seq, "it is not the line with which the log ended")


def _content(previous: str, row: Mapping[str, Any], columns: Iterable[str]) -> bytes:
    return json.dumps([previous, *(row[name] for name in columns)], sort_keys=True, default=_words).encode()


def _words(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a line")
