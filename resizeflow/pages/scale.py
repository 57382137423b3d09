"""Moments to pixels: linear while something happens, with long pauses cut out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SHORTEST_CUT = 30.0
"""Seconds that a pause lasts at least to be cut out."""
CUT_WIDTH = 34.0
TICKS_APART = 90.0
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200)

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Piece:
    """A stretch of time that is drawn to scale, or one that is cut out."""

    start: datetime
    end: datetime
    left: float
    right: float
    cut: bool

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()


@dataclass(frozen=True)
class Tick:
    x: float
    text: str


class Scale:
    """From `left` to `right` pixels, over spans of time in which something happened."""

    def __init__(self, spans: Iterable[Span], left: float, right: float) -> None:
        """At least one span is needed."""
        merged = _merged(spans)
        busy = sum((end - start).total_seconds() for start, end in merged)
        longest = max(SHORTEST_CUT, busy / 2)
        stretches = [merged[0]]
        for start, end in merged[1:]:
            if (start - stretches[-1][1]).total_seconds() > longest:
                stretches.append((start, end))
            else:
                stretches[-1] = (stretches[-1][0], end)
        self.pieces = _laid_out(stretches, left, right)

    def x(self, moment: datetime) -> float:
        """Where a moment is; one before the first or after the last is at the edge."""
        for piece in self.pieces:
            if moment <= piece.end:
                part = (moment - piece.start).total_seconds() / piece.seconds if piece.seconds else 0.0
                return piece.left + max(part, 0.0) * (piece.right - piece.left)
        return self.pieces[-1].right

    @property
    def cuts(self) -> list[Piece]:
        return [piece for piece in self.pieces if piece.cut]

    def ticks(self) -> list[Tick]:
        """Times of day in UTC, at round moments."""
        return [tick for piece in self.pieces if not piece.cut for tick in _ticks(piece)]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _laid_out(stretches: Sequence[Span], left: float, right: float) -> list[Piece]:
    seconds = sum((end - start).total_seconds() for start, end in stretches)
    room = right - left - CUT_WIDTH * (len(stretches) - 1)
    pieces: list[Piece] = []
    for start, end in stretches:
        if pieces:
            before = pieces[-1]
            pieces.append(Piece(before.end, start, before.right, before.right + CUT_WIDTH, cut=True))
        at = pieces[-1].right if pieces else left
        share = (end - start).total_seconds() / seconds if seconds else 1 / len(stretches)
        pieces.append(Piece(start, end, at, at + room * share, cut=False))
    return pieces


def _ticks(piece: Piece) -> list[Tick]:
    width = piece.right - piece.left
    if not piece.seconds or width < TICKS_APART / 2:
        return [Tick(piece.left, f"{piece.start.astimezone(UTC):%H:%M:%S}")]
    step = next((step for step in _STEPS if step * width / piece.seconds >= TICKS_APART), 86400)
    begin = piece.start.timestamp()
    first = int(begin // step + 1)
    ticks = []
    while (number := first * step - begin) <= piece.seconds:
        moment = piece.start.astimezone(UTC) + timedelta(seconds=number)
        text = f"{moment:%H:%M:%S}" if step >= 1 else f"{moment:%H:%M:%S.%f}"[:-4]
        ticks.append(Tick(piece.left + number / piece.seconds * width, text))
        first += 1
    return ticks
