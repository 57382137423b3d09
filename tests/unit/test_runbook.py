"""The runbook: every error, every reason of a job and every kind of debt leads to a page, which speaks of it; the pages
are of one form; and whatever goes wrong on the command line names its page."""

from __future__ import annotations

import ast
import importlib
import io
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import resizeflow
from resizeflow import runbook
from resizeflow.chaos.cloud import Cloud
from resizeflow.commands import runbook as command
from resizeflow.doctor import report
from resizeflow.errors import ResizeflowError
from resizeflow.handover import Handover
from resizeflow.persistence.models import SERVICE_OF
from tests.console import Console

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "runbook.md"
PARTS = ["What it means", "What was done", "How to look", "What to do", "When to call somebody"]
RAISED = {"Attention", "attention", "Waiting", "Handover", "Stopping", "LeaseLost", "TurnBack"}
"""What puts a job down, as it is written where it is raised."""
DEBTS = {"domain", "disk", "secret", "vlan", *report.SET_RIGHT, *SERVICE_OF}


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


def errors() -> list[type[ResizeflowError]]:
    """Every error of ours, wherever it is defined."""
    for module in pkgutil.walk_packages(resizeflow.__path__, "resizeflow."):
        if not re.search(r"\.migrations\b|\.drivers\.libvirt", module.name):
            importlib.import_module(module.name)
    found, left = [], [ResizeflowError]
    while left:
        kind = left.pop()
        found.append(kind)
        left.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__.startswith("resizeflow.")]


def reasons() -> Iterator[tuple[str, str]]:
    """Every reason that a job is put down with: its longest fixed part, and the whole with `X` for what varies."""
    for path in sorted((ROOT / "resizeflow").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
            text = call.args[0]
            if name not in RAISED or not isinstance(text, ast.JoinedStr | ast.Constant):
                continue
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            fixed = [str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts]
            longest = max((part for part in fixed if part != "X"), key=len)
            if len(longest.strip(" :;")) > 1:
                yield longest.strip(" :;,"), "".join(fixed)


def spoken(page: str) -> str:
    """A page on one line, as reasons are searched in it."""
    return " ".join(runbook.text_of(page).split())


# --- every error has its page ----------------------------------------------------------------------------


def test_every_error_has_a_page() -> None:
    kinds = errors()
    assert len(kinds) > 30
    assert [kind.__name__ for kind in kinds if kind.__name__ not in runbook.PAGE_OF_ERROR] == []


def test_every_page_that_something_leads_to_is_there_and_the_other_way_round() -> None:
    tables = (runbook.PAGE_OF_ERROR, runbook.PAGE_OF_INVARIANT, runbook.PAGE_OF_REASON)
    led_to = {page for table in tables for page in table.values()}
    # These are no errors: `migration show`, `notification list` and `doctor` tell of them.
    assert led_to | {runbook.WAITS, runbook.NOT_SENT, runbook.DEBTS} == set(runbook.pages())


def test_every_invariant_has_a_page_that_says_its_number() -> None:
    table = (ROOT / "docs/doctor.md").read_text(encoding="utf-8").partition("## The invariants")[2]
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.M)}
    assert set(runbook.PAGE_OF_INVARIANT) == numbers
    assert [n for n, page in runbook.PAGE_OF_INVARIANT.items() if f"invariant {n}" not in spoken(page)] == []


@pytest.mark.parametrize(("part", "reason"), sorted(set(reasons())))
def test_every_reason_of_a_job_has_its_place_on_a_page(part: str, reason: str) -> None:
    page = runbook.page_of_reason(reason, runbook.ATTENTION)
    places = [page] if page != runbook.ATTENTION else [runbook.ATTENTION, runbook.WAITS]
    assert any(part in spoken(place) for place in places), f"{places} do not speak of {part!r}"


def test_reasons_are_found() -> None:
    found = {part for part, _ in reasons()}
    assert "has no domain" in " ".join(found)
    assert len(found) > 20
    assert {kind.__name__ for kind in Handover.__subclasses__()} <= RAISED


@pytest.mark.parametrize("kind", sorted(DEBTS))
def test_every_kind_of_debt_is_explained(kind: str) -> None:
    assert f"\n| `{kind}` | " in runbook.text_of("debts")


# --- the pages are of one form ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", runbook.pages())
def test_a_page_has_all_parts_and_something_in_each(page: str) -> None:
    title, *sections = re.split(r"^## ", runbook.text_of(page), flags=re.M)
    assert re.fullmatch(r"# [^\n]+\n\n", title)
    assert [section.partition("\n")[0] for section in sections] == PARTS
    assert all(len(section.partition("\n")[2].split()) > 2 for section in sections)


def test_the_index_lists_all_pages() -> None:
    rows = [f"| [{page}](../resizeflow/runbook/{page}.md) | {about} |" for page, about in runbook.pages().items()]
    assert re.findall(r"^\| \[.*$", INDEX.read_text(encoding="utf-8"), re.M) == rows, "\n".join(rows)


def test_pages_name_pages_that_are_there() -> None:
    texts = [*map(spoken, runbook.pages()), *(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/*.md"))]
    named = {name for text in texts for name in re.findall(r"resizeflow runbook ([a-z][\w-]*)", text)}
    assert named - set(runbook.pages()) == set()


# --- the command -----------------------------------------------------------------------------------------


def test_pages_are_listed_and_shown(console: Console) -> None:
    rows = {row["page"]: row["about"] for row in console.ask("runbook")}
    assert rows == runbook.pages()
    shown = console.type("runbook", "no-valid-host")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("# No host takes the machine\n\n## What it means\n")
    assert "<!--" not in shown.out


def test_on_a_terminal_a_page_is_set(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "StringIO", type("Screen", (io.StringIO,), {"isatty": lambda _self: True}))
    shown = console.type("runbook", "over-quota").out
    assert "## " not in shown
    assert "$ resizeflow quota show default" in re.sub(r"\x1b\[[0-9;]*m", "", shown)


@pytest.mark.parametrize(
    ("name", "told"), [("no-valid-hosts", "did you mean no-valid-host"), ("zzz", "`resizeflow runbook` lists them")]
)
def test_an_unknown_page_is_one_sentence(console: Console, name: str, told: str) -> None:
    console.type("runbook", name).refused(2, f"no page '{name}'", told)


# --- what goes wrong names its page ----------------------------------------------------------------------


def test_an_error_names_its_page(console: Console, cloud: Cloud) -> None:
    assert console.type("resize", "nobody", "--flavor", "big").err.endswith("runbook not-found\n")
    assert console.type("migrate", "web", "--host", "h1").err.endswith("runbook same-host\n")
    assert console.type("fly").err.endswith("runbook usage-error\n")
    cloud.world.set_up("h1", False)
    assert console.type("resize", "web", "--flavor", "big").err.endswith("runbook host-away\n")


def test_the_reason_of_a_job_decides_the_page() -> None:
    of_attention = runbook.page_of_reason("RemoveDestination: web runs on h2: a human started it", "needs-attention")
    assert of_attention == "two-copies"
    assert runbook.page_of_reason("undoing MoveInstance: disk full", "waits") == "waits"
    assert runbook.page_of_reason("host h2 does not answer: no route", "waits") == "host-away"


def test_errors_of_other_libraries_are_not_ours() -> None:
    not_found = type("NotFound", (Exception,), {"__module__": "keystoneauth1.exceptions.http"})
    assert runbook.page_of(not_found("404")) == runbook.UNEXPECTED


def test_the_doctor_names_the_page_of_what_it_found() -> None:
    assert runbook.page_of_invariants({4}) == "invariant-4"
    assert runbook.page_of_invariants({4, 6}) == "breaches"


@pytest.mark.slow
def test_a_migration_that_was_rolled_back_says_why_and_what_to_do(console: Console, cloud: Cloud) -> None:
    cloud.world.fail("h2", "start_paused", "no such CPU")
    failed = console.type("resize", "web", "--flavor", "big", "--host", "h2")
    assert failed.err.endswith("What to do: resizeflow runbook rolled-back\n")
    (row,) = console.ask("migration", "list")
    assert row["why"] == "h2: no such CPU"
    assert console.ask("migration", "show", row["id"])["what_to_do"] == "resizeflow runbook rolled-back"


def test_a_job_that_waits_says_what_to_do(console: Console) -> None:
    accepted = console.type("resize", "web", "--flavor", "big", "--detach", "-f", "json").json
    assert console.ask("migration", "show", accepted["migration"])["what_to_do"] == "resizeflow runbook waits"


def test_what_is_for_machines_is_not_shown() -> None:
    assert command.as_text("a\n<!-- exit 3 -->\n```console\n") == "a\n```console\n"
    assert command.as_text("see [docs/a.md](../../docs/a.md#b)") == "see docs/a.md#b"
