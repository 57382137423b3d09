"""`resizeflow audit verify` and `head`: whether the log is what was written, and its signed end."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliff import columns
from cliff.formatters.table import TableFormatter

from resizeflow.commands.audit import WIDTH
from resizeflow.commands.base import Maybe, Moment, Shown, Telling, table
from resizeflow.commands.progress_bar import progress
from resizeflow.errors import LogBroken, UsageError

if TYPE_CHECKING:
    from resizeflow.audit.verify import Finding, Report

FINDING = ("log", "instance", "line", "time", "what", "found")


class AuditVerify(Telling):
    """Check that the log is what was written, and name what is not.

    Looks at every line of every log, at the ends of the logs and at the seals, with the audit key. It
    finds lines that were changed, removed, inserted, moved or cut off by who can write the database and
    does not have the key; with --head also an older database that was put back whole. What it cannot find
    is in docs/audit.md. Jobs may go on meanwhile. Exit code 0: all is what was written; 3: something is not.
    """

    example = """
resizeflow audit verify
resizeflow audit verify -f json
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

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        report = self._archive(parsed_args.archive) if parsed_args.archive else self._logs(parsed_args)
        self._found = [_row_of(finding) for finding in report.findings]
        if self._found and self.for_people(parsed_args):
            TableFormatter().emit_list(*table(self._found, FINDING), self.app.stdout, parsed_args)
        return self.told(
            "" if self._found else _summary(report),
            verified=not self._found,
            logs=report.logs,
            lines=report.lines,
            lines_without_key=report.plain,
            lines_pruned=report.pruned,
            seals=report.seals,
            logs_unsealed=report.unsealed,
            heads=report.heads,
            findings=[_plain(row) for row in self._found],
        )

    def _archive(self, file: Path) -> Report:
        from resizeflow.audit.archive import verify_archive  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.persistence.audit_key import AuditKey  # noqa: PLC0415 - as above

        with progress("archive", size_of(file)) as read:
            return verify_archive(file, AuditKey(self.backend.settings.audit_key_file), read)

    def _logs(self, parsed_args: argparse.Namespace) -> Report:
        from resizeflow.audit.heads import read_heads  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.audit.verify import rows_to_verify, verify  # noqa: PLC0415 - as above

        database, migration = self.backend.database, parsed_args.migration
        with database.read() as tx:
            if migration is not None:
                migration = tx.migrations.get(migration).id
            heads = read_heads(parsed_args.head, tx.audit_key) if parsed_args.head else []
        with progress("lines", rows_to_verify(database, migration)) as looked_at:
            return verify(database, migration=migration, heads=heads, progress=looked_at)

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        if self._found:
            logs = len({row["log"] for row in self._found})
            flaws = "1 flaw" if len(self._found) == 1 else f"{len(self._found)} flaws"
            where = f" in {logs} logs" if logs > 1 else ""
            raise LogBroken(f"The log is not what was written: {flaws}{where}.")
        return 0


def _row_of(finding: Finding) -> dict[str, Any]:
    return {
        "log": finding.log,
        "instance": Maybe(finding.instance),
        "line": Maybe(finding.flaw.seq or None),
        "time": Moment(finding.flaw.at),
        "what": str(finding.flaw.what),
        "found": Found(finding.flaw.found),
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """For programs."""
    return {
        name: cell.machine_readable() if isinstance(cell, columns.FormattableColumn) else cell
        for name, cell in row.items()
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


def size_of(file: Path) -> int:
    """Bytes; 0 if there is no such file, which whoever reads it says."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


class AuditHead(Telling):
    """Seal the log as it is, and write down where it ends, signed.

    Keep the line of JSON that it prints on another machine: with it `audit verify --head` finds also that
    the whole database was put back, or cut off at its end.
    """

    example = """
resizeflow audit head
resizeflow audit head --output /mnt/elsewhere/heads      (a line more with each run)
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--output", metavar="FILE", type=Path, help="append it to this file instead of printing it")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        from resizeflow.audit.heads import head_of, line_of  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.persistence.seals import seal_logs  # noqa: PLC0415 - as above

        seal_logs(self.backend.database, in_flight=True)
        with self.backend.database.read() as tx:
            head = head_of(tx)
        if parsed_args.output is not None:
            _append(parsed_args.output, line_of(head))
        return self.told("" if parsed_args.output else line_of(head), **asdict(head))

    def for_people(self, parsed_args: argparse.Namespace) -> bool:
        """The line is JSON, and in -f json must not become several, or it could not be kept."""
        return not parsed_args.columns and parsed_args.formatter in ("table", "json")


def _append(file: Path, line: str) -> None:
    try:
        with file.open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from None
