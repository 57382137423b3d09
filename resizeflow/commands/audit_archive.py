"""`resizeflow audit export` and `prune`: old lines go into archives, and out of the database."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from resizeflow.commands.audit import AGO
from resizeflow.commands.audit_verify import counted, size_of
from resizeflow.commands.base import Shown, Telling
from resizeflow.commands.progress_bar import progress
from resizeflow.errors import UsageError
from resizeflow.files import sync_folder


class AuditExport(Telling):
    """Write logs into an archive, as JSON lines that verify with the audit key alone.

    With --before those of migrations that were closed before that time, and the fleet's up to then; with
    --migration one of them; else everything. The database is left as it is: `audit prune` deletes what an
    archive has. Without --output the archive itself is printed, whatever -f says.
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

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        from resizeflow.audit.archive import export, lines_to_export  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.audit.moments import moment  # noqa: PLC0415 - as above
        from resizeflow.persistence.seals import seal_logs  # noqa: PLC0415 - as above

        database, file = self.backend.database, parsed_args.output
        seal_logs(database)
        with database.read() as tx:
            before = moment(parsed_args.before, tx.now()) if parsed_args.before else None
            migration = tx.migrations.get(parsed_args.migration).id if parsed_args.migration else None
            lines = export(tx, before=before, migration=migration)
            if file is None:
                self.app.stdout.writelines(lines)
                return self.told("")
            with progress("lines", lines_to_export(tx, before=before, migration=migration)) as written:
                records, last = _write(file, lines, written)
        return self.told(f"{file} has {counted(records, 'record')}.", archive=str(file), **json.loads(last)["end"])

    def for_people(self, parsed_args: argparse.Namespace) -> bool:
        """An archive that is printed is all that is printed."""
        return parsed_args.output is None or super().for_people(parsed_args)


def _write(file: Path, lines: Iterable[str], written: Callable[[int], None]) -> tuple[int, str]:
    """Makes a file: whole, or not at all; how many lines it has, and the last one. Raises UsageError if it cannot be
    made, or is there."""
    _require_new(file)
    count, line, temporary = 0, "", None
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=f".{file.name}-", delete=False, encoding="utf-8"
        ) as out:
            temporary = Path(out.name)
            for count, line in enumerate(lines, 1):  # noqa: B007 - the last ones are the answer
                out.write(line)
                written(1)
            out.flush()
            os.fsync(out.fileno())
        _require_new(file)  # Another export may have made it meanwhile.
        temporary.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return count, line


def _require_new(file: Path) -> None:
    if file.exists():
        raise UsageError(f"{file} is there already, and may be the only one to have what was pruned: name a new file.")


class AuditPrune(Telling):
    """Delete from the database what stands in an archive.

    Lines of migrations that were closed before that time, and of the fleet's log up to then: only if each
    of them stands in the archive, unchanged, which is verified first. What is left verifies. If it is
    interrupted, run it again.
    """

    example = "resizeflow audit prune --archive /mnt/elsewhere/2026-11.jsonl"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--archive", metavar="FILE", type=Path, required=True, help="what `audit export` wrote")
        parser.add_argument("--before", metavar="TIME", help=f"{AGO}; default: what it was exported with")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        from resizeflow.audit.moments import moment  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.audit.prune import prune  # noqa: PLC0415 - as above

        database, file = self.backend.database, parsed_args.archive
        with database.read() as tx:
            before = moment(parsed_args.before, tx.now()) if parsed_args.before else None
        with progress("archive", 2 * size_of(file)) as read:
            pruned = prune(database, file, before=before, progress=read)
        done = f"{counted(pruned.lines, 'line')} of {counted(pruned.logs, 'log')} pruned: {file} has them."
        sentence = done if pruned.lines else "There is nothing to prune."
        return self.told(sentence, archive=str(file), logs=pruned.logs, lines=pruned.lines)
