"""`resizeflow audit export` and `prune`: old lines go into archives, and out of the database."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from resizeflow.commands.audit import AGO, counted, progress
from resizeflow.commands.base import Command
from resizeflow.errors import UsageError

OFTEN = 1000
"""Records between two steps of the bar."""


class AuditExport(Command):
    """Write logs into an archive, as JSON lines that verify with the audit key alone.

    With --before those of migrations that were closed before that time, and the fleet's up to then; with
    --migration one of them; else everything. The database is left as it is: `audit prune` deletes what an
    archive has.
    """

    example = """
resizeflow audit export --before 90d --output /mnt/elsewhere/2026-11.jsonl
resizeflow audit export --migration 1a2b3c4d
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--before", metavar="TIME", help=AGO)
        what.add_argument("--migration", metavar="ID", help="its id, or the beginning of it")
        parser.add_argument("--output", metavar="FILE", type=Path, help="a new file; else it is printed")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from resizeflow.audit.archive import export  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.audit.moments import moment  # noqa: PLC0415 - as above
        from resizeflow.audit.verify import rows_to_verify  # noqa: PLC0415 - as above
        from resizeflow.persistence.seals import seal_logs  # noqa: PLC0415 - as above

        database = self.backend.database
        seal_logs(database)
        with database.read() as tx, progress("lines", rows_to_verify(database)) as written:
            before = moment(parsed_args.before, tx.now()) if parsed_args.before else None
            migration = tx.migrations.get(parsed_args.migration).id if parsed_args.migration else None
            lines = export(tx, before=before, migration=migration)
            if parsed_args.output is None:
                self.app.stdout.writelines(lines)
                return
            count = _write(parsed_args.output, lines, written)
        self.app.stdout.write(f"{parsed_args.output} has {counted(count, 'record')}.\n")


def _write(file: Path, lines: Iterable[str], written: Callable[[int], None]) -> int:
    """Makes a file: whole, or not at all. Raises UsageError if it cannot be made, or is there."""
    if file.exists():
        raise UsageError(f"{file} is there already, and may be the only one to have what was pruned: name a new file.")
    count, temporary = 0, None
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=f".{file.name}-", delete=False, encoding="utf-8"
        ) as out:
            temporary = Path(out.name)
            for line in lines:
                out.write(line)
                count += 1
                if count % OFTEN == 0:
                    written(OFTEN)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return count


class AuditPrune(Command):
    """Delete from the database what stands in an archive.

    Lines of migrations that were closed before that time, and of the fleet's log up to then: only if each
    of them stands in the archive, unchanged, which is verified first. What is left verifies. If it is
    interrupted, run it again.
    """

    example = "resizeflow audit prune --archive /mnt/elsewhere/2026-11.jsonl"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--archive", metavar="FILE", type=Path, required=True, help="what `audit export` wrote")
        parser.add_argument("--before", metavar="TIME", help=f"{AGO}; default: what it was exported with")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from resizeflow.audit.moments import moment  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.audit.prune import prune  # noqa: PLC0415 - as above
        from resizeflow.audit.verify import rows_to_verify  # noqa: PLC0415 - as above

        database = self.backend.database
        with database.read() as tx:
            before = moment(parsed_args.before, tx.now()) if parsed_args.before else None
        with progress("lines", rows_to_verify(database)) as looked_at:
            pruned = prune(database, parsed_args.archive, before=before, progress=looked_at)
        told = (
            f"{counted(pruned.lines, 'line')} of {counted(pruned.logs, 'log')} pruned: {parsed_args.archive} has them."
        )
        self.app.stdout.write(f"{told if pruned.lines else 'There is nothing to prune.'}\n")
