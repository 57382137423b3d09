"""The scheduler's verdicts on the hosts: a few lines for people, all of them for machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cliff import columns

SHOWN = 20
"""Hosts that a table tells of."""


def shown(verdicts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Hosts and verdicts as people read them: the best first, as they are stored, and how many more there are."""
    yield from list(verdicts.items())[:SHOWN]
    if len(verdicts) > SHOWN:
        yield "...", f"and {len(verdicts) - SHOWN} more hosts; -f json tells of all"


class Verdicts(columns.FormattableColumn[Mapping[str, str]]):
    """As a row of a `show`."""

    def human_readable(self) -> str:
        return "\n".join(f"{name}: {verdict}" for name, verdict in shown(self._value))
