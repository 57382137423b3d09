"""Volumes that move are no breach, at no point of a move; what does not belong to it is found meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.states import JobState
from tests.planted import breaches, check_left_to_people, found, resized
from tests.planted_volumes import attachments, cinder, reserved_by_nobody, volume_of_web


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build(volumes=("rbd",))


@pytest.mark.parametrize(
    "point",
    [
        "ReserveVolumes.create_attachment#1.after",
        "DetachSourceVolumes.create_attachment#1.after",
        "DetachSourceVolumes.delete_attachment#1.after",
        "ConnectVolumes.update_attachment#1.after",
        "DefineDestination.define#1.after",
        "StartDestination.complete_attachment#1.after",
    ],
)
def test_a_volume_in_the_middle_of_a_resize_is_no_breach(cloud: Cloud, point: str) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    assert found(cloud) == []
    cloud.service.rollback(job.migration_id)
    assert cloud.run_in_child(job, "DetachSourceVolumes.revert.update_attachment#1.after") in (0, KILLED)
    assert found(cloud) == []
    assert cloud.run(job, tries=2) is JobState.DONE, cloud.story(job)
    assert found(cloud) == []


@pytest.mark.parametrize(
    ("action", "point"),
    [
        ("confirm", "RemoveReturnAttachments.delete_attachment#1.after"),
        ("revert", "DetachDestinationVolumes.create_attachment#1.after"),
        ("revert", "DetachDestinationVolumes.delete_attachment#1.after"),
        ("revert", "ConnectSourceVolumes.update_attachment#1.after"),
        ("revert", "StartSource.complete_attachment#1.after"),
    ],
)
def test_a_volume_in_the_middle_of_a_decision_is_no_breach(cloud: Cloud, action: str, point: str) -> None:
    resized(cloud)
    job = cloud.service.confirm("web") if action == "confirm" else cloud.service.revert("web")
    assert cloud.run_in_child(job, point) == KILLED
    assert found(cloud) == []
    assert cloud.run(job, tries=2) is JobState.DONE, cloud.story(job)
    assert found(cloud) == []


@pytest.mark.parametrize("action", ["confirm", "revert"])
def test_volumes_may_come_and_go_before_the_decision(cloud: Cloud, action: str) -> None:
    resized(cloud)
    spare = cloud.world.create_cinder_volume("nfs")
    cloud.world.attach_volume("h2", cloud.uuid, spare, "vdp")
    cloud.world.detach_volume("h2", cloud.uuid, cloud.volumes[0])
    assert found(cloud) == []
    job = cloud.service.confirm("web") if action == "confirm" else cloud.service.revert("web")
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert found(cloud) == []
    assert (attachments(cloud), [one.status for one in attachments(cloud, spare)]) == ((), ["attached"])


def test_before_the_decision_definition_and_cinder_must_agree(cloud: Cloud) -> None:
    resized(cloud)
    [own] = [one for one in attachments(cloud) if one.attached]
    cinder(cloud, "delete_attachment", own.id)
    check_left_to_people(cloud, [volume_of_web(cloud)])


def test_an_attachment_that_a_resize_does_not_know(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "ReserveVolumes.SUCCESS.after") == KILLED
    spare = cloud.world.create_cinder_volume("nfs")
    orphan = cinder(cloud, "create_attachment", spare, cloud.uuid)
    assert found(cloud) == []
    cinder(cloud, "update_attachment", orphan, {"host": "h1"})
    check_left_to_people(cloud, [(5, f"attachment {orphan} of web")])


def test_a_resize_whose_volume_is_reserved_by_nobody_says_so(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "CaptureSource.SUCCESS.after") == KILLED
    reserved_by_nobody(cloud)
    check_left_to_people(cloud, [volume_of_web(cloud)])
    assert "then resume the job" in breaches(cloud)[0].expected
