"""`resizeflow audit`: the log of everything, whether it is what was written, and its signed end."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliff import columns

from resizeflow.commands.base import Command, Lister, Maybe, Moment, table
from resizeflow.commands.event_row import row_of
from resizeflow.commands.migration import LogBroken
from resizeflow.errors import UsageError
from resizeflow.states import Outcome

if TYPE_CHECKING:
    from resizeflow.audit.verify import Finding, Report
    from resizeflow.persistence.models import Event

SHOWN = ("time", "instance", "migration", "task", "kind", "outcome", "text")
REST = (
    "error",
    "next_action",
    "transition",
    "seconds",
    "host",
    "project",
    "asked_by",
    "asked_from",
    "request_id",
    "worker",
    "epoch",
    "seq",
    "instance_id",
    "data",
    "chain",
)
WIDTH = 64
"""Characters to a line of what happened."""
AGO = "ISO 8601, local time unless it has a zone, or 2h, 3d, 4w: so long ago"


class Told(columns.FormattableColumn[Any]):
    """What happened: the text for machines; for people in short lines, with the error and what to do about it."""

    def __init__(self, line: Event) -> None:
        super().__init__(line.text)
        self._line = line

    def human_readable(self) -> str:
        line = self._line
        error = line.error if line.error != line.text else None
        parts = (line.text, error, line.next_action and f"To do: {line.next_action}")
        return "\n".join(textwrap.fill(part, WIDTH) for part in parts if part)


class AuditLog(Lister):
    """Search all that happened, the latest last.

    Lines of all migrations, and of commands that are about none. Filters are combined; without any the
    latest lines are shown. -f json, csv and the like have all columns, and so has -c.
    """

    example = """
resizeflow audit log --since 2h --outcome failed
resizeflow audit log --instance web-1 --text timeout
resizeflow audit log --user alice --since 2026-11-01 --until 2026-12-01 -f csv
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--instance", metavar="I", help="a machine's name or UUID, also of one managed no more")
        parser.add_argument("--host", metavar="H", help="a host's name")
        parser.add_argument("--project", metavar="P", help="a project's id")
        parser.add_argument("--user", metavar="U", help="who asked")
        parser.add_argument("--since", metavar="TIME", help=f"from then on; {AGO}")
        parser.add_argument("--until", metavar="TIME", help="up to then")
        outcomes = [str(outcome) for outcome in Outcome]
        parser.add_argument("--outcome", choices=outcomes, metavar="O", help=f"one of {', '.join(outcomes)}")
        parser.add_argument("--kind", metavar="K", help="what the line is about: task, effect, state, command, ...")
        parser.add_argument("--text", metavar="WORDS", help="in the text or the error; looks at every line")
        parser.add_argument("--migration", metavar="ID", help='its id, or the beginning of it; "fleet": of none')
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="so many lines; default: %(default)s")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from resizeflow.audit.moments import moment  # noqa: PLC0415 - not needed for help
        from resizeflow.audit.search import Filters, search  # noqa: PLC0415 - SQLAlchemy is not needed for help

        if parsed_args.limit < 1:
            raise UsageError("--limit must be 1 or more.")
        with self.backend.database.read() as tx:
            log_id = parsed_args.migration
            wanted = Filters(
                instance=parsed_args.instance,
                host=parsed_args.host,
                project=parsed_args.project,
                user=parsed_args.user,
                since=moment(parsed_args.since, tx.now()) if parsed_args.since else None,
                until=moment(parsed_args.until, tx.now()) if parsed_args.until else None,
                outcome=Outcome(parsed_args.outcome) if parsed_args.outcome else None,
                kind=parsed_args.kind,
                text=parsed_args.text,
                migration=tx.migrations.get(log_id).id if log_id not in (None, "fleet") else log_id,
            )
            lines = search(tx, wanted, parsed_args.limit)
        self._found = len(lines)
        whole = parsed_args.formatter != "table" or parsed_args.columns
        return table(
            [row_of(line) | {"text": Told(line)} for line in reversed(lines)], (*SHOWN, *REST) if whole else SHOWN
        )

    def run(self, parsed_args: argparse.Namespace) -> int:
        code: int = super().run(parsed_args)
        if parsed_args.formatter == "table":
            more = f"The latest {self._found} lines; --limit shows more, --until older ones.\n"
            hints = {0: "No line fits.\n", parsed_args.limit: more}
            self.app.stdout.write(hints.get(self._found, ""))
        return code


class AuditVerify(Lister):
    """Check that the log is what was written, and name what is not.

    Looks at every line of every log, at the ends of the logs and at the seals, with the audit key. It
    finds lines that were changed, removed, inserted, moved or cut off by who can write the database and
    does not have the key; with --head also an older database that was put back whole. What it cannot find
    is in docs/audit.md. Jobs may go on meanwhile. Exit code 0: all is what was written; 3: something is not.
    """

    example = """
resizeflow audit verify
resizeflow audit verify --head /mnt/elsewhere/heads
resizeflow audit verify --migration 1a2b3c4d
resizeflow audit verify --archive /mnt/elsewhere/2026-11.jsonl
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--migration", metavar="ID", help="only this one's log; its id, or the beginning of it")
        what.add_argument("--head", metavar="FILE", type=Path, help="heads that `audit head` wrote: the log has them")
        what.add_argument(
            "--archive", metavar="FILE", type=Path, help="this archive, with the key alone: no database is needed"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        self._report, rows = self._verified(parsed_args)
        return table(rows, ("log", "instance", "line", "time", "what", "found"))

    def _verified(self, parsed_args: argparse.Namespace) -> tuple[Report, list[dict[str, Any]]]:
        from resizeflow.audit.archive import verify_archive  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.audit.heads import read_heads  # noqa: PLC0415 - as above
        from resizeflow.audit.verify import rows_to_verify, verify  # noqa: PLC0415 - as above
        from resizeflow.persistence.audit_key import AuditKey  # noqa: PLC0415 - as above

        if parsed_args.archive is not None:
            report = verify_archive(parsed_args.archive, AuditKey(self.backend.settings.audit_key_file))
            return report, [_finding(finding) for finding in report.findings]
        database, migration = self.backend.database, parsed_args.migration
        with database.read() as tx:
            if migration is not None:
                migration = tx.migrations.get(migration).id
            heads = read_heads(parsed_args.head, tx.audit_key) if parsed_args.head else []
        with progress("lines", rows_to_verify(database)) as looked_at:
            report = verify(database, migration=migration, heads=heads, progress=looked_at)
        return report, [_finding(finding) for finding in report.findings]

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        found = self._report.findings
        if found:
            logs = len({finding.log for finding in found})
            flaws = "1 flaw" if len(found) == 1 else f"{len(found)} flaws"
            where = f" in {logs} logs" if logs > 1 else ""
            raise LogBroken(f"The log is not what was written: {flaws}{where}.")
        if parsed_args.formatter == "table":
            self.app.stdout.write(f"{_summary(self._report)}\n")
        return 0


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "log": finding.log,
        "instance": Maybe(finding.instance),
        "line": Maybe(finding.flaw.seq or None),
        "time": Moment(finding.flaw.at),
        "what": str(finding.flaw.what),
        "found": Found(finding.flaw.found),
    }


class Found(columns.FormattableColumn[str]):
    """A sentence: whole for machines, in short lines for people."""

    def human_readable(self) -> str:
        return textwrap.fill(self._value, WIDTH)


def _summary(report: Report) -> str:
    sentences = [
        f"{counted(report.logs, 'log')} of {counted(report.lines, 'line')} and {counted(report.seals, 'seal')}: "
        "all is what was written."
    ]
    if report.plain:
        sentences.append(
            f"{counted(report.plain, 'line')} of them {'is' if report.plain == 1 else 'are'} from before schema 0006, "
            "chained by hashes that anybody can compute: they are as they were at the upgrade, and nothing shows "
            "whether they were changed before."
        )
    if report.pruned:
        sentences.append(f"{counted(report.pruned, 'line')} more went into archives and were pruned.")
    if report.unsealed:
        sentences.append(f"{counted(report.unsealed, 'log')} of closed migrations not sealed yet: a worker does it.")
    return "\n".join(sentences)


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


class AuditHead(Command):
    """Seal the log as it is, and write down where it ends, signed.

    Keep the line that it prints on another machine: with it `audit verify --head` finds also that the
    whole database was put back, or cut off at its end.
    """

    example = """
resizeflow audit head
resizeflow audit head --output /mnt/elsewhere/heads      (a line more with each run)
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--output", metavar="FILE", type=Path, help="append it to this file instead of printing it")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from resizeflow.audit.heads import head_of, line_of  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.persistence.seals import seal_logs  # noqa: PLC0415 - as above

        seal_logs(self.backend.database, in_flight=True)
        with self.backend.database.read() as tx:
            line = line_of(head_of(tx))
        if parsed_args.output is None:
            self.app.stdout.write(f"{line}\n")
            return
        try:
            with parsed_args.output.open("a", encoding="utf-8") as out:
                out.write(f"{line}\n")
        except OSError as error:
            raise UsageError(f"{parsed_args.output} cannot be written: {error.strerror}.") from None


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, that is told how much more is done; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console  # noqa: PLC0415 - not needed for help
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    shown = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)
