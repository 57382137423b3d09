"""How far a transfer is, how fast it goes, and when it will be there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from resizeflow.persistence.models import Event

WINDOW = 20.0
"""Seconds whose bytes make the rate, as far as there are samples in them."""


@dataclass(frozen=True)
class Sample:
    """So many bytes of `total` were there at a moment."""

    at: datetime
    done: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done / self.total if self.total else 0.0


@dataclass(frozen=True)
class Pace:
    """Bytes, bytes per second, and seconds; None where nothing can be said yet."""

    done: int
    total: int
    rate: float | None
    seconds_left: float | None

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done / self.total if self.total else 0.0


def samples_of(events: Iterable[Event]) -> list[Sample]:
    """What the lines of a log say of bytes, in their order: each tenth, and how much was there at a take-over."""
    found = [
        (event.kind, Sample(event.at, int(event.data["bytes_done"]), int(event.data["bytes_total"])))
        for event in events
        if event.data.get("bytes_total")
    ]
    return [sample for kind, sample in found if kind == "transfer" or sample.done < sample.total]


def pace(samples: Sequence[Sample]) -> Pace | None:
    """How it goes, from samples in the order of time, of which the last one is of now. None without any."""
    if not samples:
        return None
    now = samples[-1]
    began = len(samples) - 1
    # Back to the last sample that is older than the window, and never over a transfer that was begun anew.
    while began and samples[began - 1].done <= samples[began].done:
        began -= 1
        if (now.at - samples[began].at).total_seconds() >= WINDOW:
            break
    seconds = (now.at - samples[began].at).total_seconds()
    rate = (now.done - samples[began].done) / seconds if seconds > 0 else None
    left = (now.total - now.done) / rate if rate else None
    return Pace(now.done, now.total, rate, left)


def size(count: float) -> str:
    """Bytes for people: `480 MiB`, `12.5 GiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 10 * 2**30 else f"{count / 2**20:.0f} MiB"


def percent(share: float) -> str:
    """A part of a whole for people: `41 %`."""
    return f"{share * 100:.0f} %"


def duration(seconds: float) -> str:
    """Seconds for people, in their two largest units: `12 ms`, `0.3 s`, `42 s`, `3 min 20 s`, `3 d 4 h`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name} {rest} {smaller}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"
