"""Failpoints: that every commit is one, and that an error at one is a database that is away, never a failed task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resizeflow import failpoints
from resizeflow.chaos.case import Case
from resizeflow.chaos.child import KILLED, Child
from resizeflow.chaos.cloud import CHILD_SECONDS, Cloud
from resizeflow.chaos.laboratory import Laboratory
from resizeflow.persistence.database import AWAY
from resizeflow.states import Direction, JobState

FEW = 9
"""Each so many-th point is in every run."""


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory("small", tmp_path_factory.mktemp("points") / "small")
    yield made
    made.remove()


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def commits(laboratory: Laboratory) -> list[str]:
    acts = {point.removesuffix(".checked") for point in laboratory.points if point.endswith(".checked")}
    return [
        point
        for point in laboratory.points
        if point.endswith((".before", ".after")) and point.rpartition(".")[0] not in acts
    ]


@pytest.mark.slow
@pytest.mark.parametrize("every", [FEW, pytest.param(1, marks=pytest.mark.certify)], ids=["few", "all"])
def test_an_error_at_a_commit_hands_the_job_over(laboratory: Laboratory, every: int) -> None:
    points = commits(laboratory)
    assert {"job.take.before", "job.take.after"} <= set(points)
    for point in points[::every]:
        result = laboratory.run(Case("small", (f"fail@{point}",)))
        assert result.wrong == [], f"{point}\n{result.story}"
        assert laboratory.cloud.job(laboratory.job).direction is Direction.FORWARD, point


def test_every_commit_of_a_flow_passes_points_on_both_sides(laboratory: Laboratory) -> None:
    points = set(commits(laboratory))
    for point in points:
        name, _, moment = point.rpartition(".")
        assert f"{name}.{'after' if moment == 'before' else 'before'}" in points


@pytest.mark.parametrize(("moment", "accepted"), [("before", False), ("after", True)])
def test_a_submit_that_dies_is_there_whole_or_not_at_all(memory_path: Path, moment: str, accepted: bool) -> None:
    cloud = Cloud(memory_path).build()
    before = cloud.state()
    cloud.release()
    child = Child(lambda: cloud.service.resize("web", "big", host="h2"), f"job.submit.{moment}=kill")
    assert child.wait(CHILD_SECONDS) == KILLED
    if not accepted:
        assert cloud.state() == before
        return
    with cloud.database.read() as tx:
        instance = tx.instances.get("web")
        job = tx.jobs.busy(instance.id)
        assert job is not None
    again = cloud.service.resume(job.migration_id)
    assert cloud.run(again) is JobState.DONE
    assert cloud.world.running(cloud.uuid) == ("h2",)


@pytest.mark.usefixtures("disarmed")
def test_an_error_at_a_submit_is_that_of_a_database_that_is_away(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    before = cloud.state()
    failpoints.arm("job.submit.before=raise")
    with pytest.raises(AWAY):
        cloud.service.resize("web", "big", host="h2")
    failpoints.arm("")
    assert cloud.state() == before


@pytest.mark.usefixtures("disarmed")
def test_actions_and_the_log(tmp_path: Path) -> None:
    failpoints.arm("a=raise;b=lose-reply;c=nonsense", str(tmp_path / "log"))
    failpoints.hit("other")
    with pytest.raises(failpoints.FailpointError, match="a"):
        failpoints.hit("a")
    with pytest.raises(failpoints.ReplyLost, match="b"):
        failpoints.hit("b")
    with pytest.raises(ValueError, match="nonsense"):
        failpoints.hit("c")
    assert (tmp_path / "log").read_text().split() == ["other", "a", "b", "c"]
