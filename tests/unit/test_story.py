"""The story of a migration, as a person reads it: of runs with kills, waits, failures, decisions; on a screen, too."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.audit.progress import Pace
from resizeflow.audit.story import Story, Tone, story
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.commands.board import speed
from resizeflow.commands.console import Console as Screen
from resizeflow.commands.live import LiveDisplay
from resizeflow.commands.news import Feed
from resizeflow.handover import Attention
from resizeflow.persistence.models import Event, Job
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, OnCrash
from resizeflow.tasks.source import RetireSource
from resizeflow.worker import Worker
from tests.console import Console
from tests.killed import killed_in_transfer
from tests.untold import Untold

OLD = "adopted-1-512-1-0"
ASKED = "me on here asked for a resize of web: small → big"
BEGINNING = ["worker A took it up", "destination h2 chosen", "web is powered off on h1 (downtime begins)"]
COPY = ["copies 1024 MiB of disks from h1 to h2", "the disks are copied, in N"]
PIVOT = "point of no return: the machine's CPUs are about to run"
FINISHED = "finished: web is resized on h2, to be confirmed or reverted"
AGAIN = "web runs again, on {}, after N of downtime"
ROLLED_BACK = "rolled back: web is active on h1 with flavor small"


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    cloud = Cloud(memory_path).build()
    cloud.world.set_speed(transfer_seconds=0.3)
    return cloud


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h2")


def kept(cloud: Cloud, job: Submitted, *, old: bool = False) -> Story:
    """The story of a migration; with `old` as its log would have been before schema 0006."""
    with cloud.database.read() as tx:
        row = tx.migrations.get(job.migration_id)
        events, jobs = list(tx.events.of(row.id)), list(tx.jobs.of_migration(row.id))
        if old:
            events = [as_before(event) for event in events if event.kind not in ("flow", "quota", "allocation")]
            for one in jobs:
                one.asked_by = one.asked_from = None
        return story(row, jobs, events)


def as_before(event: Event) -> Event:
    for column in ("transition", "seconds", "outcome", "error", "next_action", "asked_by", "request_id", "host"):
        setattr(event, column, None)
    if event.kind == "lease":
        event.data, event.task = {}, None
    event.kind = "note" if event.kind == "retry" else event.kind
    return event


def plain(lines: Sequence[str]) -> list[str]:
    """Without what differs from run to run."""
    words = [re.sub(r"\b[\d.]+ (ms|s|min)\b(, \d+ MiB/s)?", "N", line).replace(OLD, "small") for line in lines]
    return [re.sub(r"^\S+ on \S+ asked", "me on here asked", line) for line in words]


def told(cloud: Cloud, job: Submitted) -> list[str]:
    return plain([line.text for line in kept(cloud, job).lines])


def kill(cloud: Cloud, job: Submitted, point: str) -> None:
    assert cloud.run_in_child(job, point) == KILLED


def test_two_kills(cloud: Cloud, job: Submitted) -> None:
    killed_in_transfer(cloud, job)
    kill(cloud, job, "StartDestination.start_paused#1.after")
    assert cloud.run(job) is JobState.DONE
    lines = told(cloud, job)
    whole = [
        ASKED,
        *BEGINNING,
        COPY[0],
        "worker A died during TransferDisks at 25 %",
        "worker B took over after N and went on at 25 %",
        COPY[1],
        "worker B died during StartDestination",
        "worker C took over after N and went on",
        PIVOT,
        AGAIN.format("h2"),
        FINISHED,
    ]
    assert lines == whole
    found = kept(cloud, job)
    assert list(found.workers) == ["A", "B", "C"]
    assert all(re.fullmatch(r"\S+, pid \d+", worker) for worker in found.workers.values())
    assert found.ending == "web runs, or can run, on h2 with flavor big. It is to be confirmed or reverted."
    assert found.to_do == "keep it with `resizeflow confirm web`, or go back with `resizeflow revert web`"
    assert [line.tone for line in found.lines if " died " in line.text] == [Tone.BAD, Tone.BAD]
    # A log of before says as much, but for who asked, and how far the copy was at that moment.
    assert list(kept(cloud, job, old=True).workers) == list(kept(cloud, job).workers), "a person is no worker"
    before = plain([line.text for line in kept(cloud, job, old=True).lines])
    percent = re.compile(r" at \d+ %")
    anonymous = [ASKED.replace("me on here", "somebody"), *whole[1:]]
    assert [percent.sub("", line) for line in before] == [percent.sub("", line) for line in anonymous]


def test_how_long_a_worker_was_silent(cloud: Cloud, job: Submitted) -> None:
    killed_in_transfer(cloud, job)
    assert cloud.run(job) is JobState.DONE
    with cloud.database.write() as tx:
        row = tx.migrations.get(job.migration_id)
        jobs, events = tx.jobs.of_migration(row.id), list(tx.events.of(row.id))
        over = next(event for event in events if event.epoch == 2)
        for event in events[events.index(over) :]:
            event.at += timedelta(seconds=30)
        over.data = {**over.data, "silent_seconds": 12.0}
        lines = story(row, jobs, events).lines
        tx.session.rollback()
    died, took_over = (line for line in lines if re.search("died|took over", line.text))
    assert took_over.text.startswith("worker B took over after 12 s and went on at ")
    assert (took_over.at - died.at).total_seconds() == 12


def test_a_failure_is_undone(cloud: Cloud, job: Submitted) -> None:
    cloud.world.fail("h2", "start_paused", "no room")
    assert cloud.run(job) is JobState.DONE
    assert told(cloud, job) == [
        ASKED,
        *BEGINNING,
        *COPY,
        "StartDestination failed: h2: no room; what was done is undone",
        AGAIN.format("h1"),
        ROLLED_BACK,
    ]
    assert kept(cloud, job).to_do == "put right what the error says, then ask again (`resizeflow runbook rolled-back`)"


def test_waits_are_one_line_however_often(cloud: Cloud, job: Submitted) -> None:
    cloud.world.set_up("h1", False)
    reason = "host h1 does not answer: cannot connect: 'h1' is down"
    with Worker(cloud.database, cloud.settings, clock=FastClock()) as worker:
        for _ in range(3):
            cloud.expire(job)
            worker.take_and_run(job.job_id)
        assert told(cloud, job) == [ASKED, "worker A took it up", f"waits: {reason}"]
        found = kept(cloud, job)
        assert found.ending == f"The resize waits: {reason}."
        assert found.to_do is not None
        assert "resizeflow runbook host-away" in found.to_do
        cloud.world.set_up("h1", True)
        cloud.expire(job)
        worker.take_and_run(job.job_id)
    lines = told(cloud, job)
    assert lines[:4] == [ASKED, "worker A took it up", f"waited N, 3 tries: {reason}", "destination h2 chosen"]
    assert lines[-1] == FINISHED


@pytest.mark.parametrize("way", ["confirm", "revert"])
def test_a_decision(cloud: Cloud, job: Submitted, way: str) -> None:
    assert cloud.run(job) is JobState.DONE
    before = len(told(cloud, job))
    assert cloud.run(getattr(cloud.service, way)("web")) is JobState.DONE
    ends = {
        "confirm": ["confirmed: web is active on h2 with flavor big"],
        "revert": [
            "web is powered off on h2 (downtime begins)",
            "point of no return of the revert",
            AGAIN.format("h1"),
            "reverted: web is active on h1 with flavor small",
        ],
    }
    assert told(cloud, job)[before:] == [f"me on here asked to {way} it", "worker B took it up", *ends[way]]
    assert kept(cloud, job).to_do is None


def test_a_revert_that_was_undone_and_asked_for_again(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job) is JobState.DONE
    cloud.world.fail("h1", "start_paused", "no room")
    assert cloud.run(cloud.service.revert("web")) is JobState.DONE
    between = len(told(cloud, job))
    assert cloud.run(cloud.service.revert("web")) is JobState.DONE
    lines = told(cloud, job)
    off = "web is powered off on h2 (downtime begins)"
    assert off in lines[:between], "each time"
    assert AGAIN.format("h2") in lines[lines.index(off) : between]
    assert lines[between:][2:] == [off, "point of no return of the revert", AGAIN.format("h1"), lines[-1]]


def test_a_person_is_needed_and_turns_it_back(cloud: Cloud, job: Submitted, monkeypatch: pytest.MonkeyPatch) -> None:
    def alarm(*_: object) -> None:
        raise Attention("RetireSource: somebody started it")

    with monkeypatch.context() as patch:
        patch.setattr(RetireSource, "do", alarm)
        assert cloud.run(job) is JobState.NEEDS_ATTENTION
    found = kept(cloud, job)
    assert found.lines[-1].text.startswith("stopped, a person is needed: RetireSource: somebody started it. Done: ")
    assert found.lines[-1].tone is Tone.BAD
    assert found.to_do == (
        "put right what the reason says (`resizeflow runbook two-copies`), then "
        f"`resizeflow migration resume {job.migration_id[:8]}`"
    )
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert told(cloud, job)[len(found.lines) :] == [
        "me on here asked to roll it back",
        "worker B took it up again",
        AGAIN.format("h1"),
        ROLLED_BACK,
    ]


def test_a_crash_that_is_not_gone_on_from(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2", on_crash=OnCrash.ROLLBACK)
    kill(cloud, job, "TransferDisks.create_volume#1.after")
    assert cloud.run(job) is JobState.DONE
    lines = told(cloud, job)
    assert lines[4:] == [
        "worker A died during TransferDisks",
        "worker B took over after N and began to undo it",
        lines[6],
        AGAIN.format("h1"),
        ROLLED_BACK,
    ]
    assert "died, and the job is to be rolled back after a crash" in lines[6]


def test_what_is_tried_again(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run_in_child(job, "DefineDestination.define#1.after", "lose-reply") == 0
    assert "define on h2: no answer, looking again" in told(cloud, job)
    with cloud.database.read() as tx:
        unknown = [event for event in tx.events.of(job.migration_id) if event.kind == "unknown"]
    assert [(event.outcome, event.host) for event in unknown] == [("unknown", "h2")]


def test_an_alternate_takes_its_place(cloud: Cloud) -> None:
    cloud.world.add_host("h3", vcpus=8, memory_mb=65536, pool_gb=100)
    cloud.inventory.add_host("h3", cloud.world.uri("h3"), peer_uri=cloud.world.uri("h3"))
    cloud.inventory.set_host("h1", enabled=False)
    job = cloud.service.resize("web", "big")
    kill(cloud, job, "SelectDestination.SUCCESS.after")
    cloud.world.set_free_bytes("h3", 2**20)
    watch = Untold(cloud)
    assert cloud.run(job) is JobState.DONE
    assert watch.found == []
    lines = told(cloud, job)
    assert lines[2:5] == [
        "destination h3 chosen (h2 as alternate)",
        "worker A died between two tasks",
        "worker B took over after N and went on",
    ]
    assert lines[5].startswith("h3 cannot take the machine: ")
    assert lines[6] == "destination h2 taken instead"


def test_what_was_left_behind(cloud: Cloud, job: Submitted) -> None:
    kill(cloud, job, "TransferDisks.SUCCESS.after")
    cloud.world.set_up("h2", False)
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    before = len(told(cloud, job))
    found = kept(cloud, job)
    assert re.search(r"as before\..* Left behind: disk \S+ of h2, domain \S+ of h2\.$", found.ending)
    assert found.to_do == "nothing: a worker removes what was left behind when it can (`resizeflow runbook debts`)"
    cloud.world.set_up("h2", True)
    with Worker(cloud.database, cloud.settings, clock=FastClock()) as worker:
        worker.drain()
    lines = told(cloud, job)
    assert "worker A died between two tasks" in lines
    owed = [line.partition(" on h2 ")[0] for line in lines if "is left over, and owed" in line]
    assert [thing.partition(" ")[0] for thing in owed] == ["disk", "domain"]
    assert lines[before:] == [
        "a worker settles what was left behind: who has its debts answers",
        "worker C took it up",
        *(f"{thing} is removed from h2" for thing in owed),
    ]
    assert kept(cloud, job).lines[-1].tone is Tone.GOOD
    assert "Left behind" not in kept(cloud, job).ending
    assert kept(cloud, job).to_do is None


# --- on a screen -----------------------------------------------------------------------------------------


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


@pytest.mark.slow
def test_the_command_tells_it(console: Console, cloud: Cloud, job: Submitted, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.world.fail("h2", "start_paused", "a long reason, " * 12)
    assert cloud.run(job) is JobState.DONE
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    answer = console.type("migration", "history", job.migration_id[:8])
    monkeypatch.undo()
    time.tzset()
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"resize of web, {OLD} to big, h1 to h2"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d IST", lines[2]), "whose time it is"
    failed = next(number for number, line in enumerate(lines) if "StartDestination failed" in line)
    assert re.match(r"\d\d:\d\d:\d\d  StartDestination failed: ", lines[failed])
    assert re.match(r" {10}\S", lines[failed + 1])
    assert "To do: put right what the error says" in answer.out
    assert "Workers: A is " in answer.out
    assert "\x1b" not in answer.out
    assert re.search(r"^\d+ lines in its log; the chain verifies\.$", lines[-1])
    last = console.type("migration", "history", job.migration_id, "--last", "1").out
    assert len(re.findall(r"^\d\d:\d\d:\d\d ", last, re.MULTILINE)) == 1
    raw = console.type("migration", "history", job.migration_id, "--events").out
    assert "OpenMigration undone" in raw
    rows = console.ask("migration", "history", job.migration_id)
    assert {"transition", "seconds", "outcome", "host", "error", "next_action", "asked_by", "chain"} <= rows[0].keys()


def test_a_line_that_was_changed_spoils_the_story(console: Console, cloud: Cloud, job: Submitted) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Event).where(Event.migration_id == job.migration_id).values(text="nothing"))
    console.type("migration", "history", job.migration_id).refused(3, "line 1")


def test_without_the_key_it_is_told_and_not_verified(console: Console, cloud: Cloud, job: Submitted) -> None:
    cloud.settings.audit_key_file.unlink()
    answer = console.type("migration", "history", job.migration_id)
    assert answer.code == 0
    assert "asked for a resize of web" in answer.out
    assert "it was not verified. There is no audit key" in answer.out
    answer = console.type("migration", "history", job.migration_id, "-f", "json")
    assert (answer.code, len(answer.json) > 2) == (0, True)
    assert "not verified. There is no audit key" in answer.err
    cloud.settings.audit_key_file.touch(mode=0o600)
    cloud.settings.audit_key_file.write_text("ab" * 32)
    answer = console.type("migration", "history", job.migration_id)
    assert answer.code == 0, "nobody has changed the log"
    assert "it was not verified. The log of this database is written under the audit key" in answer.out
    console.type("doctor").refused(2, "is written under the audit key")


def test_the_words_for_speed() -> None:
    assert speed(Pace(430 * 2**20, 2**30, 25 * 2**20, 23.76)) == "430 of 1024 MiB, 25 MiB/s, 24 s left"
    assert speed(Pace(500 * 2**20, 20 * 2**30, None, None)) == "500 MiB of 20.0 GiB"


@pytest.fixture
def copying(cloud: Cloud, job: Submitted) -> Iterator[None]:
    """Somebody else's worker, in the middle of a transfer."""
    cloud.world.set_speed(transfer_seconds=30)
    with Worker(cloud.database, cloud.settings, clock=FastClock()) as worker:
        thread = threading.Thread(target=lambda: worker.take_and_run(job.job_id))
        thread.start()
        yield
        worker.stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("copying")
def test_who_watches_a_detached_job_sees_how_fast_it_goes(
    console: Console, cloud: Cloud, job: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(pace: Pace) -> str:
        cloud.world.set_speed(transfer_seconds=0)  # It was seen, and need not go on.
        return speed(pace)

    monkeypatch.setattr("resizeflow.commands.plain.speed", shown)
    answer = console.type("migration", "watch", job.migration_id[:8])
    assert answer.code == 0, answer
    assert re.search(r"^ +\d+ of 1024 MiB, \d+ MiB/s, [\d.]+ s left$", answer.out, re.MULTILINE)
    assert re.search(r"TransferDisks +\d+ ?% of 1024 MiB", answer.out)


@pytest.mark.slow
@pytest.mark.usefixtures("copying")
def test_a_terminal_shows_who_works_and_how_far_it_is(cloud: Cloud, job: Submitted) -> None:
    out = io.StringIO()
    display, feed = LiveDisplay(Screen(file=out, force_terminal=True, width=80)), Feed(cloud.database, job.job_id)
    end = datetime.now(UTC) + timedelta(seconds=30)
    while " left" not in out.getvalue() and datetime.now(UTC) < end:
        news = feed.read()
        assert news is not None
        display.update(news)
        threading.Event().wait(0.2)
    display.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"TransferDisks +[\d.]+ s \S+ \d+ of 1024 MiB, \d+ MiB/s, [\d.]+ m?s left", shown)
    assert re.search(r"worker on \S+, pid \d+; its lease holds for \d+ s", shown)
    assert cloud.migration(job).status is MigrationStatus.MIGRATING
    with cloud.database.read() as tx:
        assert tx.session.scalar(sa.select(Job.state)) is JobState.RUNNING
