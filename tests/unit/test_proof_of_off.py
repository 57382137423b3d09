"""A machine is started again only where it is proven that it does not run elsewhere; a fence is such a proof, if it is
newer than the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


def fenced_too_early(cloud: Cloud) -> Submitted:
    """A finished resize whose destination was fenced before the machine was started there."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "SelectDestination.SUCCESS.after") == KILLED
    cloud.inventory.set_host("h2", fenced=True)
    assert cloud.run(job) is JobState.DONE
    assert cloud.world.running(cloud.uuid) == ("h2",)
    return job


def test_a_fence_older_than_the_machine_proves_nothing(cloud: Cloud) -> None:
    job = fenced_too_early(cloud)
    cloud.world.set_up("h2", False)
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE
    assert "--fenced" in (cloud.migration(job).error or "")
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert cloud.world.running(cloud.uuid) == ("h2",)


@pytest.mark.parametrize("point", ["CheckSource.SUCCESS.after", "RetireDestination.SUCCESS.after"])
def test_a_destination_that_dies_in_a_revert_keeps_nobody_waiting_once_it_is_fenced(cloud: Cloud, point: str) -> None:
    """The revert turns back and waits for the host; fenced, it is a finished resize again, and can be reverted."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    revert = cloud.service.revert("web")
    assert cloud.run_in_child(revert, point) == KILLED
    cloud.world.crash("h2")
    cloud.service.rollback(revert.migration_id)
    if point.startswith("Retire"):
        assert cloud.run(revert) is JobState.QUEUED
    cloud.inventory.set_host("h2", fenced=True)
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    again = cloud.service.revert("web")
    assert cloud.run(again) is JobState.DONE, cloud.story(again)
    assert cloud.migration(job).status is MigrationStatus.REVERTED
    assert cloud.world.running(cloud.uuid) == ("h1",)
