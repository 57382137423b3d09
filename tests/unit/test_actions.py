"""Instance actions and events by Nova's names, from the log: each has an end once its action is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow import flows
from resizeflow.actions import PHASES, ActionEvent, action_of, actions_of, events_of
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import NotFound
from resizeflow.service import Submitted
from resizeflow.states import JobState

RESIZE = [
    "conductor_migrate_server",
    "cold_migrate",
    "compute_prep_resize",
    "compute_resize_instance",
    "compute_finish_resize",
]


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


def run(cloud: Cloud, job: Submitted) -> Submitted:
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    return job


def events(cloud: Cloud, job: Submitted, instance: str = "web") -> list[ActionEvent]:
    with cloud.database.read() as tx:
        return events_of(tx, action_of(tx, instance, job.job_id))


@pytest.mark.slow
def test_each_operation_is_an_action_by_novas_name(cloud: Cloud) -> None:
    resize = run(cloud, cloud.service.resize("web", "big", host="h2"))
    revert = run(cloud, cloud.service.revert("web"))
    migrate = run(cloud, cloud.service.migrate("web"))
    confirm = run(cloud, cloud.service.confirm("web"))
    with cloud.database.read() as tx:
        told = [(action.job.id, action.name, action.result) for action in actions_of(tx, "web")]
    assert told == [
        (confirm.job_id, "confirmResize", "Success"),
        (migrate.job_id, "migrate", "Success"),
        (revert.job_id, "revertResize", "Success"),
        (resize.job_id, "resize", "Success"),
    ]
    assert [(e.event, e.host, e.result) for e in events(cloud, resize)[2:]] == [
        ("compute_prep_resize", "h2", "Success"),
        ("compute_resize_instance", "h1", "Success"),
        ("compute_finish_resize", "h2", "Success"),
    ]
    assert [(e.event, e.host, e.result) for e in events(cloud, revert)] == [
        ("compute_revert_resize", "h2", "Success"),
        ("compute_finish_revert_resize", "h1", "Success"),
    ]
    assert [(e.event, e.host, e.result) for e in events(cloud, confirm)] == [
        ("compute_confirm_resize", "h1", "Success")
    ]
    ends = [e.finish for e in events(cloud, resize)]
    assert ends == sorted(end for end in ends if end is not None)


def test_every_task_of_a_flow_belongs_to_an_event(cloud: Cloud) -> None:
    for name, tasks in flows.TASKS.items():
        phases = PHASES.get(name.partition("_v")[0], ())
        names = [task.__name__ for task in tasks]
        covered = {task for p in phases for task in names[names.index(p.first) : names.index(p.last) + 1]}
        assert covered == (set() if name.startswith("settle") else set(names)), name


@pytest.mark.parametrize(
    ("point", "results"),
    [
        ("flow.RUNNING.after", ["Error", "Error"]),
        ("CaptureSource.RUNNING.after", ["Success", "Success", "Error"]),
        ("TransferDisks.RUNNING.after", ["Success", "Success", "Success", "Error"]),
        ("MoveInstance.SUCCESS.after", ["Success", "Success", "Success", "Success"]),
        ("DefineDestination.SUCCESS.after", ["Success", "Success", "Success", "Success", "Error"]),
    ],
)
def test_every_event_has_an_end_after_a_crash_and_a_rollback(cloud: Cloud, point: str, results: list[str]) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    cloud.service.rollback(job.migration_id)
    run(cloud, job)
    found = events(cloud, job)
    assert [(e.event, e.result) for e in found] == list(zip(RESIZE, results, strict=False))
    assert all(e.finish is not None and e.finish >= e.start for e in found)
    assert {e.details for e in found if e.result == "Error"} <= {"rolled back on request"}
    with cloud.database.read() as tx:
        assert action_of(tx, "web", job.job_id[:8]).result == "Error"


@pytest.mark.slow
def test_what_goes_on_has_no_end_yet_and_a_failure_says_why(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "TransferDisks.RUNNING.after") == KILLED
    going = events(cloud, job)[-1]
    assert (going.event, going.finish, going.result) == ("compute_resize_instance", None, None)
    cloud.world.fail("h2", "define", "the host says no")
    run(cloud, job)
    last = events(cloud, job)[-1]
    assert (last.event, last.result) == ("compute_finish_resize", "Error")
    assert "the host says no" in (last.details or "")


def test_actions_of_a_machine_that_is_managed_no_more_are_kept(cloud: Cloud) -> None:
    job = run(cloud, cloud.service.resize("web", "big", host="h2"))
    run(cloud, cloud.service.confirm("web"))
    assert cloud.service.remove("web") is None
    with cloud.database.read() as tx:
        assert len(actions_of(tx, "web")) == len(actions_of(tx, cloud.uuid)) == 2
    assert [e.event for e in events(cloud, job)] == RESIZE


def test_unknown_machines_and_requests_are_said_to_be(cloud: Cloud) -> None:
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    with cloud.database.read() as tx:
        with pytest.raises(NotFound, match="no managed instance"):
            actions_of(tx, "nobody")
        with pytest.raises(NotFound, match="event list web"):
            action_of(tx, "web", "zzz")
