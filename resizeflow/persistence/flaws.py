"""Where a log is not what was written, and what was done to it there.

A line proves its content on top of the chain before it, and so proves that chain, too. So after a line that does not
fit it shows further on where the true log goes on, and from what must be done to get there what somebody did: he may
have given all lines other numbers, but could not compute any chain.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import COVERED, SEALED, SIGNED, is_signed, link, plain_link, row_of, seal_link
from resizeflow.persistence.models import Event, EventLog

AHEAD = 64
"""So many lines are looked at to see what was done to one."""
Line = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What the rows of a log look like."""

    number: str
    """The column that counts them, and that of their time."""
    at: str
    covered: tuple[str, ...]
    link: Callable[[AuditKey, str, Mapping[str, Any]], str]


LINES = Form("seq", "at", COVERED, link)
SEALS = Form("number", "sealed_at", SEALED, seal_link)


class What(StrEnum):
    """What somebody did."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    SWAPPED = "swapped"
    CUT_OFF = "cut off"


@dataclass(frozen=True)
class Flaw:
    """A place where a log is not what was written."""

    seq: int
    """The line, by the number that it has or should have."""
    what: What
    found: str
    """`it was changed`."""
    at: datetime | None = field(default=None, compare=False)
    """When the line says that it was written."""

    def __str__(self) -> str:
        return f"line {self.seq}: {self.found}"


def first_flaw(key: AuditKey, log: EventLog | None, events: Iterable[Event]) -> Flaw | None:
    """The first one, None if the log is what was written."""
    return next(flaws(key, log, events), None)


def flaws(
    key: AuditKey, log: EventLog | None, rows: Iterable[Any], form: Form = LINES, *, to: int | None = None
) -> Iterator[Flaw]:
    """Walks along a log, from its first line that is not pruned to its end, or to line `to`. `log` has the attributes
    of that row; lines, or the seals as a log of theirs, come by their numbers."""
    if log is None:
        if (stray := next(iter(rows), None)) is not None:
            yield Flaw(getattr(stray, form.number), What.MISSING, "nothing says where its log ends")
        return
    yield from _Walk(key, log, rows, form, log.seq if to is None else to).flaws()


class _Walk:
    """One walk. `_previous` is the chain of the line before, None if that is not known to be true."""

    def __init__(self, key: AuditKey, log: EventLog, rows: Iterable[Any], form: Form, to: int) -> None:
        self._key = key
        self._log = log
        self._to = to
        self._form = form
        self._genuine = is_signed(key, row_of(log, (*SIGNED, "signature")))
        self._rows = self._numbered(rows)
        self._strange: list[Line] = []
        self._next: deque[Line] = deque()
        self._seq: int = log.pruned_seq
        self._previous: str | None = log.pruned_chain
        self._renumbered = 0
        """What must be added to the numbers of lines to have those that they were written with."""

    def flaws(self) -> Iterator[Flaw]:
        if not self._genuine:
            found = "where the log ends was changed: that is not signed with the key, and lines may be cut off"
            yield Flaw(self._log.seq, What.CHANGED, found)
        while self._ahead(1):
            line = self._next.popleft()
            yield from self._place(line)
        for line in self._strange:
            found = f"behind it is a row whose number is {line[self._form.number]!r}"
            yield Flaw(self._seq, What.INSERTED, found, self._at(line))
        yield from self._end()

    def _place(self, line: Line) -> Iterator[Flaw]:
        seq = self._seq_of(line)
        if seq <= self._seq:
            yield Flaw(seq, What.INSERTED, "there is one too many of it", self._at(line))
            return
        if seq > self._seq + 1:
            yield _missing(self._seq + 1, seq - 1)
            self._previous = None
        if self._genuine and seq + self._renumbered > self._to:
            yield Flaw(seq, What.INSERTED, "it was added to the end", self._at(line))
        elif self._previous is not None and not self._fits(self._previous, line, self._number(line)):
            yield self._explain(line, self._previous)
            return
        self._go_on(line, line["chain"])

    def _explain(self, line: Line, previous: str) -> Flaw:
        """What was done to a line that does not fit, and goes on after it."""
        number = self._number(line)
        for place, other in enumerate(self._ahead(AHEAD)):
            chain = self._chain(previous, other, number)
            if chain not in (line["chain"], other["chain"]):
                continue
            if self._is_at(place + 1, chain, number + 1):
                return self._inserted(line, place + 1)
            return self._swapped(line, place, chain)
        for lost in range(1, AHEAD):
            if self._is_followed(line, number + lost):
                self._renumbered += lost
                self._go_on(line, line["chain"])
                found = f"before it {'a line is' if lost == 1 else f'{lost} lines are'} missing, and the gap was closed"
                return Flaw(self._seq_of(line), What.MISSING, found, self._at(line))
        return self._changed(line)

    def _inserted(self, line: Line, count: int) -> Flaw:
        others = [self._next.popleft() for _ in range(count - 1)]
        self._seq += count
        self._renumbered -= count
        so_many = f", as were those up to line {self._seq_of(others[-1])}" if others else ""
        return Flaw(
            self._seq_of(line),
            What.INSERTED,
            f"it was inserted{so_many}, and the later ones renumbered",
            self._at(line),
        )

    def _swapped(self, line: Line, place: int, chain: str) -> Flaw:
        """The true line stands further on. The two are put back, each with its chain."""
        other, number = self._next[place], self._form.number
        theirs = other["chain"] if chain == line["chain"] else line["chain"]
        self._next[place] = {**line, number: other[number], "chain": theirs}
        self._go_on(line, chain)
        return Flaw(self._seq_of(line), What.SWAPPED, f"it and line {other[number]} were swapped", self._at(line))

    def _changed(self, line: Line) -> Flaw:
        """What follows shows whether its chain is true. Else all is in doubt up to where the log fits again."""
        seq, at = self._seq_of(line), self._at(line)
        if self._is_followed(line, self._number(line)):
            self._go_on(line, line["chain"])
            if 1 < self._number(line) == self._log.plain_seq + 1:
                return Flaw(seq, What.CHANGED, f"it was changed, or those before it ({self._plain()})", at)
            return Flaw(seq, What.CHANGED, "it was changed", at)
        doubtful = line
        while (ahead := self._ahead(1)) and self._seq_of(ahead[0]) == self._seq_of(doubtful) + 1:
            doubtful = self._next.popleft()
            if self._is_followed(doubtful, self._number(doubtful)):
                break
        self._go_on(doubtful, doubtful["chain"])
        if not self._is_followed(doubtful, self._number(doubtful)):
            self._previous = None
        rest = self._seq_of(doubtful) - seq
        others = ("", f"; line {seq + 1} cannot be checked")
        told = others[rest] if rest < len(others) else f"; nor do those up to line {self._seq_of(doubtful)} fit"
        return Flaw(seq, What.CHANGED, f"it was changed, with its chain{told}", at)

    def _end(self) -> Iterator[Flaw]:
        if not self._genuine:
            return
        last = self._seq + self._renumbered
        if last < self._to:
            others = f", as are all up to line {self._to}" if last + 1 < self._to else ""
            yield Flaw(last + 1, What.CUT_OFF, f"it is cut off{others}")
        elif last == self._log.seq and self._previous not in (None, self._log.chain):
            found = f"it is not the line with which the log ended ({self._plain() or 'its chain is another one'})"
            yield Flaw(self._seq, What.CHANGED, found)

    # --- what fits ---------------------------------------------------------------------------------------

    def _numbered(self, rows: Iterable[Any]) -> Iterator[Line]:
        """SQLite takes a word for a number: such a row is no line."""
        for row in rows:
            line = row_of(row, (*self._form.covered, "chain"))
            if isinstance(line[self._form.number], int):
                yield line
            else:
                self._strange.append(line)

    def _at(self, line: Line) -> datetime | None:
        at = line[self._form.at]
        return at if isinstance(at, datetime) else None

    def _seq_of(self, line: Line) -> int:
        return int(line[self._form.number])

    def _number(self, line: Line) -> int:
        """The number that a line was written with, if only numbers were changed."""
        return self._seq_of(line) + self._renumbered

    def _chain(self, previous: str, line: Line, number: int) -> str:
        """The chain that a line has on top of another one, as number so-and-so; none if it holds what no line can."""
        renumbered = {**line, self._form.number: number}
        try:
            if number <= self._log.plain_seq:
                return plain_link(previous, renumbered)
            return self._form.link(self._key, previous, renumbered)
        except TypeError:
            return ""

    def _fits(self, previous: str, line: Line, number: int) -> bool:
        return bool(line["chain"] == self._chain(previous, line, number))

    def _is_at(self, place: int, previous: str, number: int) -> bool:
        """Whether the line ahead at a place is number so-and-so; where there is none, whether the log ended."""
        ahead = self._ahead(place + 1)
        if len(ahead) > place:
            return self._fits(previous, ahead[place], number)
        return self._genuine and self._log.seq == number - 1 and self._log.chain == previous

    def _is_followed(self, line: Line, number: int) -> bool:
        """Whether the next line proves the chain of this one as that of number so-and-so."""
        return self._is_at(0, line["chain"], number + 1)

    def _plain(self) -> str:
        lines = self._log.plain_seq
        return (
            f"up to line {lines} they are from before schema 0006, with hashes that anybody computes" if lines else ""
        )

    def _ahead(self, count: int) -> list[Line]:
        """The next lines, as many as there are."""
        self._next.extend(itertools.islice(self._rows, max(count - len(self._next), 0)))
        return list(itertools.islice(self._next, count))

    def _go_on(self, line: Line, chain: str) -> None:
        self._seq, self._previous = self._seq_of(line), chain


def _missing(first: int, last: int) -> Flaw:
    others = f", as are all up to line {last}" if first < last else ""
    return Flaw(first, What.MISSING, f"it is missing{others}")
