"""`resizeflow report`: the whole of a migration as one page."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from resizeflow.commands.base import Shown, Telling
from resizeflow.errors import LogBroken, UsageError

if TYPE_CHECKING:
    from resizeflow.pages.report import Verified


class Report(Telling):
    """Write all that is known of a migration as one page for a browser.

    The file needs nothing else, no network and no program: who ran which task when, crashes, retries, the downtime of
    the guest, bytes over time, what was before and after, every line of the log, and whether the log verifies. It can
    be printed, mailed and archived. -f json has the same facts for programs, in place of the page; the lines of the
    log are in `migration history -f json`. A log that is not what was written is told there too, and by exit code 3.
    """

    example = """
resizeflow report 1a2b3c4d --html web-1.html
resizeflow report 1a2b3c4d --html > web-1.html
resizeflow report 1a2b3c4d -f json
"""
    _verified: Verified

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("migration", help="its id, or the beginning of it")
        parser.add_argument(
            "--html", nargs="?", const="-", metavar="FILE", help="where to; default or -: standard output"
        )

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        if self._verified.good is False:
            raise LogBroken(self._verified.text)
        return 0

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        from resizeflow.pages.facts import facts  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.pages.report import as_file, report_of  # noqa: PLC0415 - nor is Jinja2

        if not self.for_people(parsed_args) and parsed_args.html is not None:
            raise UsageError("--html is a page for people, -f and -c are for programs: give one of them.")
        report = report_of(self.backend.database, parsed_args.migration)
        self._verified = report.verified
        if not self.for_people(parsed_args):
            return self.told("", **facts(report))
        page = as_file(report, self.backend.database.clock.now())
        if parsed_args.html in (None, "-"):
            self.app.stdout.write(page)
        else:
            write_whole(Path(parsed_args.html), page)
        return self.told("")


def write_whole(path: Path, text: str) -> None:
    """Writes a file, or leaves it as it was. Raises UsageError."""
    beside = None
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        number, beside = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        Path(beside).replace(path)
    except OSError as error:
        if beside is not None:
            with contextlib.suppress(OSError):
                Path(beside).unlink()
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}. Name another file with --html."
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
