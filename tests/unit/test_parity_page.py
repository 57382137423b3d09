"""docs/nova-parity.md: each rule, state, event, test and bug of Nova's has its row, and each test that a row names is
there. What Nova has is in tests/nova_names.py."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests import nova_names

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "nova-parity.md"
GENERATED = "Crash points"
"""The section whose tables tests/nova_crash_points.py writes."""
NOT_OFFERED = "Not offered"
"""The section whose rows have a reason in place of ours and a test."""
NO_TEST, REFUSED, LATER = "**no test**", "**not offered**", "**not yet**"
"""What a row without a test begins its last cell with, and goes on with the reason."""
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:\[[^]]*\])?`")


@dataclass(frozen=True)
class Row:
    """A row of a table: what Nova calls it, what we do, and the test that shows it."""

    section: str
    cells: tuple[str, ...]

    @property
    def kind(self) -> str:
        """How it is shown: a word for the count."""
        words = {NO_TEST: "without a test", REFUSED: "not offered", LATER: "not yet"}
        return next((kind for word, kind in words.items() if self.cells[-1].startswith(word)), "with a test")


def rows(text: str) -> list[Row]:
    """The tables' rows, without their heads."""
    found: list[Row] = []
    section, in_table = "", False
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        if not line.startswith("|"):
            in_table = False
        elif re.fullmatch(r"[|\s:-]+", line):
            in_table = True
        elif in_table:
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append(Row(section, tuple(cell.strip() for cell in cells)))
    return found


def wrong_in(row: Row) -> list[str]:
    """What is malformed in a row, in sentences."""
    if row.section == NOT_OFFERED:
        return [] if len(row.cells) == 2 and all(row.cells) else [f"{row.cells}: not two cells"]
    if len(row.cells) != 3 or not all(row.cells):
        return [f"{row.section}: {row.cells}: not Nova's name, ours, and the test"]
    shown, tests = row.cells[-1], TEST_ID.findall(row.cells[-1])
    wrong = [f"{row.cells[0]}: there is no test {file}::{name}" for file, name in tests if name not in defined_in(file)]
    if row.kind != "with a test" and len(shown.split()) < 4:
        wrong.append(f"{row.cells[0]}: no test, and no reason")
    if row.kind == "with a test" and not tests:
        wrong.append(f"{row.cells[0]}: {shown!r} names no test, and does not begin with {NO_TEST}")
    if "P*" in row.cells[0] and "defect absent" not in row.cells[1]:
        wrong.append(f"{row.cells[0]}: does not say which defect is absent")
    return wrong


@cache
def defined_in(file: str) -> frozenset[str]:
    """The names of the tests in a file."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def missing(section: str, names: Iterable[str], page: list[Row]) -> list[str]:
    """The names that no row of a section begins with or has in backquotes."""
    first = [row.cells[0] for row in page if row.section == section]
    return [
        name for name in names if not any(cell.startswith(f"{name}. ") or f"`{name}`" in cell for cell in first)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page() -> list[Row]:
    return [row for row in rows(PAGE.read_text(encoding="utf-8")) if row.section != GENERATED]


def test_every_row_is_whole_and_names_tests_that_are_there(page: list[Row]) -> None:
    assert [sentence for row in page for sentence in wrong_in(row)] == []


@pytest.mark.parametrize(("section", "names"), nova_names.SECTIONS.items())
def test_nothing_of_nova_s_is_left_out(page: list[Row], section: str, names: tuple[str, ...]) -> None:
    assert missing(section, names, page) == []
    assert len(set(names)) == len(names)


def test_tests_whose_defect_is_absent_are_marked(page: list[Row]) -> None:
    marked = " ".join(row.cells[0] for row in page if "P*" in row.cells[0])
    assert [name for name in nova_names.BROKEN_IN_NOVA if f"`{name}`" not in marked] == []


def test_the_page_counts_its_rows(page: list[Row]) -> None:
    count = Counter(row.kind for row in page if row.section != NOT_OFFERED)
    kinds = ("with a test", "without a test", "not offered", "not yet")
    line = f"{count.total()} rows: {', '.join(f'{count[kind]} {kind}' for kind in kinds)}."
    print(line)
    assert line in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("| `a` | b |", "not Nova's name, ours, and the test"),
        ("| `a` | b | c |", "names no test"),
        ("| `a` | b | `tests/unit/test_rules.py::test_nothing_of_the_kind` |", "there is no test"),
        ("| `a` | b | `tests/unit/test_nowhere.py::test_a_fault` |", "there is no test"),
        ("| `a` | b | **no test** |", "no reason"),
        ("| `a` (P*) | b | `tests/unit/test_rules.py::test_a_fault` |", "which defect is absent"),
    ],
)
def test_a_wrong_row_is_seen(row: str, told: str) -> None:
    (found,) = rows(f"## Rules\n\n| Nova | ours | shown by |\n|---|---|---|\n{row}")
    assert told in wrong_in(found)[0]


def test_a_missing_name_is_seen() -> None:
    found = rows("## Rules\n\n| Nova | ours | shown by |\n|---|---|---|\n| 1. one | x | y |\n| `two` | x | y |")
    assert missing("Rules", ("1", "two", "three", "2"), found) == ["three", "2"]
