"""What a chart shows of a log, and the arithmetic of rates and scales."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from resizeflow.audit.progress import Sample, duration, pace
from resizeflow.audit.timeline import End, Timeline, timeline
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.pages.chart import chart
from resizeflow.pages.scale import CUT_WIDTH, Scale
from resizeflow.persistence.models import Event
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from tests.killed import killed_in_transfer

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def told_of(cloud: Cloud, job: Submitted, *, old: bool = False) -> Timeline:
    """`old`: as a log was before schema 0006, which said all in words."""
    with cloud.database.read() as tx:
        migration, jobs = tx.migrations.get(job.migration_id), tx.jobs.of_migration(job.migration_id)
        events = list(tx.events.of(job.migration_id))
        tx.session.expunge_all()
    if old:
        for event in events:
            event.transition = event.request_id = None
    return timeline(migration, jobs, events)


def shown(told: Timeline) -> list[tuple[str, str, str, str | None]]:
    return [(told.letters[run.worker], run.task, run.direction, run.how) for run in told.runs]


@pytest.mark.parametrize("old", [False, True])
def test_a_crash_ends_a_run_and_the_successor_runs_the_task_again(cloud: Cloud, old: bool) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    killed_in_transfer(cloud, job)
    cloud.expire(job)
    assert cloud.run(job) is JobState.DONE
    told = told_of(cloud, job, old=old)
    runs = shown(told)
    crash = runs.index(("A", "TransferDisks", "forward", End.CRASHED))
    assert [run[0] for run in runs] == ["A"] * (crash + 1) + ["B"] * (len(runs) - crash - 1)
    assert runs[crash + 1] == ("B", "TransferDisks", "forward", End.DONE)
    assert all(run[3] is End.DONE for number, run in enumerate(runs) if number != crash)
    assert all(before.end is not None and before.end <= after.start for before, after in pairwise(told.runs))
    (over,) = told.takeovers
    assert (over.task, over.epoch) == ("TransferDisks", 2)
    assert over.share == 0.25
    assert told.runs[crash].share == over.share
    assert told.runs[crash].end == over.last_sign <= over.at == told.runs[crash + 1].start
    assert [down.ended_by for down in told.downtimes] == ["resize"]


@pytest.mark.slow
def test_a_rollback_asked_for_while_its_worker_was_dead(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "RetireSource.define#1.after") == KILLED
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.ERROR
    told = told_of(cloud, job)
    after = [run for run in told.runs if told.letters[run.worker] == "B"]
    # It is undone, and was not run once more before.
    assert (after[0].task, after[0].direction) == ("RetireSource", Direction.BACK)
    assert {run.how for run in after} == {End.UNDONE}
    (down,) = told.downtimes
    power_off = next(run for run in after if run.task == "PowerOffSource")
    assert (down.end, down.ended_by) == (power_off.end, "rollback")
    assert any("rollback" in mark.text for mark in told.marks if mark.kind == "command")


@pytest.mark.slow
def test_a_job_that_waits_is_put_down_and_taken_up_again(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.run_in_child(job, "RetireSource.RUNNING.after", "kill")
    cloud.world.set_up("h1", False)
    cloud.expire(job)
    assert cloud.run(job) is JobState.QUEUED
    cloud.world.set_up("h1", True)
    assert cloud.run(job) is JobState.DONE
    told = told_of(cloud, job)
    retired = [(told.letters[run.worker], run.how) for run in told.runs if run.task == "RetireSource"]
    assert retired == [("A", End.CRASHED), ("B", End.WAITING), ("C", End.DONE)]
    assert len(told.takeovers) == 1
    assert [mark.kind for mark in told.retries] == ["waiting"]


def test_confirm_and_revert_begin_anew(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE
    told = told_of(cloud, job)
    assert told.takeovers == []
    assert told.letters is told.letters, "a report asks for them with each line of the log"
    assert [run.flow for run in told.runs if run.task in ("OpenMigration", "FinishRevert")] == [
        "resize_v1",
        "revert_v1",
    ]
    assert [down.ended_by for down in told.downtimes] == ["resize", "revert"]
    assert all(down.seconds is not None for down in told.downtimes)


def test_a_job_that_was_given_up_has_ended(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "FinishResize.RUNNING.after") == KILLED
    cloud.expire(job)
    revert = cloud.service.revert("web", discard_writes=True)
    assert cloud.run(revert) is JobState.DONE
    told = told_of(cloud, job)
    (finish,) = [run for run in told.runs if run.task == "FinishResize"]
    assert (finish.how, told.takeovers) == (End.CRASHED, [])
    assert all(run.end is not None for run in told.runs)


def test_a_log_that_was_pruned_has_no_chart(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    told = timeline(cloud.migration(job), [], [])
    assert (told.runs, told.letters) == ([], {})
    assert chart(told, NOON) is None


def test_an_unknown_line_changes_nothing(cloud: Cloud) -> None:
    line = Event(migration_id="m", seq=1, at=NOON, epoch=1, worker="w", kind="weather", text="rain", data={})
    told = timeline(cloud.migration(cloud.service.resize("web", "big", host="h2")), [], [line])
    assert (told.runs, told.marks, told.samples) == ([], [], [])


# --- how fast, how long ----------------------------------------------------------------------------------


def test_the_rate_is_that_of_the_last_seconds() -> None:
    slow = [Sample(at(second), second, 1000) for second in range(100)]
    fast = [Sample(at(99 + second), 99 + 10 * second, 1000) for second in range(1, 41)]
    now = pace([*slow, *fast])
    assert now is not None
    assert now.rate == pytest.approx(10)
    assert now.seconds_left == pytest.approx((1000 - now.done) / 10)


def test_a_transfer_that_was_begun_anew_has_a_new_rate() -> None:
    now = pace([Sample(at(0), 900, 1000), Sample(at(1), 0, 1000), Sample(at(3), 100, 1000)])
    assert now is not None
    assert now.rate == pytest.approx(50)


@pytest.mark.parametrize("samples", [[Sample(at(0), 5, 10)], [Sample(at(0), 5, 10), Sample(at(9), 5, 10)]])
def test_nothing_is_said_where_nothing_can_be(samples: list[Sample]) -> None:
    assert pace([]) is None
    now = pace(samples)
    assert now is not None
    assert now.seconds_left is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.012, "12 ms"), (0.3, "0.3 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"),
        (3600, "1 h"), (7500, "2 h 5 min"), (273600, "3 d 4 h"), (0, "0 ms"),
    ],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_long_pause_is_cut_out_and_nothing_else() -> None:
    scale = Scale([(at(0), at(40)), (at(60), at(100)), (at(9000), at(9020))], 0, 1000)
    (cut,) = scale.cuts
    assert (cut.start, cut.end) == (at(100), at(9000))
    assert cut.right - cut.left == CUT_WIDTH
    moments = [scale.x(at(second)) for second in (0, 40, 60, 100, 5000, 9000, 9020, 99999)]
    assert moments == sorted(moments)
    assert [moments[0], moments[-1]] == pytest.approx([0, 1000])
    assert (moments[1] - moments[0]) / 40 == pytest.approx((moments[6] - moments[5]) / 20)
    places = [tick.x for tick in scale.ticks()]
    assert places == sorted(places)
    assert all(after - before > 10 for before, after in pairwise(places))


def test_what_took_no_time_has_its_place() -> None:
    scale = Scale([(at(0), at(0))], 200, 1000)
    assert scale.x(at(0)) == 200
    assert len(scale.ticks()) == 1
