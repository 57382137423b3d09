"""Somebody who has never seen the program finds out why a resize was rolled back: from `resizeflow --help`, by typing
nothing but what the command before has named. docs/first-resize.md describes the same way."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from resizeflow.cli import DESCRIPTION
from tests.console import Answer, Console
from tests.scenes import Fleet

NAMED = re.compile(r"(?:`|What to do: |\| )(resizeflow [^`|\n]+?) *(?:`|\||\n)")
"""How commands are named: in backquotes, after an error, and in a table's cell."""


@pytest.fixture
def console(tmp_path: Path) -> Console:
    """Where the resize of web-1 was rolled back, because h2 could not start it."""
    return Console(Fleet(tmp_path, "rolled back").cloud.folder / "resizeflow.conf")


class Newcomer:
    """Types what was named. What was typed is kept."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.way: list[str] = []
        self.seen = self._type("resizeflow --help")

    def follow(self, beginning: str) -> Answer:
        """Types the first command that the last answer named and that begins so."""
        named = [command for command in NAMED.findall(self.seen.out + self.seen.err) if command.startswith(beginning)]
        assert named, f"after {' → '.join(self.way)} nobody names {beginning}:\n{self.seen.out}"
        self.seen = self._type(named[0])
        return self.seen

    def _type(self, command: str) -> Answer:
        self.way.append(command)
        answer = self.console.type(*shlex.split(command)[1:])
        assert answer.code == 0, answer
        return answer


def test_from_the_help_to_the_reason_and_what_to_do(console: Console) -> None:
    newcomer = Newcomer(console)
    assert "rolled back" in DESCRIPTION
    assert "no such CPU" in newcomer.follow("resizeflow migration list").out
    shown = newcomer.follow("resizeflow migration show").out
    assert re.search(r"\| error +\| h2: no such CPU +\|", shown)
    page = newcomer.follow("resizeflow runbook").out
    assert page.startswith("# It was rolled back")
    assert [command.split()[1:3] for command in newcomer.way[1:]] == [
        ["migration", "list"],
        ["migration", "show"],
        ["runbook", "rolled-back"],
    ]


def test_from_the_list_to_the_story(console: Console) -> None:
    newcomer = Newcomer(console)
    newcomer.follow("resizeflow migration list")
    told = newcomer.follow("resizeflow migration history").out
    assert re.search(r"StartDestination .*no such CPU", told)
    assert "the disks are copied" in told
    assert "web-1 runs again, on h1" in told


def test_from_the_machine_to_its_migrations(console: Console) -> None:
    newcomer = Newcomer(console)
    newcomer.seen = newcomer._type("resizeflow instance show web-1")
    assert "no such CPU" in newcomer.follow("resizeflow migration list").out


def test_from_the_failed_command_itself(console: Console, tmp_path: Path) -> None:
    failed = console.type("confirm", "web-1")
    (page,) = re.findall(r"What to do: (resizeflow runbook \S+)", failed.err)
    newcomer = Newcomer(console)
    newcomer.seen = newcomer._type(page)
    assert "migration list" in newcomer.seen.out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("history", "did you mean `resizeflow migration history`?"),
        ("migraton list", "did you mean `resizeflow migration list`"),
        ("fly", "There is no command 'fly'; `resizeflow --help`"),
    ],
)
def test_a_command_that_was_guessed(console: Console, typed: str, meant: str) -> None:
    console.type(*typed.split()).refused(2, meant)


def test_a_list_of_nothing_gives_no_hint(tmp_path: Path) -> None:
    console = Console(Fleet(tmp_path, "at rest").cloud.folder / "resizeflow.conf")
    assert "migration show" not in console.type("migration", "list").out
