"""No more moves per host than it allows: the next machine waits, and runs while it waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, TaskState
from tests.conftest import BOTH


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    """`web` and `db` on h1, `far` on h2; one move at a time on h1."""
    cloud = Cloud(memory_path, connection=thorough_connection).build()
    cloud.world.add_host("h3", vcpus=8, memory_mb=16384, pool_gb=100)
    uri = cloud.world.uri("h3")
    cloud.inventory.add_host("h3", uri, peer_uri=uri, data_uri="tcp://198.51.100.13")
    for host, name in (("h1", "db"), ("h2", "far")):
        cloud.world.create_guest(host, name, 1, 512, {"vda": 1})
        cloud.inventory.adopt(host, name)
    cloud.inventory.set_host("h1", max_moves=1)
    return cloud


def uuid_of(cloud: Cloud, name: str) -> str:
    with cloud.database.read() as tx:
        return tx.instances.get(name).id


def in_flight(cloud: Cloud) -> Submitted:
    """A resize of `web` from h1 to h2 that is in the middle of its transfer, its worker dead."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "RetireSource.SUCCESS.after") == KILLED
    assert cloud.migration(job).status is MigrationStatus.MIGRATING
    return job


@BOTH
@pytest.mark.parametrize(("name", "target"), [("db", "h3"), ("far", "h1")])
def test_the_second_waits_while_the_first_is_migrating(cloud: Cloud, name: str, target: str) -> None:
    first = in_flight(cloud)
    second = cloud.service.resize(name, "big", host=target)
    home = cloud.world.running(uuid_of(cloud, name))
    for _ in range(3):
        assert cloud.run(second) is JobState.QUEUED
        row = cloud.job(second)
        assert row.reason == "h1 has 1 moves in flight, 1 allowed"
        assert row.attempts <= 1
        assert row.not_before > 0
    assert cloud.migration(second).status is MigrationStatus.PRE_MIGRATING
    assert cloud.world.running(uuid_of(cloud, name)) == home
    assert not [effect for effect in cloud.world.effects() if effect.subject == uuid_of(cloud, name)]
    with cloud.database.read() as tx:
        assert tx.instances.get(name).task_state is TaskState.RESIZE_PREP
    assert cloud.run(first) is JobState.DONE
    assert cloud.run(second) is JobState.DONE, cloud.story(second)
    assert cloud.world.running(uuid_of(cloud, name)) == (target,)


def test_a_waiting_move_can_be_rolled_back(cloud: Cloud) -> None:
    in_flight(cloud)
    second = cloud.service.resize("db", "big", host="h3")
    assert cloud.run(second) is JobState.QUEUED
    cloud.service.rollback(second.migration_id)
    assert cloud.run(second) is JobState.DONE
    assert cloud.migration(second).status is MigrationStatus.ERROR
    assert cloud.world.running(uuid_of(cloud, "db")) == ("h1",)


def test_another_limit_lets_it_go(cloud: Cloud) -> None:
    in_flight(cloud)
    second = cloud.service.resize("db", "big", host="h3")
    assert cloud.run(second) is JobState.QUEUED
    cloud.inventory.set_host("h1", max_moves=2)
    assert cloud.run(second) is JobState.DONE


def test_a_move_between_other_hosts_does_not_wait(cloud: Cloud) -> None:
    in_flight(cloud)
    other = cloud.service.resize("far", "big", host="h3")
    assert cloud.run(other) is JobState.DONE


def test_a_move_that_was_resumed_does_not_wait_for_itself(cloud: Cloud) -> None:
    job = in_flight(cloud)
    assert cloud.run(job) is JobState.DONE
