"""`resizeflow doctor`: whether records, hosts and Cinder agree, and what to do where they do not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lister, Maybe, Sentence
from resizeflow.commands.progress_bar import progress
from resizeflow.errors import NeedsAttention
from resizeflow.runbook import page_of_invariants

if TYPE_CHECKING:
    from resizeflow.doctor import Breach, Report
    from resizeflow.persistence.models import Job

COLUMNS = ("kind", "invariant", "subject", "found", "expected", "repair")


class Breached(NeedsAttention):
    """Invariants do not hold."""

    def __init__(self, sentence: str, breaches: Sequence[Breach]) -> None:
        super().__init__(sentence)
        self.page = page_of_invariants({breach.invariant for breach in breaches})


class Doctor(Lister):
    """Check that records, hosts and Cinder agree, and repair what is safe.

    Looks at the whole database, at every host and, if a machine has volumes, at Cinder, and lists what
    breaks an invariant (docs/doctor.md): what was found, what was expected, and what --repair does about
    it; "-" is left to people. Debts, and who does not answer, are listed as well, but are no breaches.
    Jobs may go on meanwhile. Exit code 0: no breach; 3: there are breaches.
    """

    example = """
resizeflow doctor
resizeflow doctor --repair
resizeflow doctor -f json
resizeflow doctor --after-restore      (once, after a backup of the database was restored)
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--repair", action="store_true", help="set records and volumes right and remove what was left"
        )
        what.add_argument(
            "--after-restore",
            action="store_true",
            help="first fence off whoever worked before the restoration, and stop all unfinished jobs",
        )

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        breaches, silent = self._report.breaches, ", ".join(sorted(self._report.silent))
        incomplete = f" Not examined: {silent}." if silent else ""
        if breaches:
            raise Breached(f"{_summary(breaches)}{incomplete}", breaches)
        if parsed_args.formatter == "table":
            self.app.stdout.write(f"Every invariant holds.{incomplete}\n")
        return 0

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from resizeflow.audit.verify import rows_to_verify  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.doctor import Doctor as Examiner  # noqa: PLC0415 - as above

        lines = rows_to_verify(self.backend.database)
        doctor = Examiner(self.backend.database, self.backend.settings, connections=self.backend.connections)
        who = f"doctor, says {os.environ.get('USER', 'unknown')}"
        before: tuple[Breach, ...] = ()
        if parsed_args.after_restore:
            doctor.after_restore(who)
        if parsed_args.repair:
            with progress("lines of logs", lines) as looked_at:
                before = doctor.repair(who, looked_at).breaches
            self._settle()
        with progress("lines of logs", lines) as looked_at:
            self._report = doctor.examine(looked_at)
        return COLUMNS, _rows(self._report, _repaired(before, self._report))

    def _settle(self) -> None:
        """Has debts settled on hosts that answer: by the workers that are up, else here."""
        from resizeflow.commands.follow import carry_out  # noqa: PLC0415 - TaskFlow is not needed for help
        from resizeflow.service import Submitted  # noqa: PLC0415 - as above
        from resizeflow.settlement import queue_settlements  # noqa: PLC0415 - as above

        queue_settlements(self.backend.database, self.backend.service.looks)
        for job in self._settlements():
            try:
                carry_out(self.backend, Submitted(job.migration_id, job.id), quiet=True)
            except NeedsAttention as error:
                self.app.stderr.write(f"{error}\n")

    def _settlements(self) -> Sequence[Job]:
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        from resizeflow.persistence.models import Job  # noqa: PLC0415 - as above
        from resizeflow.states import JobState  # noqa: PLC0415 - as above

        with self.backend.database.read() as tx:
            settling = sa.select(Job).where(Job.flow.startswith("settle"), Job.state == JobState.QUEUED)
            return tx.session.scalars(settling.order_by(Job.created_at)).all()


def _repaired(before: tuple[Breach, ...], report: Report) -> list[Breach]:
    left = {(breach.invariant, breach.subject) for breach in report.breaches}
    return [breach for breach in before if breach.repair and (breach.invariant, breach.subject) not in left]


def _rows(report: Report, repaired: Sequence[Breach]) -> list[tuple[Any, ...]]:
    rows = [("repaired", breach) for breach in repaired] + [("breach", breach) for breach in report.breaches]
    found = [
        (kind, Maybe(b.invariant), Sentence(b.subject), Sentence(b.found), Sentence(b.expected), Sentence(b.repair))
        for kind, b in rows
    ]
    debts = [("debt", debt.subject, debt.reason, debt.settled) for debt in report.debts]
    silent = [("not examined", place, reason, "an answer") for place, reason in sorted(report.silent.items())]
    return found + [
        (kind, Maybe(None), Sentence(subject), Sentence(reason), Sentence(expected), Sentence(None))
        for kind, subject, reason, expected in debts + silent
    ]


def _summary(breaches: Sequence[Breach]) -> str:
    twice = [breach for breach in breaches if breach.invariant == 1 and " and on " in breach.found]
    if twice:
        return " ".join(f"{breach.subject} {breach.found}: {breach.expected}." for breach in twice)
    safe = sum(breach.repair is not None for breach in breaches)
    counted = "1 breach" if len(breaches) == 1 else f"{len(breaches)} breaches"
    return (
        f"{counted}: `resizeflow doctor --repair` repairs {safe or 'none'} of them, a person must put right "
        f"{len(breaches) - safe or 'none'} (docs/doctor.md)."
    )
