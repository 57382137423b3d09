"""`resizeflow migration history`: what happened, as a story or line by line."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lister, table
from resizeflow.commands.event_row import row_of
from resizeflow.commands.migration import ID
from resizeflow.commands.visible import COLOURS, END
from resizeflow.errors import LogBroken, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resizeflow.audit.story import Story, Told
    from resizeflow.persistence.flaws import Flaw
    from resizeflow.persistence.models import Event
    from resizeflow.persistence.transaction import Transaction

SHOWN = ("seq", "time", "epoch", "worker", "task", "kind", "text")
REST = (
    "transition",
    "seconds",
    "outcome",
    "host",
    "error",
    "next_action",
    "asked_by",
    "asked_from",
    "request_id",
    "data",
    "chain",
)
WIDEST, NARROWEST = 110, 60
"""Characters to a line of a story, as far as the terminal has them; elsewhere it is 80."""
INDENT = 10
"""What stands before a line's text: its time."""
COMMAND = re.compile(r"`[^`]+`")


class MigrationHistory(Lister):
    """Tell what happened to a migration.

    In a line for each thing that matters: who asked, which workers died and took over, what was tried
    again, when the machine was off, how it stands and what to do. --events shows every line of its log;
    so do -c and the formats for programs, with all columns.

    Each line of the log is chained to the one before under a key outside the database. The command says
    whether the log is what was written; if not, somebody changed it, and the exit code is 3. On a
    machine without the key it says that it could not look.
    """

    example = """
resizeflow migration history 1a2b3c4d
resizeflow migration history 1a2b3c4d --events
resizeflow migration history 1a2b3c4d -f json
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("migration", help=ID)
        parser.add_argument("--events", action="store_true", help="line by line, as it is in the log")
        parser.add_argument("--last", type=int, default=0, metavar="N", help="show only the last N lines")

    def run(self, parsed_args: argparse.Namespace) -> int:
        whole = parsed_args.events or parsed_args.columns
        if parsed_args.formatter == "table" and not whole:
            self._tell(parsed_args)
        else:
            super().run(parsed_args)
        if self._flaw is not None:
            raise self._broken(self._flaw)
        if parsed_args.formatter == "table":
            pruned = f"{self._pruned}\n" if self._pruned else ""
            verified = "the chain verifies." if self._no_key is None else f"it was not verified. {self._no_key}"
            self.app.stdout.write(f"{pruned}{len(self._events)} lines in its log; {verified}\n")
        elif self._no_key is not None:
            self.app.stderr.write(f"resizeflow: the log was not verified. {self._no_key}\n")
        return 0

    @staticmethod
    def _broken(flaw: Flaw) -> LogBroken:
        return LogBroken(f"The log was changed: {flaw}.")

    def _read(self, migration: str) -> Story:
        from resizeflow.audit.prune import what_was_pruned  # noqa: PLC0415 - SQLAlchemy is not needed for help
        from resizeflow.audit.story import story  # noqa: PLC0415 - as above

        with self.backend.database.read() as tx:
            row = tx.migrations.get(migration)
            self._events: Sequence[Event] = tx.events.of(row.id)
            self._flaw, self._no_key = self._verified(tx, row.id)
            self._pruned = what_was_pruned(tx, row.id)
            try:
                return story(row, tx.jobs.of_migration(row.id), self._events)
            except (AttributeError, TypeError, ValueError):
                if self._flaw is None:
                    raise
                raise self._broken(self._flaw) from None  # What somebody wrote there cannot even be told.

    @staticmethod
    def _verified(tx: Transaction, log_id: str) -> tuple[Flaw | None, str | None]:
        """The first flaw of a log, or why it cannot be verified here: who has no key may read."""
        try:
            return tx.events.flaw(log_id), None
        except UsageError as error:
            return None, str(error)

    def _tell(self, parsed_args: argparse.Namespace) -> None:
        told = self._read(parsed_args.migration)
        colour = self.app.stdout.isatty()
        for line in _lines(told, max(parsed_args.last, 0), _width(), colour=colour):
            self.app.stdout.write(f"{line}\n")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        self._read(parsed_args.migration)
        rows = [row_of(event) for event in self._events[-max(parsed_args.last, 0) :]]
        wanted = {name.lower() for name in parsed_args.columns}
        every = parsed_args.formatter != "table" or wanted - set(SHOWN)
        return table(rows, (*SHOWN, *REST) if every else SHOWN)


def _width() -> int:
    return max(min(shutil.get_terminal_size().columns, WIDEST), NARROWEST)


def _lines(story: Story, last: int, width: int, *, colour: bool) -> Iterator[str]:
    yield from textwrap.wrap(story.title, width)
    day = None
    for line in story.lines[-last:]:
        at = line.at.astimezone()
        if at.date() != day:
            day = at.date()
            yield f"\n{at:%Y-%m-%d %Z}"
        yield from _line(line, f"{at:%H:%M:%S}", width, colour=colour)
    yield ""
    yield from textwrap.wrap(story.ending, width)
    if story.to_do:
        yield from _with_whole_commands(f"To do: {story.to_do}.", width, " " * len("To do: "))
    if story.workers:
        named = "; ".join(f"{letter} is {worker}" for letter, worker in story.workers.items())
        yield from textwrap.wrap(f"Workers: {named}.", width, subsequent_indent=" " * len("Workers: "))


def _with_whole_commands(text: str, width: int, indent: str) -> Iterator[str]:
    """Wraps a text, but no command in it: it is there to be copied."""
    glued = COMMAND.sub(lambda found: found[0].replace(" ", "\0"), text)
    for part in textwrap.wrap(glued, width, subsequent_indent=indent, break_long_words=False):
        yield part.replace("\0", " ")


def _line(line: Told, time: str, width: int, *, colour: bool) -> Iterator[str]:
    begin, end = (COLOURS.get(line.tone, ""), END) if colour and line.tone in COLOURS else ("", "")
    parts = textwrap.wrap(line.text, width - INDENT, break_long_words=False, break_on_hyphens=False)
    for number, part in enumerate(parts):
        yield f"{time if number == 0 else '':<{INDENT}}{begin}{part}{end}"
