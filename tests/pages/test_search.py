"""The search for words in a real browser: it finds what the log has, whatever is typed and whatever is there."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from resizeflow.audit.search import PAGE, Filters, search
from resizeflow.persistence.models import Event
from tests.browser import Watched
from tests.pages.conftest import HOSTILE, Past, WatchedMaker

WORD = "started"
"""In more lines than go on a page."""
WILD = ("%", "_", "\\", "'; DROP TABLE events; --", "{{ 7 * 7 }}", "*", "\u202e", '"')
"""What databases or templates could take for more than words."""


def kept(past: Past, text: str, **filters: Any) -> list[Event]:
    """What the log has, the latest first."""
    with past.database.read() as tx:
        return list(search(tx, Filters(text=text, **filters), 5000))


def told(seen: Watched) -> list[str]:
    """The texts of the lines on the page."""
    return seen.page.locator("#lines tbody td:nth-child(5) bdi").all_inner_texts()


@pytest.mark.slow
def test_words_of_lines_are_found_with_the_migrations_that_they_are_of(
    past: Past, address: str, watch: WatchedMaker
) -> None:
    seen = watch()
    seen.page.goto(address)
    seen.page.get_by_role("searchbox").fill("no answer")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/history?text=no+answer")
    lines = kept(past, "no answer")
    assert lines
    assert {line.migration_id for line in lines} == {past.finished.migration_id}
    assert [row[2] for row in seen.rows("lines")] == [line.migration_id[:8] for line in lines]
    assert told(seen) == [line.text for line in lines]
    seen.page.locator("#lines").get_by_role("link", name=past.finished.migration_id[:8]).first.click()
    expect(seen.page.locator("h1")).to_contain_text("resize of web")


@pytest.mark.slow
def test_older_lines_are_on_the_next_page(past: Past, address: str, watch: WatchedMaker) -> None:
    seen, lines = watch(), [line.text for line in kept(past, WORD)]
    assert len(lines) > PAGE
    seen.page.goto(f"{address}/history?text={WORD}")
    found = told(seen)
    assert len(found) == PAGE
    seen.page.get_by_role("link", name="Older lines").click()
    seen.page.wait_for_url("**&before=**")
    expect(seen.page.locator("#lines")).to_be_in_viewport()
    assert found + told(seen) == lines[: 2 * PAGE]


@pytest.mark.slow
def test_other_filters_hold_for_lines_too(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch()
    seen.page.goto(f"{address}/history?text={WORD}")
    seen.page.get_by_label("machine", exact=True).fill("undone")
    seen.page.get_by_role("button", name="Search").last.click()
    seen.page.wait_for_url("**&instance=undone&*")
    assert told(seen) == [line.text for line in kept(past, WORD, instance="undone")]
    seen.page.get_by_label("outcome").select_option("rolled back")
    seen.page.get_by_role("button", name="Search").last.click()
    seen.page.wait_for_url("**&outcome=rolled+back&*")
    expect(seen.page.locator("#lines")).to_have_count(0)


@pytest.mark.slow
def test_lines_are_reached_with_the_keyboard_alone(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch()
    page = seen.page
    page.goto(address)
    page.keyboard.press("/")
    page.keyboard.type("no answer")
    page.keyboard.press("Enter")
    page.wait_for_url("**/history?text=no+answer")
    for target in ("#to-lines", f"#lines a[href='/migrations/{past.finished.migration_id}']"):
        link = page.locator(target).first
        for _ in range(40):
            page.keyboard.press("Tab")
            if link.evaluate("link => link === document.activeElement"):
                break
        page.keyboard.press("Enter")
    page.wait_for_url(f"**/migrations/{past.finished.migration_id}")


@pytest.mark.parametrize("text", WILD)
def test_words_are_only_words(past: Past, address: str, watch: WatchedMaker, text: str) -> None:
    seen = watch()
    answer = seen.page.goto(f"{address}/history?text={quote(text)}")
    assert answer is not None
    assert answer.status == 200
    assert told(seen) == [line.text for line in kept(past, text)][:PAGE]
    assert seen.page.locator("#f-text").input_value() == text
    seen.check_quiet(address, "data:,")


@pytest.mark.slow
def test_lines_with_hostile_words_are_only_lines(past: Past, address: str, watch: WatchedMaker) -> None:
    with past.database.write() as tx:
        for name in HOSTILE:
            tx.events.command(f"searched for {name}", host=name)
    seen = watch(viewport={"width": 360, "height": 640})
    for name in HOSTILE:
        seen.page.goto(f"{address}/history?text={quote(name)}")
        assert f"searched for {name}" in [
            text.strip() for text in seen.page.locator("#lines td bdi").all_text_contents()
        ]
        seen.check_fits()
    seen.page.goto(f"{address}/history?text=searched")
    seen.check_readable()
    seen.check_quiet(address, "data:,")


@pytest.mark.parametrize(
    "query", ["text=a%00b", "instance=%00", "text=a&before=yesterday", "text=a&before=2026-01-01/x/y", "older=%00"]
)
def test_what_cannot_be_asked_is_said_in_a_sentence(address: str, watch: WatchedMaker, query: str) -> None:
    seen = watch()
    answer = seen.page.goto(f"{address}/history?{query}")
    assert answer is not None
    assert answer.status == 400
    expect(seen.page.get_by_role("alert")).to_contain_text("That address is not understood")
