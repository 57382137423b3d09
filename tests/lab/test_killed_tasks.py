"""On real hosts: the worker killed once inside each task, at its worst point, then resumed or rolled back.

The worst point is after the task's effect and before its success is saved: whoever comes next finds an effect that
nobody knows of. Every third task is in each run of the tests, all of them in `scripts/certify`. There a resize that is
resumed has a test of its own; in each run it is what a confirm or a revert comes after.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lab.serial import Report
from resizeflow.chaos.child import KILLED
from resizeflow.errors import Conflict
from resizeflow.flows import TASKS
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.fleet import Fleet
from tests.lab import checks

pytestmark = pytest.mark.lab

AFTER_THE_PIVOT = {"FinishResize", "StartSource", "RemoveDestination", "FinishRevert", "StartDestination"}


def tasks_of(flow: str, *, leave_out: frozenset[str] = frozenset()) -> list[str]:
    return [task.__name__ for task in TASKS[flow] if task.__name__ not in leave_out]


def some(names: list[str]) -> list[Any]:
    """Tasks of a flow as parameters; two of three only for certification."""
    return [pytest.param(name, marks=[] if name in names[1::3] else pytest.mark.certify) for name in names]


RESIZE, CONFIRM, REVERT = tasks_of("resize_v1"), tasks_of("confirm_v1"), tasks_of("revert_v1")
REVERT_BEFORE_THE_PIVOT = tasks_of("revert_v1", leave_out=frozenset(AFTER_THE_PIVOT))
_earlier = itertools.cycle(RESIZE[1::3])


def some_after_a_resize(names: list[str]) -> list[Any]:
    """As `some`; before each that is not only for certification the task of the resize in which a worker was killed."""
    return [
        pytest.param(next(_earlier), name, id=name)
        if name in names[1::3]
        else pytest.param(None, name, id=name, marks=pytest.mark.certify)
        for name in names
    ]


AFTER_A_RESIZE = {
    "confirm": some_after_a_resize(CONFIRM),
    "revert": some_after_a_resize(REVERT),
    "turned back": some_after_a_resize(REVERT_BEFORE_THE_PIVOT),
}


def kill_in(fleet: Fleet, job: Submitted, task: str) -> None:
    assert fleet.run_in_child(job, f"{task}.SUCCESS.before") == KILLED, fleet.story(job)


def resized(fleet: Fleet, before: Report, killed_in: str | None) -> None:
    """The machine is resized on h2, to be decided on."""
    job = fleet.service.resize("web", "big", host="h2")
    if killed_in is not None:
        kill_in(fleet, job, killed_in)
        fleet.service.resume(job.migration_id)
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    checks.is_resized(fleet, job, before, host="h2")


@pytest.mark.certify
@pytest.mark.parametrize("task", RESIZE)
def test_resize_killed_then_resumed(fleet: Fleet, task: str) -> None:
    resized(fleet, fleet.guest.wait_report(), task)


def test_every_third_task_of_a_resize_comes_before_a_decision() -> None:
    earlier = {param.values[0] for params in AFTER_A_RESIZE.values() for param in params}
    assert earlier - {None} == set(RESIZE[1::3])


@pytest.mark.parametrize("task", some(RESIZE))
def test_resize_killed_then_rolled_back(fleet: Fleet, task: str) -> None:
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    kill_in(fleet, job, task)
    if task in AFTER_THE_PIVOT:
        with pytest.raises(Conflict, match="only go forward"):
            fleet.service.rollback(job.migration_id)
        assert fleet.run(job) is JobState.DONE, fleet.story(job)
        checks.is_resized(fleet, job, before, host="h2")
        return
    fleet.service.rollback(job.migration_id)
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.ERROR
    checks.is_as_before(fleet, job, state, before)
    checks.nothing_left_on(fleet, "h2")


def test_rolled_back_while_the_guest_still_shuts_down_it_runs_in_the_end(fleet: Fleet) -> None:
    """The request to shut down cannot be taken back: the rollback must not leave before the guest has decided."""
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run_in_child(job, "PowerOffSource.shutdown#1.after") == KILLED, fleet.story(job)
    fleet.service.rollback(job.migration_id)
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    assert fleet.state(job) == state, fleet.story(job)
    assert fleet.guest.ping(timeout=60), "the guest went off after the rollback had ended"
    checks.same_machine(before, checks.report_on(fleet, "h1", before["boots"] + 1, vcpus=before["vcpus"]))


@pytest.mark.parametrize(("earlier", "task"), AFTER_A_RESIZE["confirm"])
def test_confirm_killed_then_resumed(fleet: Fleet, earlier: str | None, task: str) -> None:
    before = fleet.guest.wait_report()
    resized(fleet, before, earlier)
    job = fleet.service.confirm("web")
    kill_in(fleet, job, task)
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.CONFIRMED
    checks.nothing_left_on(fleet, "h1")
    checks.is_resized(fleet, job, before, host="h2")


@pytest.mark.parametrize(("earlier", "task"), AFTER_A_RESIZE["revert"])
def test_revert_killed_then_resumed(fleet: Fleet, earlier: str | None, task: str) -> None:
    before, state = fleet.guest.wait_report(), fleet.state()
    resized(fleet, before, earlier)
    job = fleet.service.revert("web")
    kill_in(fleet, job, task)
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.REVERTED
    checks.is_as_before(fleet, job, state, before)
    checks.nothing_left_on(fleet, "h2")


@pytest.mark.parametrize(("earlier", "task"), AFTER_A_RESIZE["turned back"])
def test_revert_killed_then_rolled_back_is_resized_as_before(fleet: Fleet, earlier: str | None, task: str) -> None:
    before = fleet.guest.wait_report()
    resized(fleet, before, earlier)
    state = fleet.state()
    job = fleet.service.revert("web")
    kill_in(fleet, job, task)
    fleet.service.rollback(job.migration_id)
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.FINISHED
    assert fleet.state() == state, fleet.story(job)
    checks.same_machine(before, checks.report_on(fleet, "h2", 2, vcpus=2))
    assert checks.runs_only_on(fleet.guest, "h2")
    with fleet.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None
