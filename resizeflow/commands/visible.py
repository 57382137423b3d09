"""Names and errors come from others, who may put into them what commands a terminal: it is shown instead of done."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

COLOURS = {"good": "\x1b[32m", "warning": "\x1b[33m", "bad": "\x1b[31m"}
END = "\x1b[0m"
"""What we write of it ourselves, but for rich (commands/console.py)."""
_COMMANDS = re.compile(r"(?!\x1b\[(?:0|31|32|33)m)[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of writing (CVE-2021-42574); not a new line, and not a tab."""


def visible(text: str) -> str:
    """`\\x1b` where an escape character was."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Visible:
    """A terminal to which only what is visible is written."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    def write(self, text: str) -> int:
        return self.terminal.write(visible(text))

    def writelines(self, lines: Iterator[str]) -> None:
        self.terminal.writelines(map(visible, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


@contextlib.contextmanager
def visible_streams() -> Iterator[None]:
    """Standard output and standard error, as far as they are terminals; what is piped is as it is."""
    with contextlib.ExitStack() as stack:
        if sys.stdout and sys.stdout.isatty():
            stack.enter_context(contextlib.redirect_stdout(cast("TextIO", Visible(sys.stdout))))
        if sys.stderr and sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(cast("TextIO", Visible(sys.stderr))))
        yield
