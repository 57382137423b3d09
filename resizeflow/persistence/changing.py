"""Changing a row as an operator asks, so that the log can tell what was changed, from what to what."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

HIDDEN = frozenset({"uri", "peer_uri", "data_uri", "shell"})
"""Columns whose values may hold passwords: of them is told only that they are different."""
Changes = Mapping[str, Any]
"""By column: before and after, or CHANGED."""
CHANGED = "changed"


def change(row: object, values: Mapping[str, object]) -> Changes:
    """Sets columns; those that are different now."""
    changes: dict[str, Any] = {}
    for column, after in values.items():
        before = getattr(row, column)
        if before != after:
            setattr(row, column, after)
            changes[column] = CHANGED if column in HIDDEN else [_plain(before), _plain(after)]
    return changes


def told(changes: Changes) -> str:
    """`max_moves 2 -> 4, shell changed`."""
    return ", ".join(
        f"{column} {what}" if what == CHANGED else f"{column} {_word(what[0])} -> {_word(what[1])}"
        for column, what in changes.items()
    )


def _plain(value: object) -> object:
    """As it can be kept in a line's data."""
    return value.isoformat() if isinstance(value, datetime) else value


def _word(value: object) -> str:
    """As a person reads it."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
