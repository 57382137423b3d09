"""A destination that cannot take the machine gives way to the next alternate, before the machine is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import NoValidHost
from resizeflow.persistence.hosts import Amount
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.conftest import BOTH

MIB = 2**20


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    """h3 has more memory than h4, h4 more than h2: that is the order in which they are chosen."""
    cloud = Cloud(memory_path, connection=thorough_connection).build()
    for name, memory_mb in (("h3", 65536), ("h4", 32768)):
        cloud.world.add_host(name, vcpus=8, memory_mb=memory_mb, pool_gb=100)
        uri = cloud.world.uri(name)
        cloud.inventory.add_host(name, uri, peer_uri=uri, data_uri="tcp://198.51.100.12")
    cloud.inventory.set_host("h1", enabled=False)
    return cloud


def chosen(cloud: Cloud) -> Submitted:
    """A resize whose destination is selected, its worker dead."""
    job = cloud.service.resize("web", "big")
    assert cloud.run_in_child(job, "SelectDestination.SUCCESS.after") == KILLED
    assert destination(cloud, job) == "h3"
    with cloud.database.read() as tx:
        assert [tx.hosts.get(host).name for host in cloud.migration(job).alternates] == ["h4", "h2"]
    return job


def destination(cloud: Cloud, job: Submitted) -> str | None:
    host = cloud.migration(job).dest_host
    return host.name if host else None


def used(cloud: Cloud) -> dict[str, int]:
    """MiB of memory allocated, by host."""
    with cloud.database.read() as tx:
        return {host.name: host.used_memory_mb for host in tx.hosts.list()}


def down(cloud: Cloud, host: str) -> None:
    cloud.world.set_up(host, False)


def full(cloud: Cloud, host: str) -> None:
    cloud.world.set_free_bytes(host, MIB)


def clashing(cloud: Cloud, host: str) -> None:
    cloud.world.create_guest(host, "web", 1, 128, {"vda": 1}, running=False)


@pytest.mark.parametrize(("spoil", "reason"), [(down, "down"), (full, "1 MiB free"), (clashing, "has a domain web")])
def test_the_next_takes_its_place(cloud: Cloud, spoil: Callable[[Cloud, str], None], reason: str) -> None:
    job = chosen(cloud)
    assert used(cloud) == {"h1": 512, "h2": 0, "h3": 1024, "h4": 0}
    spoil(cloud, "h3")
    assert cloud.run(job) is JobState.DONE
    migration = cloud.migration(job)
    assert migration.status is MigrationStatus.FINISHED, cloud.story(job)
    assert destination(cloud, job) == "h4"
    assert reason in migration.verdicts["h3"]
    assert migration.verdicts["h4"] == "chosen as alternate"
    assert used(cloud) == {"h1": 512, "h2": 0, "h3": 0, "h4": 1024}
    assert cloud.world.running(cloud.uuid) == ("h4",)
    with cloud.database.read() as tx:
        bound = [binding.host_id for port in tx.instances.get("web").ports for binding in port.bindings]
        assert tx.hosts.get("h3").id not in bound


@BOTH
def test_the_one_after_next(cloud: Cloud) -> None:
    job = chosen(cloud)
    full(cloud, "h3")
    down(cloud, "h4")
    assert cloud.run(job) is JobState.DONE
    assert destination(cloud, job) == "h2"
    assert used(cloud) == {"h1": 512, "h2": 1024, "h3": 0, "h4": 0}
    assert cloud.migration(job).alternates == []


def test_an_alternate_without_room_is_passed_over(cloud: Cloud) -> None:
    job = chosen(cloud)
    full(cloud, "h3")
    with cloud.database.write() as tx:
        tx.hosts.allocate(tx.hosts.get("h4"), "instance:faster", Amount(1, 32000, 1))
    assert cloud.run(job) is JobState.DONE
    assert destination(cloud, job) == "h2"
    assert used(cloud) == {"h1": 512, "h2": 1024, "h3": 0, "h4": 32000}


def test_when_all_have_failed_it_is_as_before(cloud: Cloud) -> None:
    tables = cloud.tables()
    job = chosen(cloud)
    for host in ("h2", "h3", "h4"):
        full(cloud, host)
    world, effects = cloud.world.snapshot(), len(cloud.world.effects())
    assert cloud.run(job) is JobState.DONE
    migration = cloud.migration(job)
    assert migration.status is MigrationStatus.ERROR
    assert "No valid host" in (migration.error or "")
    assert {host for host, why in migration.verdicts.items() if "1 MiB free" in why} >= {"h3", "h4"}
    assert cloud.tables() == tables
    assert cloud.world.snapshot() == world
    assert len(cloud.world.effects()) == effects
    assert cloud.world.running(cloud.uuid) == ("h1",)


def test_a_host_that_was_asked_for_has_no_alternate(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h3")
    full(cloud, "h3")
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert used(cloud) == {"h1": 512, "h2": 0, "h3": 0, "h4": 0}


@BOTH
@pytest.mark.parametrize("point", ["PrepareDestination.commit.alternate#1.before", "PrepareDestination.SUCCESS.before"])
def test_killed_while_it_changes_the_destination(cloud: Cloud, point: str) -> None:
    job = chosen(cloud)
    full(cloud, "h3")
    cloud.expire(job)
    assert cloud.run_in_child(job, point) == KILLED
    assert cloud.run(job) is JobState.DONE
    assert destination(cloud, job) == "h4"
    assert used(cloud) == {"h1": 512, "h2": 0, "h3": 0, "h4": 1024}


# --- filters, looked at again when an alternate is taken ---------------------------------------------------------


@pytest.mark.slow
def test_an_alternate_that_no_longer_passes_is_passed_over(cloud: Cloud) -> None:
    job = chosen(cloud)
    full(cloud, "h3")
    cloud.inventory.set_host("h4", enabled=False, disabled_reason="new disks")
    assert cloud.run(job) is JobState.DONE
    assert destination(cloud, job) == "h2"
    verdicts = cloud.migration(job).verdicts
    assert verdicts["h4"] == "no longer: disabled (new disks)"
    assert next(iter(verdicts)) == "h2"


@pytest.mark.slow
def test_an_alternate_to_which_a_member_of_the_group_went(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        tx.groups.create("db", "anti-affinity", "default")
    cloud.inventory.set_instance("web", group_name="db")
    cloud.world.create_guest("h2", "other", 1, 128, {"vda": 1}, running=False)
    cloud.inventory.adopt("h2", "other")
    cloud.inventory.set_instance("other", group_name="db")
    job = cloud.service.resize("web", "big")
    assert cloud.run_in_child(job, "SelectDestination.SUCCESS.after") == KILLED
    with cloud.database.read() as tx:
        assert [tx.hosts.get(host).name for host in cloud.migration(job).alternates] == ["h4"]
    going = cloud.service.migrate("other", host="h4")
    assert cloud.run_in_child(going, "SelectDestination.SUCCESS.after") == KILLED
    full(cloud, "h3")
    assert cloud.run(job) is JobState.DONE
    migration = cloud.migration(job)
    assert migration.status is MigrationStatus.ERROR
    assert migration.verdicts["h4"] == "no longer: other of anti-affinity group db is there, or may be"
    assert used(cloud) == {"h1": 512, "h2": 128, "h3": 0, "h4": 128}
    assert cloud.world.running(cloud.uuid) == ("h1",)


def test_a_cpu_that_the_host_has_not(cloud: Cloud) -> None:
    """Nothing is powered off for a machine that its destination would not start."""
    cpu = "<cpu mode='custom' match='exact' check='partial'><model>EPYC</model></cpu>"
    cloud.world.add_host("h5", vcpus=8, memory_mb=4096, pool_gb=50, cpus=("qemu64", "EPYC"))
    uri = cloud.world.uri("h5")
    cloud.inventory.add_host("h5", uri, peer_uri=uri, data_uri="tcp://198.51.100.12")
    cloud.world.create_guest("h5", "modern", 1, 512, {"vda": 1}, cpu=cpu)
    cloud.inventory.adopt("h5", "modern")
    with pytest.raises(NoValidHost, match="CPU is incompatible with host CPU: it is no EPYC: h2, h3, h4"):
        cloud.service.migrate("modern")
    job = cloud.service.resize("modern", "big")
    assert cloud.run(job) is JobState.DONE
    assert destination(cloud, job) == "h5"


# --- what one move was asked to do is nothing to the next --------------------------------------------------------


@pytest.mark.slow
def test_the_host_that_was_asked_for_is_not_remembered(cloud: Cloud) -> None:
    """Nova bugs 1669054, 1718512, 1797580 and 1845291: what a request spec kept (or lost) of an earlier move."""
    cloud.world.set_speed(transfer_seconds=0)
    assert finished(cloud, cloud.service.resize("web", "big", host="h2")) == "h2"
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    cloud.inventory.set_host("h1", enabled=True)
    job = cloud.service.migrate("web")
    full(cloud, "h3")
    assert finished(cloud, job) == "h4"
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    assert finished(cloud, cloud.service.migrate("web", host="h1")) == "h1"


def finished(cloud: Cloud, job: Submitted) -> str | None:
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.FINISHED, cloud.story(job)
    return destination(cloud, job)
