"""`resizeflow chaos`: kills workers on a simulated cloud, everywhere, and shows that nothing is lost."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resizeflow.chaos.kinds import KINDS, SINGLE
from resizeflow.commands.base import Lister, table
from resizeflow.errors import UsageError

if TYPE_CHECKING:
    from resizeflow.chaos.laboratory import Result

SHOWN = 10
"""So many cases with violations are told in full."""


class Chaos(Lister):
    """Kill workers at every point of every flow, on a simulated cloud, and judge what becomes of it.

    The points are discovered by dry runs: each effect on a host and each commit is one. After each case
    the job must be done, or everything exactly as before; every invariant of the doctor must hold; no
    copy of a disk may be deleted unless the other was looked at; no effect may come from a worker that
    had lost its lease. Nothing outside a folder of its own is touched.

    A case is known by its name, which `--case` runs again. Exit code 1 if anything is wrong.
    """

    example = """
resizeflow chaos                                   every single crash
resizeflow chaos --scenario resize --points 20     a sample of one scenario
resizeflow chaos --kind pairs --scenario small     every pair of kills of the smallest scenario
resizeflow chaos --case resize/kill@TransferDisks.transfer#1.after/rollback
resizeflow chaos --mutants                         are seeded faults caught?
resizeflow chaos --soak --duration 600             three workers, six machines, faults at random
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--scenario",
            action="append",
            metavar="NAME",
            help="only this one (may be repeated; default: all but `small`, which is for pairs); `--list` names them",
        )
        kinds = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
        parser.add_argument(
            "--kind",
            action="append",
            choices=list(KINDS),
            help=f"only this kind (may be repeated; default: {', '.join(SINGLE)}). {kinds}",
        )
        parser.add_argument("--points", type=int, metavar="N", help="at most N points of each scenario and kind")
        parser.add_argument("--pairs", type=int, metavar="N", help="with kind pairs: at most N second kills after each")
        parser.add_argument("--seed", type=int, default=0, help="of what is chosen at random (default: %(default)s)")
        parser.add_argument(
            "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="at once (default: %(default)s)"
        )
        parser.add_argument("--junit", type=Path, metavar="FILE", help="write all cases as JUnit XML")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--case", metavar="NAME", help="run one case")
        what.add_argument("--list", action="store_true", help="only list scenarios with their points")
        what.add_argument("--mutants", action="store_true", help="seed faults into the product: each must be caught")
        what.add_argument("--soak", action="store_true", help="several workers and machines, faults at random")
        parser.add_argument(
            "--duration", type=float, default=60.0, metavar="SECONDS", help="of the soak (default: %(default)s)"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        self._wrong = False
        if parsed_args.mutants:
            return self._mutants(parsed_args)
        if parsed_args.soak:
            return self._soak(parsed_args)
        return self._cases(parsed_args)

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        return int(self._wrong)

    # --- cases -------------------------------------------------------------------------------------------

    def _cases(self, parsed_args: argparse.Namespace) -> Any:
        from resizeflow.chaos.case import Case  # noqa: PLC0415 - not needed for help
        from resizeflow.chaos.plan import Extent  # noqa: PLC0415
        from resizeflow.chaos.report import Report  # noqa: PLC0415
        from resizeflow.chaos.runner import Runner  # noqa: PLC0415

        if parsed_args.case:
            case = Case.parse(parsed_args.case)
            with Runner(1) as runner:
                return self._one(runner.run_one(case))
        scenarios = _scenarios(parsed_args.scenario)
        extent = Extent(parsed_args.points, parsed_args.pairs, parsed_args.seed)
        began = time.monotonic()
        with Runner(parsed_args.processes) as runner:
            pieces = runner.plan(scenarios, parsed_args.kind or SINGLE, extent)
            report = Report(pieces)
            done = 0
            with _progress("cases", sum(len(piece.first) for piece in pieces)) as told:
                for piece in pieces if parsed_args.list else runner.run(pieces, extent):
                    report.add(piece)
                    done += len(piece.first)
                    told(done)
        if parsed_args.junit:
            report.write_junit(parsed_args.junit)
        lines = report.lines
        self._explain([result for line in lines for result in line.results if result.wrong])
        cases, minutes = sum(line.cases for line in lines), (time.monotonic() - began) / 60
        _say(f"{sum(line.points for line in lines)} points, {cases} cases, ", end="")
        _say(f"{sum(line.violations for line in lines)} violations, {minutes:.1f} minutes, seed {extent.seed}")
        names = ("scenario", "kind", "points", "cases", "violations", "never")
        return table(({name: getattr(line, name) for name in names} for line in lines), names)

    def _one(self, result: Result) -> Any:
        self._explain([result] if result.wrong else [])
        names = ("case", "happened", "violations", "seconds")
        return names, [(result.case.name, result.happened, len(result.wrong), round(result.seconds, 3))]

    def _explain(self, wrong: Sequence[Result]) -> None:
        self._wrong = bool(wrong)
        for result in wrong[:SHOWN]:
            _say(f"WRONG: resizeflow chaos --case '{result.case.name}'")
            for sentence in result.wrong:
                _say(f"    {sentence}")
            _say("\n".join(f"        {line}" for line in result.story.splitlines()))
        if len(wrong) > SHOWN:
            _say(f"... and {len(wrong) - SHOWN} more; --junit has all of them")

    # --- mutants and soak --------------------------------------------------------------------------------

    def _mutants(self, parsed_args: argparse.Namespace) -> Any:
        from resizeflow.chaos.hunt import hunt  # noqa: PLC0415
        from resizeflow.chaos.mutants import MUTANTS  # noqa: PLC0415

        rows = []
        with _progress("mutants", len(MUTANTS)) as told:
            for catch in hunt(list(MUTANTS), parsed_args.processes):
                self._wrong = self._wrong or catch.by is None
                by = (catch.by.case.name, catch.by.wrong[0]) if catch.by else ("SURVIVES", "")
                rows.append((catch.mutant, MUTANTS[catch.mutant].explained, catch.cases, *by))
                told(len(rows))
        caught = sum(row[3] != "SURVIVES" for row in rows)
        _say(f"{caught} of {len(rows)} mutants caught")
        return ("mutant", "fault", "cases", "caught_by", "because"), sorted(rows)

    def _soak(self, parsed_args: argparse.Namespace) -> Any:
        from resizeflow.chaos.runner import work_folder  # noqa: PLC0415
        from resizeflow.chaos.soak import Soak  # noqa: PLC0415

        folder = work_folder()
        try:
            with _progress("seconds", int(parsed_args.duration)) as told:
                outcome = Soak(folder, parsed_args.seed).run(parsed_args.duration, told)
        finally:
            shutil.rmtree(folder)
        self._wrong = bool(outcome.wrong)
        for sentence in outcome.wrong:
            _say(f"WRONG: {sentence}")
        _say(f"{len(outcome.wrong)} violations, {outcome.seconds:.0f} seconds, seed {outcome.seed}")
        return ("what", "times"), sorted(outcome.counts.items())


def _scenarios(names: Iterable[str] | None) -> list[str]:
    from resizeflow.chaos.scenarios import SCENARIOS, SMALL  # noqa: PLC0415

    if not names:
        return [name for name in SCENARIOS if name != SMALL]
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise UsageError(f"There is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}.")
    return list(names)


@contextmanager
def _progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, that is told how much is done; nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    from resizeflow.commands.console import Console  # noqa: PLC0415 - rich is not needed for help

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def _say(sentence: str, end: str = "\n") -> None:
    print(sentence, file=sys.stderr, end=end)
