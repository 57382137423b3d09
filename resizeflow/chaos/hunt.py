"""Lets the enumeration loose on each seeded fault: one that it does not catch is a hole in it."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resizeflow.chaos.laboratory import Laboratory, Result
from resizeflow.chaos.mutants import MUTANTS
from resizeflow.chaos.plan import Extent, first_words, run_from
from resizeflow.chaos.runner import work_folder


@dataclass(frozen=True)
class Catch:
    """A seeded fault, the case that showed it (None: it survived), and how many cases that took."""

    mutant: str
    by: Result | None
    cases: int


def hunt(mutants: Sequence[str], processes: int) -> Iterator[Catch]:
    """One after the other as they are caught, each in a process of its own, which the fault is seeded in."""
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(_hunt, mutants)


def _hunt(name: str) -> Catch:
    mutant, cases, folder = MUTANTS[name], 0, work_folder()
    try:
        # Built before the fault is seeded: the cases are those of the honest product.
        laboratories = {place: Laboratory(place, folder / place) for place in {place for place, _kind in mutant.where}}
        beginnings = [
            (laboratories[place], kind, first_words(kind, laboratories[place])) for place, kind in mutant.where
        ]
        mutant.seed()
        for laboratory, kind, beginning in beginnings:
            for words in beginning:
                for result in run_from(kind, laboratory, words, Extent()):
                    cases += 1
                    if result.wrong:
                        return Catch(name, result, cases)
        return Catch(name, None, cases)
    finally:
        shutil.rmtree(folder)
