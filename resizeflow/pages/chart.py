"""The timeline as a picture: a lane per worker, a row per task, bars, and what lies across. Geometry only, in pixels;
templates/chart.html draws it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter

from resizeflow.audit.progress import Sample, duration, percent, size
from resizeflow.audit.timeline import Downtime, End, Mark, Run, Timeline
from resizeflow.pages.scale import Scale, Span, Tick
from resizeflow.persistence.models import RETRIES
from resizeflow.states import Direction

WIDTH, GUTTER, MARGIN = 1000.0, 214.0, 16.0
ROW, HEAD = 19.0, 28.0
FLAG, FLAG_LEVELS = 15.0, 4
BYTES = 92.0
LETTER = 6.3
"""About the width of a character."""
LONGEST_FLAG = 40
MOST_ROWS = 120
"""A job that was tried again and again has more than anybody reads."""


@dataclass(frozen=True)
class Bar:
    """A run. `kind` is a word for its look: `done`, `undone`, `failed`, `crashed`, `put-down`, `running`."""

    x: float
    width: float
    kind: str
    undo: bool
    label: str
    label_x: float
    anchor: str
    title: str


@dataclass
class Row:
    """A task of a lane, in one direction."""

    y: float
    name: str
    undo: bool
    bars: list[Bar] = field(default_factory=list)
    retries: list[tuple[float, str]] = field(default_factory=list)
    """Where something was tried again, and why."""


@dataclass
class Lane:
    """A worker."""

    y: float
    letter: str
    worker: str
    epochs: str
    rows: list[Row] = field(default_factory=list)
    height: float = 0.0


@dataclass(frozen=True)
class Link:
    """The silence of a dead worker, from its last sign to the take-over by the next one."""

    x: float
    y: float
    to_x: float
    to_y: float
    text: str
    text_x: float
    anchor: str


@dataclass(frozen=True)
class Flag:
    """A moment across all lanes."""

    x: float
    y: float
    text: str
    anchor: str
    kind: str


@dataclass(frozen=True)
class Band:
    """The guest is off."""

    x: float
    width: float
    text: str
    text_x: float
    anchor: str


@dataclass(frozen=True)
class Curve:
    """Bytes over time: polylines, a point for each sample."""

    top: float
    bottom: float
    lines: list[str]
    areas: list[str]
    points: list[tuple[float, float, str]]
    total: str


@dataclass(frozen=True)
class Chart:
    """All that is drawn."""

    width: float
    height: float
    plot_left: float
    plot_right: float
    plot_top: float
    plot_bottom: float
    lanes: list[Lane]
    links: list[Link]
    flags: list[Flag]
    bands: list[Band]
    cuts: list[tuple[float, float, str]]
    ticks: list[Tick]
    curve: Curve | None


_KINDS = {
    None: "running",
    End.DONE: "done",
    End.UNDONE: "undone",
    End.FAILED: "failed",
    End.CRASHED: "crashed",
}


def chart(told: Timeline, now: datetime) -> Chart | None:
    """The picture of a timeline; None if nothing was run yet."""
    if not told.runs:
        return None
    scale = Scale(_spans(told, now), GUTTER, WIDTH - MARGIN)
    flags = _flags(told, scale)
    top = (max((flag.y for flag in flags), default=0.0) + FLAG) if flags or told.downtimes else 8.0
    lanes, rows, bottom = _lanes(told, scale, now, top + 4)
    curve = _curve(told.samples, scale, bottom + 30) if told.samples else None
    return Chart(
        width=WIDTH,
        height=(curve.bottom if curve else bottom) + 26,
        plot_left=GUTTER,
        plot_right=WIDTH - MARGIN,
        plot_top=top,
        plot_bottom=curve.bottom if curve else bottom,
        lanes=lanes,
        links=_links(told, scale, rows),
        flags=flags,
        bands=[_band(down, scale, now) for down in told.downtimes],
        cuts=[(cut.left, cut.right, duration(cut.seconds)) for cut in scale.cuts],
        ticks=scale.ticks(),
        curve=curve,
    )


def _spans(told: Timeline, now: datetime) -> Iterable[Span]:
    for run in told.runs:
        yield run.start, run.end or max(now, run.start)
    for mark in told.marks:
        if mark.kind in _FLAGS:
            yield mark.at, mark.at


RowKey = tuple[str, str, Direction, str]


def _lanes(told: Timeline, scale: Scale, now: datetime, y: float) -> tuple[list[Lane], dict[RowKey, Row], float]:
    lanes: list[Lane] = []
    rows: dict[RowKey, Row] = {}
    for worker, letter in told.letters.items():
        mine = [run for run in told.runs if run.worker == worker]
        epochs = ", ".join(dict.fromkeys(str(run.epoch) for run in mine))
        lane = Lane(y, letter, worker, epochs)
        y += HEAD
        for run in mine:
            key = (worker, run.flow, run.direction, run.task)
            if key not in rows and len(rows) < MOST_ROWS:
                lane.rows.append(Row(y, run.task, run.direction is Direction.BACK))
                rows[key] = lane.rows[-1]
                y += ROW
            if key in rows:
                rows[key].bars.append(_bar(run, scale, now))
        for mark in told.marks:
            if mark.kind in RETRIES and mark.worker == worker:
                _place(mark, scale, mine, rows)
        for row in lane.rows:
            row.bars = _without_collisions(row.bars)
        y += 6
        lane.height = y - lane.y
        lanes.append(lane)
    return lanes, rows, y


def _place(mark: Mark, scale: Scale, runs: list[Run], rows: dict[RowKey, Row]) -> None:
    """A retry goes to the row of the run that it was in."""
    count = bisect_right(runs, mark.at, key=attrgetter("start"))  # A job that waits for days has thousands of both.
    run = runs[count - 1] if count else None
    row = rows.get((run.worker, run.flow, run.direction, run.task)) if run else None
    if row is not None:
        row.retries.append((scale.x(mark.at), mark.text))


def _bar(run: Run, scale: Scale, now: datetime) -> Bar:
    end = run.end or max(now, run.start)
    x, width = scale.x(run.start), max(scale.x(end) - scale.x(run.start), 2.0)
    label = _label(run, (end - run.start).total_seconds())
    kind = _KINDS.get(run.how, "put-down")
    label_x, anchor = _place_of(label, x, width, 14 if kind == "put-down" else 8)
    undo = run.direction is Direction.BACK
    told = f"{'undo of ' if undo else ''}{run.task} by {run.worker}, epoch {run.epoch}: {label}"
    return Bar(
        x=x,
        width=width,
        kind=kind,
        undo=undo,
        label=label,
        label_x=label_x,
        anchor=anchor,
        title=f"{told}; {run.why}" if run.why else told,
    )


def _place_of(label: str, x: float, width: float, apart: float) -> tuple[float, str]:
    """Where a bar's label is, and which end of it: behind the bar, else in it, else before it."""
    long = len(label) * LETTER
    if x + width + apart + long < WIDTH - 6:
        return x + width + apart, "start"
    return (x + width - 8, "end") if long + 16 < width else (x - 6, "end")


def _label(run: Run, seconds: float) -> str:
    """`3.2 s`, or how it ended if not well. When a worker died nobody knows."""
    took = duration(seconds)
    at = f" at {percent(run.share)}" if run.share is not None and run.how is not End.DONE else ""
    match run.how:
        case End.CRASHED:
            return f"died{at}"
        case End.DONE | End.UNDONE:
            return took
        case None:
            return f"running for {took}{at}"
        case _:
            return f"{run.how} after {took}{at}"


def _without_collisions(bars: list[Bar]) -> list[Bar]:
    """A label that would lie on the next bar of its row is left out; it is in the bar's title, and in the table."""
    kept = []
    for bar, following in zip(bars, [*bars[1:], None], strict=True):
        hidden = following is not None and bar.anchor == "start" and bar.label_x + len(bar.label) * LETTER > following.x
        kept.append(replace(bar, label="") if hidden else bar)
    return kept


def _links(told: Timeline, scale: Scale, rows: dict[RowKey, Row]) -> list[Link]:
    links = []
    for over in told.takeovers:
        before = [run for run in told.runs if run.worker == over.died and run.start <= over.last_sign]
        after = [run for run in told.runs if run.worker == over.by and run.start >= over.at]
        ends = [rows.get((run.worker, run.flow, run.direction, run.task)) for run in (*before[-1:], *after[:1])]
        if len(ends) < 2 or ends[0] is None or ends[1] is None:
            continue
        x, to_x = scale.x(over.last_sign), scale.x(over.at)
        text = f"silent for {duration(over.silence)}, then {told.letters[over.by]} takes over"
        fits = to_x + 8 + len(text) * LETTER < WIDTH
        links.append(
            Link(
                x, ends[0].y + ROW / 2, to_x, ends[1].y + ROW / 2, text,
                to_x + 6 if fits else to_x - 6, "start" if fits else "end",
            )
        )  # fmt: skip
    return links


_FLAGS = {"pivot": "point of no return", "command": "", "failure": "failed"}


def _flags(told: Timeline, scale: Scale) -> list[Flag]:
    """Labels that would lie on each other are put on different levels."""
    levels: list[list[tuple[float, float]]] = [[] for _ in range(FLAG_LEVELS)]
    flags = []
    for mark in told.marks:
        if mark.kind not in _FLAGS:
            continue
        x, text = scale.x(mark.at), _FLAGS[mark.kind] or mark.text
        text = text if len(text) <= LONGEST_FLAG else f"{text[: LONGEST_FLAG - 1]}…"
        long = len(text) * LETTER + 20
        left, anchor = (x, "start") if x + long < WIDTH else (x - long, "end")
        free = (taken for taken in levels if all(left + long < start or left > end for start, end in taken))
        level = next(free, levels[-1])
        level.append((left, left + long))
        flags.append(Flag(x, 28 + levels.index(level) * FLAG, text, anchor, mark.kind))
    return flags


def _band(down: Downtime, scale: Scale, now: datetime) -> Band:
    x, end = scale.x(down.start), scale.x(down.end or now)
    seconds = ((down.end or now) - down.start).total_seconds()
    text = f"guest off for {duration(seconds)}" + ("" if down.end else " until now")
    fits = x + (len(text) + 2) * LETTER < WIDTH
    return Band(x, max(end - x, 2.0), text, x if fits else end, "start" if fits else "end")


def _curve(samples: Iterable[Sample], scale: Scale, top: float) -> Curve:
    bottom = top + BYTES
    pieces: list[list[tuple[float, float, Sample]]] = []
    for sample in samples:
        if not pieces or sample.done < pieces[-1][-1][2].done:
            pieces.append([])  # The transfer was begun anew.
        pieces[-1].append((scale.x(sample.at), bottom - sample.share * BYTES, sample))
    last = pieces[-1][-1][2]
    return Curve(
        top=top,
        bottom=bottom,
        lines=[" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in piece) for piece in pieces],
        areas=[
            f"{piece[0][0]:.1f},{bottom} "
            + " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in piece)
            + f" {piece[-1][0]:.1f},{bottom}"
            for piece in pieces
        ],
        points=[
            (x, y, f"{size(sample.done)} of {size(sample.total)} ({percent(sample.share)})")
            for piece in pieces
            for x, y, sample in piece
        ],
        total=size(last.total),
    )
