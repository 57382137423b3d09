"""The doctor and a real Cinder: what Cinder leaves when it dies in the middle of a call is found, and set right."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from resizeflow.states import JobState
from tests.lab.cinder_cloud import MACHINE, CinderCloud
from tests.lab.conftest import CinderMaker
from tests.planted import breaches, doctor, found, repair

pytestmark = pytest.mark.lab


def undone(cloud: CinderCloud) -> None:
    """A migration of the past, to whose log what is found can be written."""
    job = cloud.service.resize(MACHINE, "big", host="h2")
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert found(cloud) == []


def reserved_by_nobody(cloud: CinderCloud, volume_id: str) -> None:
    """As if Cinder had been killed between its two writes: the volume, then the attachment."""
    client = cloud.cinder.client()
    for attachment in client.attachments.list(search_opts={"volume_id": volume_id}):
        client.attachments.delete(attachment.id)
    with contextlib.closing(sqlite3.connect(cloud.cinder.database)) as cinder, cinder:
        cinder.execute("UPDATE volumes SET status = 'reserved' WHERE id = ?", (volume_id,))


@pytest.mark.parametrize("kind", ["rbd", "iscsi", "nfs"])
def test_a_volume_reserved_by_nobody_is_attached_again(make_cinder_cloud: CinderMaker, kind: str) -> None:
    cloud = make_cinder_cloud().build_machine(kind)
    undone(cloud)
    [volume_id] = cloud.volumes
    reserved_by_nobody(cloud, volume_id)
    [breach] = breaches(cloud)
    assert (breach.invariant, breach.subject) == (5, f"volume {volume_id} of {MACHINE}")
    assert "interrupted between the two writes" in breach.found
    repair(cloud)
    assert found(cloud) == []
    kept = cloud.kept(volume_id)
    assert (kept.status, kept.attachments) == ("in-use", ((cloud.uuid, "attached", "h1"),))


def test_a_blank_orphan_is_deleted_and_a_silent_cinder_named(make_cinder_cloud: CinderMaker) -> None:
    cloud = make_cinder_cloud().build_machine("nfs")
    undone(cloud)
    [volume_id] = cloud.volumes
    orphan = cloud.cinder.client().attachments.create(volume_id, None, cloud.uuid)["id"]
    assert found(cloud) == [(5, f"attachment {orphan} of {MACHINE}")]
    cloud.cinder.kill()
    try:
        assert list(doctor(cloud).examine().silent) == ["Cinder"]
    finally:
        cloud.cinder.start()
    repair(cloud)
    assert found(cloud) == []
    assert cloud.kept(volume_id).attachments == ((cloud.uuid, "attached", "h1"),)
