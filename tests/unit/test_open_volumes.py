"""A destination that went away may have a volume open: the source is not started before nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.simulator.network_disks import SHARED
from resizeflow.service import Submitted
from resizeflow.states import JobState

STARTED = "StartDestination.complete_attachment#1.before"
"""The machine is at the destination, paused, and its worker is killed."""


def stranded(folder: Path, kind: str) -> tuple[Cloud, Submitted]:
    """A resize whose destination has the machine, paused, and cannot be reached; it is to be rolled back."""
    cloud = Cloud(folder).build(volumes=(kind,))
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, STARTED) == KILLED
    assert cloud.world.cinder_volume(cloud.volumes[0]).open_at == ("h2",)
    cloud.world.set_up("h2", False)
    cloud.service.rollback(job.migration_id)
    cloud.run(job, tries=2)
    return cloud, job


def shared(cloud: Cloud) -> bool:
    return any(effect.method == SHARED for effect in cloud.world.effects())


def test_the_source_waits_while_an_image_is_open_elsewhere(memory_path: Path) -> None:
    cloud, job = stranded(memory_path, "rbd")
    row = cloud.job(job)
    assert row.state is JobState.QUEUED
    assert f"vdm is still open at h2: volume {cloud.volumes[0]}" in (row.reason or "")
    assert cloud.world.running(cloud.uuid) == ()
    cloud.world.crash("h2")
    cloud.run(job, tries=2)
    assert cloud.world.running(cloud.uuid) == ("h1",)
    assert not shared(cloud)


def test_a_target_cuts_the_destination_off_so_the_source_need_not_wait(memory_path: Path) -> None:
    cloud, job = stranded(memory_path, "iscsi")
    assert cloud.job(job).state is JobState.DONE, cloud.story(job)
    assert cloud.world.running(cloud.uuid) == ("h1",)
    seen = cloud.world.cinder_volume(cloud.volumes[0])
    assert (seen.attachments, seen.open_at) == (((cloud.uuid, "attached", "h1"),), ("h1",))
    assert not shared(cloud)


@pytest.mark.parametrize("kind", ["rbd", "iscsi", "nfs"])
def test_when_the_destination_is_back_all_is_as_before(memory_path: Path, kind: str) -> None:
    cloud, job = stranded(memory_path, kind)
    cloud.world.set_up("h2", True)
    cloud.run(job, tries=2)
    assert cloud.job(job).state is JobState.DONE, cloud.story(job)
    assert cloud.world.running(cloud.uuid) == ("h1",)
    seen = cloud.world.cinder_volume(cloud.volumes[0])
    assert (seen.status, seen.attachments) == ("in-use", ((cloud.uuid, "attached", "h1"),))
