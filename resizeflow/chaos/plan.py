"""Which cases there are: made from the points that a scenario's own runs pass, never from a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from resizeflow.chaos.case import Case, sample
from resizeflow.chaos.laboratory import Laboratory, Result

Words = tuple[str, ...]


@dataclass(frozen=True)
class Extent:
    """How much of everything is tried."""

    points: int | None = None
    """At most so many first points of each scenario and kind; None: all."""
    pairs: int | None = None
    """For `pairs`: at most so many second kills after each first one; None: all."""
    seed: int = 0


def first_words(kind: str, laboratory: Laboratory) -> list[Words]:
    """The beginnings of all cases of a kind, each with what else happens before its (first) crash."""
    return list(FIRST[kind](laboratory))


def run_from(kind: str, laboratory: Laboratory, words: Words, extent: Extent) -> Iterator[Result]:
    """Runs the cases of a kind that begin with these words."""
    case = Case(laboratory.name, words)
    for ending in ENDINGS[kind]:
        result = laboratory.run(case.then(*ending))
        yield result
        if kind == "pairs" and result.happened:
            for point in sample(extent.seed, result.case, result.points, extent.pairs):
                yield laboratory.run(result.case.then(f"kill@{point}", "resume"))


def _kills(laboratory: Laboratory) -> Iterator[Words]:
    yield from ((f"kill@{point}",) for point in laboratory.points)


def _stops(laboratory: Laboratory) -> Iterator[Words]:
    yield from ((f"stop@{point}",) for point in laboratory.points)


def _failures(laboratory: Laboratory) -> Iterator[Words]:
    """Each effect refused once, each reply lost once; on the way back as well."""
    for point in [*laboratory.points, *_way_back(laboratory)]:
        turned = _turned(laboratory) if ".revert" in point else ()
        if point.endswith(".checked"):
            yield (*turned, f"fail@{point}")
        elif _is_act(point):
            yield (*turned, f"lose@{point}")


def _rollbacks(laboratory: Laboratory) -> Iterator[Words]:
    """A failure turns the flow back; a kill at every point of that."""
    for point in _way_back(laboratory):
        yield (*_turned(laboratory), f"kill@{point}")


def _is_act(point: str) -> bool:
    return point.endswith(".after") and "#" in point and ".commit." not in point


def _turned(laboratory: Laboratory) -> Words:
    return laboratory.way_back.case.words


def _way_back(laboratory: Laboratory) -> list[str]:
    return [point for point in laboratory.way_back.points if point not in laboratory.points]


FIRST: Mapping[str, Callable[[Laboratory], Iterator[Words]]] = {
    "kills": _kills,
    "failures": _failures,
    "rollbacks": _rollbacks,
    "stops": _stops,
    "reboots": _kills,
    "pairs": _kills,
}
ENDINGS: Mapping[str, tuple[Words, ...]] = {
    "kills": (("resume",), ("rollback",)),
    "failures": ((),),
    "rollbacks": (("resume",),),
    "stops": (("resume",), ("rollback",)),
    "reboots": (("reboot@h1",), ("reboot@h2",)),
    "pairs": (("resume",), ("rollback",)),
}
