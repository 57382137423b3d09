"""One resize on real hosts with two dead workers, a retry and a rollback: what is told of it is what was done to it.

With RESIZEFLOW_SCREENSHOTS=FOLDER the pages are photographed, for docs/report.md (tests/browser.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from lab.system import wait_until
from resizeflow.audit.progress import duration
from resizeflow.audit.timeline import End, Timeline, timeline
from resizeflow.flows import TASKS
from resizeflow.persistence.models import Event
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from tests.browser import Watched, chromium, served
from tests.console import Console
from tests.fleet import Fleet
from tests.lab import checks
from tests.lab.conftest import FleetMaker, WorkerMaker
from tests.lab.faults import waits_or_ended
from tests.lab.worker_process import WorkerProcess

pytestmark = pytest.mark.lab

LEASE = 14.0
SETTINGS = {
    "act_timeout": "5",
    "look_timeout": "5",
    "fence_window": "4",
    "host_patience": "4",
    "lease_seconds": str(LEASE),
    "bandwidth": "25",
}
"""Two disks of 1 GiB are copied in about 40 seconds."""
SLACK = 15.0
"""Seconds more until somebody takes over, on a machine that has much to do."""
TASKS_DONE = [task.__name__ for task in TASKS["resize_v1"]]
BEFORE_THE_SECOND_KILL = TASKS_DONE[: TASKS_DONE.index("DefineDestination") + 1]


@dataclass(frozen=True)
class Kill:
    """What the test did to a worker."""

    pid: int
    task: str
    share: float
    """Of the transfer, as it was stored when the worker was dead."""
    at: datetime


def kill(fleet: Fleet, job: Submitted, worker: WorkerProcess, task: str) -> Kill:
    worker.kill()
    at = datetime.now(UTC)
    return Kill(worker.pid, task, share(fleet, job), at)


def share(fleet: Fleet, job: Submitted) -> float:
    row = fleet.migration(job)
    return row.bytes_done / row.bytes_total if row.bytes_total else 0.0


def pid_of(worker: str) -> int:
    return int(worker.split(":")[1])


def told_of(fleet: Fleet, job: Submitted) -> tuple[Timeline, list[Event]]:
    with fleet.database.read() as tx:
        events = list(tx.events.of(job.migration_id))
        migration, jobs = tx.migrations.get(job.migration_id), tx.jobs.of_migration(job.migration_id)
    return timeline(migration, jobs, events), events


def test_two_kills_a_retry_and_a_rollback(make_fleet: FleetMaker, make_worker: WorkerMaker, tmp_path: Path) -> None:
    fleet = make_fleet(**SETTINGS)
    before, state = fleet.guest.wait_report(), fleet.state()
    console, source = Console(fleet.folder / "resizeflow.conf"), fleet.lab.host("h1")
    asked = datetime.now(UTC)
    job = fleet.service.resize("web", "big", host="h2")

    first = make_worker(fleet, arm="PowerOffSource.RUNNING.after=stop")
    first.wait_stopped()
    source.hang_libvirtd()
    try:
        first.go_on()
        assert wait_until(lambda: waits_or_ended(fleet, job), timeout=120), fleet.story(job)
    finally:
        source.unhang_libvirtd()
    assert wait_until(lambda: share(fleet, job) >= 0.1, timeout=120, interval=0.1), fleet.story(job)

    second = make_worker(fleet, arm="DefineDestination.define#1.before=stop")
    kills = [kill(fleet, job, first, "TransferDisks")]
    with chromium() as browser, served(console) as address, watched(browser) as seen:
        seen.page.goto(address)  # the first page takes a browser longest
        assert wait_until(lambda: fleet.job(job).epoch > 2 and share(fleet, job) > kills[0].share, timeout=60)
        check_dashboard(seen, address, second)
    second.wait_stopped()
    kills.append(kill(fleet, job, second, "DefineDestination"))
    fleet.service.rollback(job.migration_id)
    third = make_worker(fleet)
    assert wait_until(lambda: fleet.job(job).state is JobState.DONE, timeout=120), fleet.story(job)
    assert third.end() == 0
    ended = datetime.now(UTC)
    assert fleet.migration(job).status is MigrationStatus.ERROR
    checks.is_as_before(fleet, job, state, before)

    told, events = told_of(fleet, job)
    check_told(told, kills, [worker.pid for worker in (first, second, third)])
    (down,) = told.downtimes
    assert down.ended_by == "rollback"
    assert down.end is not None
    assert asked < down.start < kills[0].at < kills[1].at < down.end < ended
    check_story(console.type("migration", "history", job.migration_id[:8]).out, kills, told)
    file = tmp_path / "report.html"
    answer = console.type("report", job.migration_id[:8], "--html", str(file))
    assert answer.code == 0, answer
    with chromium() as browser:
        check_report(browser, file, told, kills, len(events))


def check_told(told: Timeline, kills: list[Kill], pids: list[int]) -> None:
    """Who died when, in what, and who went on."""
    assert [pid_of(worker) for worker in told.letters] == pids
    assert len(told.takeovers) == len(kills)
    for over, killed, successor in zip(told.takeovers, kills, pids[1:], strict=True):
        assert (pid_of(over.died), over.task, pid_of(over.by)) == (killed.pid, killed.task, successor)
        assert over.last_sign < killed.at < over.at
        assert over.silence <= LEASE + SLACK
    assert told.takeovers[0].share == kills[0].share
    crashed = [run for run in told.runs if run.how is End.CRASHED]
    assert [(pid_of(run.worker), run.task) for run in crashed] == [(killed.pid, killed.task) for killed in kills]
    waited = [run for run in told.runs if run.how is End.WAITING]
    assert waited
    assert {(pid_of(run.worker), run.task) for run in waited} == {(pids[0], "PowerOffSource")}
    assert all("h1" in (run.why or "") for run in waited)
    done = [run.task for run in told.runs if run.how is End.DONE]
    assert done == BEFORE_THE_SECOND_KILL[:-1]
    undone = [(pid_of(run.worker), run.task) for run in told.runs if run.direction is Direction.BACK]
    assert undone == [(pids[2], task) for task in reversed(BEFORE_THE_SECOND_KILL)]
    shares = [sample.share for sample in told.samples]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(shares) >= 8


def check_story(text: str, kills: list[Kill], told: Timeline) -> None:
    """What `migration history` says, in this order."""
    said = " ".join(text.split())
    share = f"{kills[0].share * 100:.0f} %"
    position = 0
    for part in (
        "asked for a resize of web",
        "worker A took it up",
        r"waited \d+ s: host h1 does not answer",
        "web is powered off on h1",
        f"worker A died during TransferDisks at {share}",
        rf"worker B took over after {duration(told.takeovers[0].silence)} and went on at {share}",
        "worker B died during DefineDestination",
        "asked to roll it back",
        f"worker C took over after {duration(told.takeovers[1].silence)} and began to undo it",
        rf"web runs again, on h1, after {duration(told.downtimes[0].seconds or 0)} of downtime",
        "Rolled back: web is on h1",
        rf"A is \S+, pid {kills[0].pid}; B is \S+, pid {kills[1].pid};",
    ):
        found = re.compile(part).search(said, position)
        assert found, f"{part}\n{text}"
        position = found.end()


@contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[Watched]:
    with browser.new_context(viewport={"width": 1200, "height": 1000}, **options) as context:
        yield Watched(context)


def check_dashboard(seen: Watched, address: str, worker: WorkerProcess) -> None:
    """In the middle of the transfer, in the hands of the second worker."""
    seen.page.goto(address)
    (row,) = seen.rows("in-flight")
    assert (row[0], row[3]) == ("web", "TransferDisks 9 of 16")
    assert row[4].endswith(" left"), row
    assert pid_of(row[5].split()[0]) == worker.pid
    seen.photograph("dashboard")
    seen.check_quiet(address)


def check_report(browser: Browser, file: Path, told: Timeline, kills: list[Kill], lines: int) -> None:
    """The page of it all, as it is read in a browser."""
    with watched(browser, offline=True) as seen:
        seen.page.goto(file.as_uri())
        assert seen.page.locator("#outcome").inner_text().startswith("rolled back")
        assert seen.page.locator("#crashes").inner_text() == "2"
        assert seen.page.locator("#retries").inner_text() == str(len(told.retries))
        assert len(seen.rows("events")) == lines
        assert " ".join(row[1] for row in seen.rows("story")).count("✖ worker") == len(kills)
        crashed = seen.page.locator(".run[data-how=crashed] title").all_text_contents()
        assert [pid_of(title.split(" by ")[1]) for title in crashed] == [killed.pid for killed in kills]
        assert seen.page.locator(".retrying").count() >= 1
        assert seen.page.locator(".downtime").count() == 1
        assert seen.page.locator("#verdict").inner_text().startswith(f"All {lines} lines verify")
        seen.photograph("report", until="#comparison")
        seen.photograph("timeline", until="#story")
        seen.check_quiet("file://")
