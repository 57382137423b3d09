"""Nova's tests and bugs about volumes: what they ask for holds, at a worker's death as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import VOLUMES, Cloud
from resizeflow.drivers import definition
from resizeflow.looks import Looks
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.planted import by_hand, xml_of
from tests.seen import look
from tests.spread import spread


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build(volumes=("rbd", "iscsi"))


def resized(cloud: Cloud) -> Submitted:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return job


def devices(cloud: Cloud, host: str) -> dict[str, str]:
    """The volumes in the machine's definition on a host, and that it is running with them."""
    with cloud.database.read() as tx:
        there = Looks(cloud.connections, cloud.settings, cloud.clock).host(tx.hosts.get(host))
    domain = there.domain(cloud.uuid)
    assert domain is not None
    assert domain.live_xml is not None
    found = definition.volumes(domain.live_xml)
    assert found == definition.volumes(domain.inactive_xml)
    return found


def test_volumes_are_connected_where_the_machine_is(cloud: Cloud) -> None:
    """LP 1737599: what tells how a volume is opened was wiped, so that it could not be at the destination."""
    before = devices(cloud, "h1")
    job = resized(cloud)
    assert devices(cloud, "h2") == before
    assert [cloud.world.cinder_volume(volume).open_at for volume in cloud.volumes] == [("h2",), ("h2",)]
    assert look(cloud, job).volume == "in-use at h2, 1 reserved; in-use at h2, 1 reserved"
    assert cloud.run(cloud.service.revert("web")) is JobState.DONE
    assert devices(cloud, "h1") == before
    assert [cloud.world.cinder_volume(volume).open_at for volume in cloud.volumes] == [("h1",), ("h1",)]


@pytest.mark.slow
def test_a_volume_detached_while_resized_stays_detached_when_reverted(cloud: Cloud) -> None:
    """test_resize_revert_detach_volume_while_resized."""
    job = resized(cloud)
    cloud.world.detach_volume("h2", cloud.uuid, cloud.volumes[0])
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert devices(cloud, "h1") == {VOLUMES[1]: cloud.volumes[1]}
    assert look(cloud, job).volume == "available at no host; in-use at h1"
    with cloud.database.read() as tx:
        assert [row.volume_id for row in tx.instances.get("web").volumes] == [cloud.volumes[1]]


@pytest.mark.slow
def test_a_volume_attached_while_resized_goes_along_when_reverted(cloud: Cloud) -> None:
    resized(cloud)
    added = cloud.world.create_cinder_volume("nfs")
    cloud.world.attach_volume("h2", cloud.uuid, added, "vdz")
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert devices(cloud, "h1")["vdz"] == added
    assert cloud.world.cinder_volume(added).open_at == ("h1",)


def test_a_volume_that_only_the_running_machine_has_is_not_lost_by_a_revert(cloud: Cloud) -> None:
    job = resized(cloud)
    by_hand(cloud, "h2", "define", definition.without_disk(xml_of(cloud, "h2"), VOLUMES[0]))
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert f"web has disk {VOLUMES[0]} only until it is shut down" in cloud.story(revert)
    assert cloud.world.running(cloud.uuid) == ("h2",)


SWAP_OF_ATTACHMENTS = [
    f"DetachSourceVolumes.{act}.{when}"
    for act in ("create_attachment#1", "commit.attachment#1", "delete_attachment#1", "delete_attachment#2")
    for when in ("before", "after")
]
"""Where Nova was measured, or read, to leave two attachments, or one that nobody knows."""


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True], ids=["resumed", "rolled back"])
@pytest.mark.parametrize("point", spread(SWAP_OF_ATTACHMENTS, 3))
def test_killed_in_the_swap_of_attachments(cloud: Cloud, point: str, back: bool) -> None:
    """No attachment dangles, none is double, whoever goes on (Nova's 26 and 27)."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    cloud.expire(job)
    if back:
        cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    host, kept = ("h1", "") if back else ("h2", ", 1 reserved")
    assert look(cloud, job).volume == f"in-use at {host}{kept}; in-use at {host}{kept}"
    assert cloud.migration(job).status is (MigrationStatus.ERROR if back else MigrationStatus.FINISHED)
