"""What the commands share: help with an example, access to the backend, cliff's formatters."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cliff import columns, command, lister, show

from resizeflow.commands.backend import Backend
from resizeflow.errors import UsageError

WIDTH = 34
"""Characters to a line of a sentence in a table's cell."""


Shown = tuple[tuple[str, ...], tuple[Any, ...]]
"""What one thing is shown by: names, and their values."""


class Common(command.Command):
    """A command of ours. The docstring is its help, `example` what follows."""

    example = ""

    @property
    def backend(self) -> Backend:
        """The application's own, made when a command first needs it."""
        application: Any = self.app
        backend: Backend = application.backend
        return backend

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's arguments."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.allow_abbrev = False
        self.arguments(parser)
        return parser

    def get_epilog(self) -> str:
        lines = "\n".join(f"  {line}" for line in self.example.strip().splitlines())
        return f"example:\n{lines}" if lines else ""

    def _load_hooks(self) -> None:
        # cliff would look for plug-ins of each command in all installed packages.
        self._hooks = []


class Command(Common):
    """A command that prints for itself."""


class Lister(Common, lister.Lister):
    """A command that prints a table."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Sequence[Any]]
    ) -> int:
        require_columns(parsed_args, column_names)
        return super().produce_output(parsed_args, column_names, data)


class ShowOne(Common, show.ShowOne):
    """A command that prints one thing."""

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]) -> int:
        require_columns(parsed_args, column_names)
        return super().produce_output(parsed_args, column_names, data)


class Telling(ShowOne):
    """A command that tells people in a sentence what it did; in all other formats, and with -c, it shows values."""

    _sentence = ""

    def told(self, sentence: str, **values: Any) -> Shown:
        """What `take_action` returns; values are those of JSON."""
        self._sentence = sentence
        return one({name: _cell(value) for name, value in values.items()})

    def for_people(self, parsed_args: argparse.Namespace) -> bool:
        """Whether the sentence is wanted."""
        return parsed_args.formatter == "table" and not parsed_args.columns

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]) -> int:
        if not self.for_people(parsed_args):
            return super().produce_output(parsed_args, column_names, data)
        if self._sentence:
            self.app.stdout.write(f"{self._sentence}\n")
        return 0


def require_columns(parsed_args: argparse.Namespace, names: Sequence[str]) -> None:
    """Raises UsageError for columns that are asked for and not among them."""
    if unknown := [name for name in parsed_args.columns if name.lower().strip().replace(" ", "_") not in names]:
        raise UsageError(f"There is no column {', '.join(unknown)}; there are {', '.join(names)}.")


def table(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    """What a Lister returns for rows of named values."""
    return names, [tuple(row[name] for name in names) for row in rows]


def one(row: Mapping[str, Any]) -> Shown:
    """What a ShowOne returns."""
    return tuple(row), tuple(row.values())


class ShortId(columns.FormattableColumn[str]):
    """An id: whole for machines, its beginning for people (commands take either)."""

    def human_readable(self) -> str:
        return self._value[:8]


class Moment(columns.FormattableColumn[Any]):
    """A time: ISO 8601 in UTC for machines, local time for people, empty if it has not come."""

    def __init__(self, value: datetime | None) -> None:
        super().__init__(value.isoformat() if value else None)
        self._moment = value

    def human_readable(self) -> str:
        return f"{self._moment.astimezone():%Y-%m-%d %H:%M:%S}" if self._moment else ""


class Maybe(columns.FormattableColumn[Any]):
    """A value that may be missing: null for machines, a dash for people."""

    def human_readable(self) -> str:
        return "-" if self._value is None else str(self._value)


class Sentence(columns.FormattableColumn[Any]):
    """A text that may be missing: whole or null for machines, in short lines or a dash for people."""

    def human_readable(self) -> str:
        return textwrap.fill(self._value, WIDTH) if self._value else "-"


class Lines(columns.FormattableColumn[Any]):
    """A mapping or list: structured for machines, one line each for people, without what is None."""

    def human_readable(self) -> str:
        if isinstance(self._value, Mapping):
            return "\n".join(f"{key}: {value}" for key, value in self._value.items())
        return "\n".join(
            ", ".join(f"{key} {value}" for key, value in item.items() if value is not None)
            if isinstance(item, Mapping)
            else str(item)
            for item in self._value
        )


def _cell(value: Any) -> Any:
    if isinstance(value, list | Mapping):
        return Lines(value)
    return Maybe(None) if value is None else value
