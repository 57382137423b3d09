"""The report, one file, opened from a disk without a network: what it says is what the database says."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.audit.progress import percent
from resizeflow.audit.timeline import Timeline, timeline
from resizeflow.persistence.models import Event, Migration
from resizeflow.service import Submitted
from tests.console import Console
from tests.pages.conftest import HOSTILE, Past, WatchedMaker

DASH = "\N{EN DASH}"
A4 = {"width": 794, "height": 1123}


@pytest.fixture
def console(past: Past) -> Console:
    return Console(past.folder / "resizeflow.conf")


def written(console: Console, job: Submitted, folder: Path, *, broken: bool = False) -> str:
    """The address of a report in a folder."""
    file = folder / f"{job.migration_id[:8]}.html"
    answer = console.type("report", job.migration_id[:8], "--html", str(file))
    if broken:
        answer.refused(3, "The log is not what was written: line 5")
    else:
        assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert list(folder.iterdir()) == [file]
    return file.as_uri()


def stored(past: Past, job: Submitted) -> tuple[Migration, list[Event], Timeline]:
    with past.database.read() as tx:
        migration, jobs = tx.migrations.get(job.migration_id), tx.jobs.of_migration(job.migration_id)
        events = list(tx.events.of(job.migration_id))
        assert len(migration.disks) == 1, "they are read while they can be"
    return migration, events, timeline(migration, jobs, events)


@pytest.mark.slow
def test_it_says_what_the_database_says(past: Past, console: Console, watch: WatchedMaker, tmp_path: Path) -> None:
    migration, events, told = stored(past, past.finished)
    seen = watch(offline=True)
    url = written(console, past.finished, tmp_path)
    seen.page.goto(url)
    assert seen.page.locator("h1").inner_text() == "resize of web, adopted-1-512-1-0 to big, h1 to h2"
    assert seen.page.locator("#outcome").inner_text().startswith("to be decided web runs, or can run, on h2")
    facts = {name: seen.page.locator(f"#{name}").inner_text() for name in ("crashes", "retries", "asked-by", "bytes")}
    assert facts == {"crashes": "2", "retries": "1", "asked-by": facts["asked-by"], "bytes": "1024 MiB of 1024 MiB"}
    assert facts["asked-by"].endswith(f" on {events[0].asked_from}")
    assert [(row[0], row[2], row[3], row[4]) for row in seen.rows("events")] == [
        (str(event.seq), told.letters.get(event.worker or "", DASH), event.task or DASH, f"{event.kind} {event.text}")
        for event in events
    ]
    rows = {row[0]: row[1:] for row in seen.rows("comparison")}
    old, new = migration.old_flavor, migration.new_flavor
    assert rows["flavor"] == [old.name, f"{new.name} (changes)", new.name]
    assert rows["host"] == ["h1", "h2 (changes)", "h2"]
    assert rows["memory"] == [f"{old.memory_mb} MiB", f"{new.memory_mb} MiB (changes)", f"{new.memory_mb} MiB"]
    assert rows["quota: cores"] == ["1", "2 (changes)", "2"]
    assert rows["disk vda (root)"][0].startswith(migration.disks[0].source_path)
    assert rows["disk vda (root)"][1].startswith(str(migration.disks[0].dest_path))
    assert seen.page.locator("#verdict").inner_text().startswith(f"All {len(events)} lines verify")
    assert seen.requests == [url]
    seen.check_quiet("file://")


@pytest.mark.slow
def test_the_chart_marks_what_happened(past: Past, console: Console, watch: WatchedMaker, tmp_path: Path) -> None:
    _, _, told = stored(past, past.finished)
    seen = watch(java_script_enabled=False)
    seen.page.goto(written(console, past.finished, tmp_path))
    chart = seen.page.get_by_role("img", name="Tasks over time")
    assert chart.locator(".worker-lane").count() == 3
    assert chart.locator(".run").count() == len(told.runs)
    crashed = chart.locator(".run[data-how=crashed]")
    for run, over in zip(crashed.all(), told.takeovers, strict=True):
        title = run.locator("title").text_content() or ""
        assert title.startswith(f"{over.task} by {over.died}, epoch {over.epoch - 1}: died")
    assert [over.task for over in told.takeovers] == ["PowerOffSource", "TransferDisks"]
    share = told.takeovers[1].share
    assert f"at {percent(share or 0)}" in (crashed.nth(1).text_content() or "")
    assert chart.locator(".takeover").count() == 2
    assert chart.locator(".retrying").count() == 1
    assert chart.locator(".downtime").count() == 1
    assert chart.locator(".bytes circle").count() == len(told.samples)
    words = chart.locator("desc").text_content() or ""
    assert f"Worker B died in TransferDisks at {percent(share or 0)}; worker C took over after" in words
    seen.page.get_by_text("The chart as a table").click()
    assert [(row[1].split()[1], row[3], row[6].split(" at ")[0]) for row in seen.rows("runs")] == [
        (run.worker, run.task, run.how) for run in told.runs
    ]


def test_a_rollback_is_told_with_its_reason(past: Past, console: Console, watch: WatchedMaker, tmp_path: Path) -> None:
    migration, _, told = stored(past, past.undone)
    seen = watch(offline=True)
    seen.page.goto(written(console, past.undone, tmp_path))
    assert f"Reason: {migration.error}." in seen.page.locator("#outcome").inner_text()
    assert all(row[1] == row[3] for row in seen.rows("comparison"))
    undone = [run for run in told.runs if run.how == "undone"]
    assert seen.page.locator(".run[data-how=undone]").count() == len(undone) > 5
    assert seen.page.locator(".run[data-how=failed]").count() == 1
    assert "guest off for" in (seen.page.locator(".downtime").text_content() or "")


@pytest.mark.slow
def test_hostile_names_are_only_names(past: Past, console: Console, watch: WatchedMaker, tmp_path: Path) -> None:
    seen = watch(viewport={"width": 360, "height": 640})
    with past.all_hostile():
        for number, (job, name) in enumerate(zip(past.hostile, HOSTILE, strict=True)):
            folder = tmp_path / str(number)
            folder.mkdir()
            seen.page.goto(written(console, job, folder))
            title = seen.page.locator("h1").text_content() or ""
            assert title == f"resize of {name}, adopted-1-128-1-0 to {HOSTILE[2]}, h1 to {HOSTILE[0]}"
            assert seen.page.locator("script, img").count() == 0
            seen.check_fits()
    seen.check_quiet("file://")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(past: Past, console: Console, watch: WatchedMaker, tmp_path: Path, scheme: str) -> None:
    seen = watch(color_scheme=scheme)
    seen.page.goto(written(console, past.finished, tmp_path))
    seen.check_readable()


@pytest.mark.slow
def test_it_prints_on_a4_in_black_on_white(past: Past, console: Console, watch: WatchedMaker, tmp_path: Path) -> None:
    seen = watch(color_scheme="dark", viewport=A4)
    seen.page.goto(written(console, past.finished, tmp_path))
    paper = seen.page.pdf(format="A4", prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    assert 1 < paper.count(b"/Type /Page\n") < 15
    seen.page.emulate_media(media="print")
    seen.check_fits()
    seen.check_readable()
    assert seen.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_a_log_that_was_changed_is_told(past: Past, console: Console, watch: WatchedMaker, tmp_path: Path) -> None:
    job = past.hostile[0]
    with past.database.write() as tx:
        line = tx.events.of(job.migration_id)[4]
        before, line.text = line.text, "nothing happened"
    try:
        seen = watch(offline=True)
        seen.page.goto(written(console, job, tmp_path, broken=True))
        assert seen.page.locator("#verdict").inner_text().startswith("The log is not what was written: line 5")
    finally:
        with past.database.write() as tx:
            tx.events.of(job.migration_id)[4].text = before


def test_a_file_that_cannot_be_written_stays_as_it_was(past: Past, console: Console, tmp_path: Path) -> None:
    short = past.finished.migration_id[:8]
    console.type("report", short, "--html", str(tmp_path)).refused(2, "cannot be written", "it is a folder")
    missing = tmp_path / "nowhere" / "page.html"
    console.type("report", short, "--html", str(missing)).refused(2, "cannot be written", "No such file")
    console.type("report", "ffffffff", "--html", str(tmp_path / "page.html")).refused(2, "no migration")
    assert list(tmp_path.iterdir()) == []
    assert console.type("report", short, "--html").out.startswith("<!doctype html>")
