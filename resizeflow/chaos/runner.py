"""Runs many cases, on all cores: each process keeps one warm laboratory and is given beginnings of cases."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from resizeflow.chaos.case import Case, sample
from resizeflow.chaos.laboratory import Laboratory, Result
from resizeflow.chaos.plan import Extent, Words, first_words, run_from

MEMORY = Path("/dev/shm")  # noqa: S108 - a kill of a process loses nothing there, and a sync costs nothing
AT_ONCE = 10
"""So many beginnings are one piece of work."""


def work_folder() -> Path:
    """A new folder for databases of which many are made: in memory where the machine has such a place."""
    return Path(tempfile.mkdtemp(prefix="resizeflow-chaos-", dir=MEMORY if MEMORY.is_dir() else None))


@dataclass(frozen=True)
class Piece:
    """Some cases of one kind and scenario."""

    scenario: str
    kind: str
    first: tuple[Words, ...]
    results: tuple[Result, ...] = ()


class Runner:
    """Processes that run cases; a context manager."""

    def __init__(self, processes: int) -> None:
        self._folder = work_folder()
        # A fork of this process has everything imported.
        fork = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(processes, mp_context=fork, initializer=_begin, initargs=(self._folder,))

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder)

    def plan(self, scenarios: Sequence[str], kinds: Sequence[str], extent: Extent) -> list[Piece]:
        """All there is to do: dry runs discover the points."""
        futures = [self._pool.submit(_discover, scenario, kind, extent) for scenario in scenarios for kind in kinds]
        return [piece for future in futures for piece in future.result()]

    def run(self, pieces: Sequence[Piece], extent: Extent) -> Iterator[Piece]:
        """The pieces with their results, as they come."""
        futures: list[Future[Piece]] = [self._pool.submit(_run, piece, extent) for piece in pieces]
        for future in as_completed(futures):
            yield future.result()

    def run_one(self, case: Case) -> Result:
        """One case, by its name."""
        return self._pool.submit(_run_one, case).result()


_folder = Path()
_laboratory: Laboratory | None = None


def _begin(folder: Path) -> None:
    global _folder  # noqa: PLW0603 - a process of the pool is for one runner
    _folder = folder


def _in(scenario: str) -> Laboratory:
    """This process's laboratory: the last one, or a new one in its place."""
    global _laboratory  # noqa: PLW0603
    if _laboratory is None or _laboratory.name != scenario:
        if _laboratory is not None:
            _laboratory.remove()
        folder = Path(tempfile.mkdtemp(prefix=f"{scenario}-", dir=_folder))
        _laboratory = Laboratory(scenario, folder)
    return _laboratory


def _discover(scenario: str, kind: str, extent: Extent) -> list[Piece]:
    first = first_words(kind, _in(scenario))
    if extent.points is not None:
        names = {"/".join(words): words for words in first}
        first = [names[name] for name in sample(extent.seed, Case(scenario, (kind,)), list(names), extent.points)]
    return [Piece(scenario, kind, tuple(first[i : i + AT_ONCE])) for i in range(0, len(first), AT_ONCE)]


def _run(piece: Piece, extent: Extent) -> Piece:
    laboratory = _in(piece.scenario)
    if all(words[-1].startswith("kill@") for words in piece.first):
        laboratory.go_ahead(piece.first)
    results = (result for words in piece.first for result in run_from(piece.kind, laboratory, words, extent))
    return Piece(piece.scenario, piece.kind, piece.first, tuple(results))


def _run_one(case: Case) -> Result:
    return _in(case.scenario).run(case)
