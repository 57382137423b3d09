"""The operator's command line: it parses, calls the use cases and prints. It has no rules of its own.

Nothing heavy is imported before a command runs: help and completion answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from cliff.app import App
from cliff.commandmanager import CommandManager

from resizeflow import __version__, runbook
from resizeflow.commands import COMMANDS, GROUPS
from resizeflow.commands.backend import Backend
from resizeflow.commands.visible import visible_streams
from resizeflow.errors import Interrupted, ResizeflowError, UsageError

DESCRIPTION = "Resize and cold-migrate libvirt machines. A resize that is interrupted is resumed or rolled back."
EXIT_CODES = """\
exit codes:
  0  done, or accepted with --detach      3  needs attention: a person must decide
  1  failed and rolled back               4  refused by a rule, nothing was changed
  2  wrong usage                          5  interrupted, the job is kept

`resizeflow COMMAND --help` explains a command with an example. `resizeflow migration list` shows what was done, and why
it was rolled back or stopped; `resizeflow runbook` what to do about it."""
BROKEN_PIPE = 141
"""What a shell shows for a program that ended by SIGPIPE."""


class LazyCommand:
    """A command that is imported when it is asked for: an entry point, as far as cliff looks."""

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def load(self) -> Any:
        module, _, attribute = self.value.partition(":")
        return getattr(importlib.import_module(module), attribute)


class HelpAction(argparse.Action):
    """`resizeflow --help`: the commands by what they are about, each with the first line of its description."""

    def __call__(self, parser: argparse.ArgumentParser, *_args: object, **_kwargs: object) -> None:
        show_help(parser)
        parser.exit()


class Resizeflow(App):
    """cliff's application without its interactive shell, its tracebacks and its plug-ins."""

    NAME = "resizeflow"

    def __init__(self) -> None:
        manager = CommandManager()
        super().__init__(description=DESCRIPTION, version=__version__, command_manager=manager)
        manager.commands.update({name: LazyCommand(name, value) for name, value in COMMANDS.items()})  # type: ignore[misc]
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """Settings, database and use cases, opened when a command first needs them."""
        if self._backend is None:
            self._backend = Backend(self.options.config_file)
        return self._backend

    def close(self) -> None:
        """Lets go of hosts."""
        if self._backend is not None:
            self._backend.close()

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 - cliff's signature
    ) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=self.NAME,
            usage="resizeflow [--config-file FILE] [--debug] COMMAND [ARGUMENT ...]",
            description=description,
            add_help=False,
            allow_abbrev=False,
        )
        parser.add_argument("-h", "--help", action=HelpAction, nargs=0, help="show this and exit")
        parser.add_argument("--version", action="version", version=f"{self.NAME} {version}")
        parser.add_argument(
            "--config-file",
            metavar="FILE",
            help="settings; else $RESIZEFLOW_CONFIG, ~/.config/resizeflow/resizeflow.conf, "
            "/etc/resizeflow/resizeflow.conf",
        )
        parser.add_argument("--debug", action="store_true", help="show tracebacks and the program's own log")
        parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        return parser

    def configure_logging(self) -> None:
        """The log is for `resizeflow worker` and `--debug`; other commands say what they have to say themselves."""
        handler = logging.StreamHandler(self.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO if self.options.debug else logging.CRITICAL)
        logging.getLogger("resizeflow").setLevel(logging.DEBUG if self.options.debug else logging.CRITICAL)

    def run(self, argv: list[str]) -> int:
        self.options = self.parser.parse_args(argv)
        self.configure_logging()
        words = self.options.command
        if words[:1] == ["help"]:
            words = [*words[1:], "--help"]
        if words == ["--help"]:
            show_help(self.parser)
            return 0
        if not words:
            show_help(self.parser, sys.stderr)
            return UsageError.exit_code
        if words[0] in GROUPS and words[0] not in COMMANDS and words[1:] in (["--help"], ["-h"]):
            show_group(words[0], sys.stdout)
            return 0
        return self.run_subcommand(words)

    def run_subcommand(self, argv: list[str]) -> int:
        try:
            factory, name, rest = self.command_manager.find_command(argv)
        except ValueError:
            raise UsageError(_unknown(argv)) from None
        command = factory(self, self.options, cmd_name=name)
        options = command.get_parser(f"{self.NAME} {name}").parse_args(rest)
        return command.run(options)


def _unknown(argv: Sequence[str]) -> str:
    words = [word for word in argv if not word.startswith("-")] or list(argv)
    if words[0] in GROUPS:
        verbs = ", ".join(name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{words[0]} "))
        return f"`resizeflow {words[0]}` needs one of: {verbs}."
    typed = " ".join(words[:2])
    close = [name for name in COMMANDS if words[0] in name.split()] or difflib.get_close_matches(typed, COMMANDS)
    meant = f"did you mean `resizeflow {'` or `resizeflow '.join(close[:3])}`? " if close else ""
    return f"There is no command {typed!r}; {meant}`resizeflow --help` lists them."


def show_help(parser: argparse.ArgumentParser, stream: Any = None) -> None:
    """The options, the commands by group, and the exit codes."""
    out = stream or sys.stdout
    parser.print_help(out)
    for group in GROUPS:
        out.write("\n")
        show_group(group, out)
    out.write(f"\n{EXIT_CODES}\n")


def show_group(group: str, out: Any) -> None:
    """What a group is about, and its commands, each with the first line of its description."""
    out.write(f"{GROUPS[group]}:\n")
    for name, value in COMMANDS.items():
        if name in group.split() or name.startswith(f"{group} "):
            summary = (LazyCommand(name, value).load().__doc__ or "").strip().splitlines()[0]
            out.write(f"  {name:<20}{summary.rstrip('.')}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; whatever goes wrong is one sentence and an exit code (resizeflow.errors)."""
    with visible_streams():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    app = Resizeflow()
    try:
        code = app.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Else the interpreter complains when it flushes what nobody reads any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except KeyboardInterrupt:
        sentence = "interrupted; `resizeflow migration list --open` shows what was accepted before"
        return _say(sentence, Interrupted.exit_code, runbook.PAGE_OF_ERROR["Interrupted"])
    except Exception as error:
        if getattr(getattr(app, "options", None), "debug", False):
            raise
        return _say(*_explained(error))
    finally:
        with contextlib.suppress(Exception):
            app.close()
    return code


def _explained(error: Exception) -> tuple[str, int, str]:
    """The sentence, the exit code, and the page of the runbook."""
    page = runbook.page_of(error)
    if isinstance(error, ResizeflowError):
        return str(error), error.exit_code, page
    name, text = type(error).__name__, " ".join(str(error).split())
    if name == "HostAway":
        # What could not even be asked was not begun.
        return f"{text}. Nothing was changed; try again when it is back.", 4, page
    if "sqlalchemy" in sys.modules:
        from resizeflow.persistence.database import AWAY, denied, in_short  # noqa: PLC0415 - is imported where it matters

        if denied(error):
            sentence = f"The role of [database] connection may not do this: {in_short(error)}. The tables' owner may."
            return sentence, UsageError.exit_code, runbook.PAGE_OF_ERROR["UsageError"]
        if isinstance(error, AWAY):
            return f"The database does not answer: {in_short(error)}.", 1, "database-away"
    return f"{name}: {text} (`resizeflow --debug ...` shows where)", 1, page


def _say(sentence: str, code: int, page: str) -> int:
    with contextlib.suppress(OSError):
        print(f"resizeflow: {sentence}\n  What to do: {runbook.command_for(page)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
