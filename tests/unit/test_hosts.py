"""Allocations on hosts: by the formula, on another host and on the same one, and never more than there is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import NotFound, NoValidHost
from resizeflow.persistence.hosts import Amount, instance_consumer, migration_consumer
from resizeflow.persistence.transaction import Transaction
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.conftest import BOTH

OLD = (1, 512, 1)
NEW = (2, 1024, 2)
"""The flavor `big`."""
MIXED = (3, 128, 4)
"""More vCPUs and disk than `web` has, less memory."""
NOTHING = (0, 0, 0)
Held = dict[tuple[str, str], tuple[int, int, int]]


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build(running=False)


def used(cloud: Cloud, name: str) -> tuple[int, int, int]:
    with cloud.database.read() as tx:
        host = tx.hosts.get(name)
        return host.used_vcpus, host.used_memory_mb, host.used_disk_gb


def held(cloud: Cloud, job: Submitted | None = None) -> Held:
    """Who holds what where: `instance` or `migration`."""
    names = {instance_consumer(cloud.uuid): "instance"}
    if job is not None:
        names[migration_consumer(job.migration_id)] = "migration"
    with cloud.database.read() as tx:
        hosts = {host.id: host.name for host in tx.hosts.list()}
        rows: Held = {
            (names[row.consumer], hosts[row.host_id]): (row.vcpus, row.memory_mb, row.disk_gb)
            for row in tx.hosts.allocations()
        }
        for host in tx.hosts.list():
            mine = [(r.vcpus, r.memory_mb, r.disk_gb) for r in tx.hosts.allocations(host.id)]
            assert used(cloud, host.name) == tuple(map(sum, zip(*mine, strict=True))) if mine else NOTHING
    return rows


def test_an_adopted_machine_holds_its_flavor(cloud: Cloud) -> None:
    assert held(cloud) == {("instance", "h1"): OLD}
    assert used(cloud, "h1") == OLD
    assert used(cloud, "h2") == NOTHING


@pytest.mark.parametrize("decision", ["confirm", "revert", "rollback"])
def test_on_another_host(cloud: Cloud, decision: str) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert held(cloud, job) == {("instance", "h1"): OLD}
    if decision == "rollback":
        cloud.world.fail("h2", "define", "no")
        assert cloud.run(job) is JobState.DONE
        assert held(cloud, job) == {("instance", "h1"): OLD}
        return
    assert cloud.run(job) is JobState.DONE
    assert held(cloud, job) == {("migration", "h1"): OLD, ("instance", "h2"): NEW}
    decided = cloud.service.confirm("web") if decision == "confirm" else cloud.service.revert("web")
    assert cloud.run(decided) is JobState.DONE
    assert held(cloud, job) == ({("instance", "h2"): NEW} if decision == "confirm" else {("instance", "h1"): OLD})


@BOTH
@pytest.mark.parametrize("decision", ["confirm", "revert", "rollback"])
def test_on_the_same_host(cloud: Cloud, decision: str) -> None:
    """vCPUs and memory: the larger of both flavors; disk: the sum, until one of both is gone."""
    cloud.inventory.create_flavor("mixed", vcpus=MIXED[0], memory_mb=MIXED[1], root_gb=MIXED[2])
    job = cloud.service.resize("web", "mixed", host="h1")
    if decision == "rollback":
        cloud.world.fail("h1", "grow_volume", "no")
        assert cloud.run(job) is JobState.DONE
        assert held(cloud, job) == {("instance", "h1"): OLD}
        assert used(cloud, "h1") == OLD
        return
    assert cloud.run(job) is JobState.DONE
    assert held(cloud, job) == {("migration", "h1"): OLD, ("instance", "h1"): (2, 0, 4)}
    assert used(cloud, "h1") == (3, 512, 5)
    decided = cloud.service.confirm("web") if decision == "confirm" else cloud.service.revert("web")
    assert cloud.run(decided) is JobState.DONE, cloud.story(decided)
    kept = MIXED if decision == "confirm" else OLD
    assert held(cloud, job) == {("instance", "h1"): kept}
    assert used(cloud, "h1") == kept


def test_the_formula_for_any_two_flavors(cloud: Cloud) -> None:
    dice = random.Random(3)  # noqa: S311 - no secret
    job = cloud.service.resize("web", "big")
    for number in range(30):
        with cloud.database.write() as tx:
            old, new = (
                tx.flavors.create(
                    f"{side}-{number}",
                    vcpus=dice.randint(1, 4),
                    memory_mb=dice.randint(1, 2048),
                    root_gb=dice.randint(0, 20),
                    ephemeral_gb=dice.choice((0, 3)),
                )
                for side in ("old", "new")
            )
            tx.session.flush()
            migration = tx.migrations.get(job.migration_id)
            instance = tx.instances.get("web")
            migration.old_flavor, migration.new_flavor, instance.flavor = old, new, old
            migration.volume_backed = instance.volume_backed = number % 3 == 0
            source, target = tx.hosts.get("h1"), tx.hosts.get(dice.choice(("h1", "h2")))
            before, after = (
                Amount(size.vcpus, size.memory_mb, size.ephemeral_gb + (size.root_gb if number % 3 else 0))
                for size in (old, new)
            )
            tx.hosts.release(instance_consumer(instance.id))
            tx.hosts.allocate(source, instance_consumer(instance.id), before)
            tx.hosts.take_destination(migration, target)
            expected = {"h1": before, "h2": after}
            if target is source:
                expected = {
                    "h1": Amount(
                        max(before.vcpus, after.vcpus),
                        max(before.memory_mb, after.memory_mb),
                        before.disk_gb + after.disk_gb,
                    ),
                    "h2": Amount(0, 0, 0),
                }
            assert _used_now(tx) == expected
            if number % 2:
                tx.hosts.give_destination_back(migration)
                tx.hosts.give_destination_back(migration)
                expected = {"h1": before, "h2": Amount(0, 0, 0)}
            else:
                instance.host, instance.flavor = target, new
                tx.hosts.settle_destination(migration, instance)
                expected = {"h1": Amount(0, 0, 0), "h2": Amount(0, 0, 0), target.name: after}
            assert _used_now(tx) == expected
            tx.session.rollback()
    assert held(cloud, job) == {("instance", "h1"): OLD}


def _used_now(tx: Transaction) -> dict[str, Amount]:
    """What the counters say within a transaction."""
    hosts = tx.hosts.list()
    for host in hosts:
        tx.session.refresh(host)
    return {host.name: Amount(host.used_vcpus, host.used_memory_mb, host.used_disk_gb) for host in hosts}


@pytest.mark.parametrize(
    ("limits", "fits", "too_much"),
    [
        ({"cpu_ratio": 2.0}, Amount(16, 1, 0), Amount(17, 1, 0)),
        ({"cpu_ratio": 0.5}, Amount(4, 1, 0), Amount(5, 1, 0)),
        ({"ram_ratio": 1.0, "reserved_memory_mb": 384}, Amount(1, 16000, 0), Amount(1, 16001, 0)),
        ({"ram_ratio": 1.5, "reserved_memory_mb": 0}, Amount(1, 24576, 0), Amount(1, 24577, 0)),
        ({"disk_ratio": 1.0}, Amount(1, 1, 100), Amount(1, 1, 101)),
    ],
)
def test_no_more_than_the_ratios_allow(cloud: Cloud, limits: dict[str, Any], fits: Amount, too_much: Amount) -> None:
    cloud.inventory.set_host("h2", **limits)
    with pytest.raises(NoValidHost, match="h2 has no room"), cloud.database.write() as tx:
        tx.hosts.allocate(tx.hosts.get("h2"), "instance:one", too_much)
    assert used(cloud, "h2") == NOTHING
    with cloud.database.write() as tx:
        tx.hosts.allocate(tx.hosts.get("h2"), "instance:one", fits)
    with pytest.raises(NoValidHost), cloud.database.write() as tx:
        tx.hosts.allocate(tx.hosts.get("h2"), "instance:two", fits)
    with cloud.database.write() as tx:
        tx.hosts.allocate(tx.hosts.get("h2"), "instance:two", fits, force=True)
        tx.hosts.release("instance:one")
        tx.hosts.release("instance:one")
    assert used(cloud, "h2") == (fits.vcpus, fits.memory_mb, fits.disk_gb)


@BOTH
def test_the_last_room_taken_between_choice_and_allocation(cloud: Cloud) -> None:
    """The counter decides, not the snapshot: the resize is rolled back and nothing is over-allocated."""
    cloud.inventory.set_host("h2", cpu_ratio=0.25)
    job = cloud.service.resize("web", "big", host="h2")
    with cloud.database.write() as tx:
        tx.hosts.allocate(tx.hosts.get("h2"), "instance:faster", Amount(1, 1, 1))
    assert cloud.run(job) is JobState.DONE
    assert "h2" in (cloud.migration(job).error or "")
    assert used(cloud, "h2") == (1, 1, 1)
    assert used(cloud, "h1") == OLD


def test_a_host_that_is_not_there(cloud: Cloud) -> None:
    with cloud.database.read() as tx, pytest.raises(NotFound, match="no host 'h9'"):
        tx.hosts.get("h9")
