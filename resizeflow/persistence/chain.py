"""How lines hang together: each carries the HMAC of itself on top of the one before, and the end is signed.

Who can write the database and does not have the key (persistence/audit_key.py) can compute none of it anew. Pure
functions.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any

from resizeflow.persistence.audit_key import AuditKey

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
SIGNED = (
    "id",
    "instance_id",
    "instance",
    "project_id",
    "seq",
    "chain",
    "plain_seq",
    "pruned_seq",
    "pruned_chain",
    "last_seal",
)
"""Of where a log stands: all that matters."""
SEALED = ("number", "migration_id", "seq", "head", "sealed_at")
"""All of a seal but the chain itself."""
HEAD = ("number", "chain", "at", "key")
"""Of the seals' end, as it is kept elsewhere."""
ARCHIVE = ("logs", "lines", "sha256")
"""Of an archive: its whole content."""


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
    return key.mac(_content("log", log, SIGNED))


def is_signed(key: AuditKey, log: Mapping[str, Any]) -> bool:
    """Whether where a log stands was written by one who has the key."""
    return is_same(log["signature"], signature(key, log))


def is_same(found: object, right: str) -> bool:
    """Whether a signature that was found is the right one; a forger may have written anything in its place."""
    return hmac.compare_digest(str(found).encode(errors="replace"), right.encode())


def seal_link(key: AuditKey, previous: str, seal: Mapping[str, Any]) -> str:
    """The `chain` of a seal on top of the previous one's."""
    return key.mac(_content(previous, seal, SEALED))


def head_signature(key: AuditKey, head: Mapping[str, Any]) -> str:
    """The signature of the seals' end, as it is kept elsewhere (audit/heads.py)."""
    return key.mac(_content("head", head, HEAD))


def archive_signature(key: AuditKey, end: Mapping[str, Any]) -> str:
    """The signature of an archive's end (audit/archive.py)."""
    return key.mac(_content("archive", end, ARCHIVE))


def row_of(row: Any, columns: tuple[str, ...]) -> dict[str, Any]:
    """Some of a row's columns, as the functions here take them."""
    return dict(zip(columns, _getter(columns)(row), strict=True))


@cache
def _getter(columns: tuple[str, ...]) -> attrgetter[tuple[Any, ...]]:
    return attrgetter(*columns)


def _words(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a line")


_JSON = json.JSONEncoder(sort_keys=True, default=_words)


def _content(previous: str, row: Mapping[str, Any], columns: tuple[str, ...]) -> bytes:
    return _JSON.encode([previous, *(row[name] for name in columns)]).encode()
