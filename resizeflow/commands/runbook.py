"""`resizeflow runbook`: what to do about each error and alarm."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any

from resizeflow import runbook
from resizeflow.commands.base import Lister
from resizeflow.errors import NotFound

COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE)
"""What a page says to the tests that run its commands."""
LINK = re.compile(r"\[[^]]*\]\(\.\./\.\./([^)]*)\)")
"""To another file of the repository."""

EXAMPLES = """
---

In the commands `web-1`, `h1`, `h2`, `medium` and `1a2b3c4d` stand for your machine, its hosts, a flavor and the
migration's id.
"""
"""What a reader has to know of every page."""


class Runbook(Lister):
    """Show what to do about an error or an alarm.

    Without a page: the list of all pages. An error that a command ends with names its page, and so do
    `migration show` and `doctor`.
    """

    example = """
resizeflow runbook
resizeflow runbook no-valid-host
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("page", nargs="?", help="the page to show, as an error names it")

    def run(self, parsed_args: argparse.Namespace) -> int:
        if parsed_args.page is None or parsed_args.formatter != "table":
            return int(super().run(parsed_args))
        self._show(_text_of(parsed_args.page))
        return 0

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        pages, page = runbook.pages(), parsed_args.page
        if page is None:
            return ("page", "about"), list(pages.items())
        text = _text_of(page)
        return ("page", "about", "text"), [(page, pages[page], text)]

    def _show(self, text: str) -> None:
        if not self.app.stdout.isatty():
            self.app.stdout.write(text)
            return
        from rich.markdown import Markdown  # noqa: PLC0415 - rich is not needed for help

        from resizeflow.commands.console import Console  # noqa: PLC0415 - as above

        Console(file=self.app.stdout).print(Markdown(text, hyperlinks=False))


def _text_of(page: str) -> str:
    names = runbook.pages()
    if page not in names:
        close = " or ".join(difflib.get_close_matches(page, names))
        meant = f"did you mean {close}? " if close else ""
        raise NotFound(f"There is no page {page!r} in the runbook: {meant}`resizeflow runbook` lists them.")
    return as_text(runbook.text_of(page)) + EXAMPLES


def as_text(page: str) -> str:
    """A page without what is for machines: links are the names of what they lead to."""
    return LINK.sub(r"\1", COMMENT.sub("", page))
