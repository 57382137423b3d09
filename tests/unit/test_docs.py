"""The docs: every command in them can be typed, and does what the page says; every link leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lab.__main__ import _parser as lab_parser
from resizeflow.cli import Resizeflow
from resizeflow.commands import COMMANDS
from tests.console import Console
from tests.documented import OTHERS, PAGES, ROOT, Block, blocks
from tests.scenes import SCENES, Fleet
from tests.spread import spread

INDENTED = re.compile(r"^ {4,}(?:[A-Z_]+=\S+ )?([\w./-]+)(?=\s)", re.MULTILINE)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
OURS = re.compile(r"(?:\S+/)?resizeflow")
"""The program, wherever it is installed."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def documented() -> Iterator[tuple[Path, Block]]:
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            yield page, block


@cache
def application() -> Resizeflow:
    return Resizeflow()


def parse(words: tuple[str, ...]) -> None:
    """Raises SystemExit, or ValueError, if the program does not know a command like this."""
    program, *rest = words
    if OURS.fullmatch(program):
        app = application()
        options = app.parser.parse_args(rest)
        if options.command:
            factory, name, arguments = app.command_manager.find_command(options.command)
            factory(app, options, cmd_name=name).get_parser(name).parse_args(arguments)
    elif words[:3] == ("python", "-m", "lab"):
        lab_parser().parse_args(words[3:])
    elif "/" in program and (ROOT / program).is_file():
        return
    elif program.rpartition("/")[2] not in OTHERS:
        raise ValueError(f"{program}: put it into OTHERS of tests/documented.py, with the reason why it is not run")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_can_be_typed(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        assert block.commands, f"{named(page)}:{block.line} has no command"
        for words in block.commands:
            try:
                parse(words)
            except (SystemExit, ValueError) as error:
                if str(error) == "0":  # --help and --version
                    continue
                pytest.fail(f"{named(page)}:{block.line}: {' '.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_command_escapes(page: Path) -> None:
    """Commands are in console blocks, where they are found."""
    text = page.read_text(encoding="utf-8")
    programs = {"resizeflow", *OTHERS, "python"}
    assert [word for word in INDENTED.findall(text) if word in programs or word.startswith("scripts/")] == []
    outside = [kind for kind in re.findall(r"^ *```(\w*)\n(?=[$#] )", text, re.MULTILINE) if kind != "console"]
    assert outside == []


RUN = [page for page in PAGES if any(block.not_run is None for block in blocks(page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("page", spread(RUN, 4, pytest.mark.slow), ids=named)
def test_the_commands_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    fleet: Fleet | None = None
    for number, block in enumerate(blocks(page.read_text(encoding="utf-8"))):
        if fleet is None or block.scene:
            folder = tmp_path / str(number)
            folder.mkdir()
            fleet = Fleet(folder, block.scene or "at rest")
        if block.not_run is not None:
            continue
        console = Console(fleet.cloud.folder / "resizeflow.conf")
        ours = [words[1:] for words in block.commands if OURS.fullmatch(words[0])]
        for position, words in enumerate(ours):
            answer = console.type(*fleet.typed(words))
            wanted = block.exit_code if position == len(ours) - 1 else 0
            assert answer.code == wanted, f"{named(page)}:{block.line}: {' '.join(words)}\n{answer.out}{answer.err}"
    if page.parent.name == "runbook" and page.stem != "log-broken":  # what was forged stays so
        healthy = console.type("doctor")
        assert healthy.code == 0, f"{named(page)} leaves breaches:\n{healthy.out}{healthy.err}"


def test_what_is_said_of_blocks_is_understood() -> None:
    said = re.compile(r"<!-- (?:exit \d|not run: \S.*|fleet: (.*)) -->")
    for page in PAGES:
        for comment in re.findall(r"<!--.*?-->(?=\n(?: *<!--.*-->\n)* *```console)", page.read_text(encoding="utf-8")):
            match = said.fullmatch(comment)
            assert match, f"{named(page)}: {comment}"
            assert match[1] is None or match[1] in SCENES, f"{named(page)}: {comment}"


def test_every_program_that_is_not_run_is_in_the_docs() -> None:
    typed = {words[0].rpartition("/")[2] for _, block in documented() for words in block.commands}
    assert sorted(set(OTHERS) - typed) == []


def test_every_command_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`{name}" not in text and name not in ("chaos", "migration cancel")] == []


@cache
def anchors(page: Path) -> frozenset[str]:
    """The headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{named(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{named(page)}: {link}"
