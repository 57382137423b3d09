"""`resizeflow audit log`: a search over all that happened."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from cliff import columns

from resizeflow.commands.base import Lister, table
from resizeflow.commands.event_row import row_of
from resizeflow.errors import UsageError
from resizeflow.states import Outcome

if TYPE_CHECKING:
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
        from resizeflow.persistence.events import KINDS  # noqa: PLC0415 - as above

        if parsed_args.limit < 1:
            raise UsageError("--limit must be 1 or more.")
        if parsed_args.kind not in {None, *KINDS}:
            raise UsageError(f"There is no line of kind {parsed_args.kind!r}; there are {', '.join(sorted(KINDS))}.")
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
