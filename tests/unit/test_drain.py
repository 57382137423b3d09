"""Draining a host: it takes nothing new from that moment, and everything on it leaves, a few machines at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED, Child
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.drain import Fate, drain
from resizeflow.fleet import choose
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Host, Migration
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, VmState
from resizeflow.worker import Worker
from tests.conftest import BOTH
from tests.console import Console
from tests.rivals import Rival, at_once

PATIENCE = 120.0
"""Seconds in which workers that have nothing else to do must have carried a drain out."""


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    """`web` on h1, room for twenty machines on h2 and h3."""
    cloud = Cloud(memory_path, connection=thorough_connection).build()
    cloud.world.add_host("h3", vcpus=8, memory_mb=16384, pool_gb=100)
    uri = cloud.world.uri("h3")
    cloud.inventory.add_host("h3", uri, peer_uri=uri, data_uri="tcp://198.51.100.13")
    return cloud


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


def more(cloud: Cloud, *names: str, host: str = "h1") -> None:
    """Machines of 1 vCPU and 512 MiB, every other one running."""
    for number, name in enumerate(names):
        cloud.world.create_guest(host, name, 1, 512, {"vda": 1}, running=number % 2 == 0)
        cloud.inventory.adopt(host, name)


def fates(cloud: Cloud, host: str = "h1") -> dict[str, Fate]:
    return {fate.instance: fate for fate in drain(cloud.inventory, cloud.service, host)}


def places(cloud: Cloud) -> dict[str, str]:
    with cloud.database.read() as tx:
        return {row.name: row.host.name for row in tx.instances.list()}


def statuses(cloud: Cloud) -> Counter[str]:
    with cloud.database.read() as tx:
        return Counter(tx.session.scalars(sa.select(Migration.status)).all())


@contextmanager
def workers(cloud: Cloud, count: int, jobs: int) -> Iterator[None]:
    """Workers that serve, each on its own connections, in threads."""
    with ExitStack() as stack:
        crew = []
        for _ in range(count):
            database = Database.of(cloud.settings)
            stack.callback(database.engine.dispose)
            crew.append(stack.enter_context(Worker(database, cloud.settings, clock=FastClock())))
        threads = [Rival(lambda worker=worker: worker.serve(jobs)) for worker in crew]  # type: ignore[misc]
        try:
            yield
        finally:
            for worker in crew:
                worker.stop.set()
        assert [thread.end() for thread in threads] == [None] * count


def carried_out(cloud: Cloud) -> None:
    """Waits until no job is left to do."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with cloud.database.read() as tx:
            left = tx.jobs.unfinished_of([row.id for row in tx.migrations.open()])
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError([(job.state, job.reason) for job in left.values()])


@contextmanager
def never_more_than(cloud: Cloud, limits: dict[str, int]) -> Iterator[Counter[str]]:
    """Counts all the time the moves in flight, on each host as source and destination together: the most there were."""
    most: Counter[str] = Counter()
    done = threading.Event()
    moving = sa.select(Migration.source_host_id, Migration.dest_host_id).where(
        Migration.status == MigrationStatus.MIGRATING
    )

    def look() -> None:
        database = Database.of(cloud.settings)
        while not done.wait(0.002):
            with database.read() as tx:
                names = {host.id: host.name for host in tx.hosts.list()}
                ends = [host_id for row in tx.session.execute(moving) for host_id in set(row)]
            for name, count in Counter(names[host_id] for host_id in ends if host_id).items():
                most[name] = max(most[name], count)
        database.engine.dispose()

    looker = Rival(look)
    try:
        yield most
    finally:
        done.set()
        assert looker.end() is None
    assert all(most[name] <= limit for name, limit in limits.items()), most


@pytest.mark.slow
def test_twenty_machines_leave_a_few_at_a_time(cloud: Cloud, console: Console) -> None:
    names = [f"m{number:02}" for number in range(19)]
    more(cloud, *names)
    console.type("instance", "lock", "m03")
    cloud.world.set_domain("h1", uuid_of(cloud, "m07"), snapshots=1)
    limits = {"h1": 3, "h2": 2, "h3": 2}
    for host, limit in limits.items():
        cloud.inventory.set_host(host, max_moves=limit)
    was_running = {name: bool(cloud.world.running(uuid_of(cloud, name))) for name in ("web", *names)}

    drained = console.type("host", "drain", "h1", "--reason", "new disks", "-f", "json")
    assert drained.code == 4
    assert "2 of 20 machines stay on host h1" in drained.err
    told = {row["instance"]: row["result"] for row in drained.json}
    assert Counter(told.values())["submitted"] == 18
    assert "m03 is locked" in told["m03"]
    assert "1 snapshot(s)" in told["m07"]
    assert console.ask("host", "show", "h1")["disabled_reason"] == "new disks"

    # Begun again it submits nothing twice.
    again = console.type("host", "drain", "h1", "-f", "json")
    assert again.code == 4
    assert Counter(row["result"] for row in again.json)["moving already"] == 18
    assert statuses(cloud) == {MigrationStatus.PRE_MIGRATING: 18}
    assert console.ask("host", "show", "h1")["disabled_reason"] == "new disks"

    with never_more_than(cloud, limits) as most, workers(cloud, 3, jobs=4):
        carried_out(cloud)
        assert statuses(cloud) == {MigrationStatus.FINISHED: 18}
        assert most["h1"] > 0
        assert {name for name, place in places(cloud).items() if place == "h1"} == {"m03", "m07"}

        # What kept the two is put right.
        console.type("instance", "unlock", "m03")
        cloud.world.set_domain("h1", uuid_of(cloud, "m07"), snapshots=0)
        last = console.type("host", "drain", "h1", "-f", "json")
        assert last.code == 0, last
        results = Counter(row["result"] for row in last.json)
        assert results == {"moved, to be confirmed or reverted": 18, "submitted": 2}
        carried_out(cloud)
        for name in ("web", *names):
            cloud.service.confirm(name)
        carried_out(cloud)

    assert statuses(cloud) == {MigrationStatus.CONFIRMED: 20}
    with cloud.database.read() as tx:
        assert {row.vm_state is VmState.ACTIVE for row in tx.instances.list() if was_running[row.name]} == {True}
        h1 = tx.hosts.get("h1")
        assert (h1.used_vcpus, h1.used_memory_mb, h1.used_disk_gb) == (0, 0, 0)
    for name, running in was_running.items():
        assert cloud.world.running(uuid_of(cloud, name)) == ((places(cloud)[name],) if running else ())
    assert cloud.world.snapshot()["storages"]["h1"] == {}
    assert console.ask("host", "drain", "h1") == []
    assert console.type("host", "remove", "h1").code == 0


def uuid_of(cloud: Cloud, name: str) -> str:
    with cloud.database.read() as tx:
        return tx.instances.get(name).id


def test_killed_after_each_step_and_begun_again(cloud: Cloud) -> None:
    """The host is disabled first; then one machine after the other is submitted, each once."""
    more(cloud, "db", "mail", "shop")

    def attempt(point: str) -> int:
        cloud.release()
        return Child(lambda: fates(cloud), f"{point}=kill").wait(PATIENCE)

    assert attempt("job.submit.before") == KILLED
    assert (statuses(cloud), cloud_host(cloud, "h1").enabled) == (Counter(), False)
    for submitted in range(1, 5):
        assert attempt("job.submit.after") == KILLED
        assert statuses(cloud).total() == submitted
    assert attempt("job.submit.after") == 0
    assert {fate.result for fate in fates(cloud).values()} == {"moving already"}
    assert statuses(cloud) == {MigrationStatus.PRE_MIGRATING: 4}


def cloud_host(cloud: Cloud, name: str) -> Host:
    with cloud.database.read() as tx:
        return tx.hosts.get(name)


@BOTH
@pytest.mark.slow
def test_what_is_under_way_is_told(cloud: Cloud) -> None:
    """Only a machine that will be gone by itself is not in the way."""
    more(cloud, "stays", "back", "held")
    more(cloud, "comes", "undecided", host="h2")

    def begun(name: str, point: str = "SelectDestination.SUCCESS.after", **how: Any) -> Submitted:
        job = cloud.service.resize(name, "big", **how)
        assert cloud.run_in_child(job, point) == KILLED
        return job

    leaves = begun("web", host="h2")
    stays = begun("stays", host="h1")
    comes = begun("comes", host="h1")
    back = begun("back", host="h3")
    cloud.service.rollback(back.migration_id)
    undecided = cloud.service.resize("undecided", "big", host="h1")
    assert cloud.run(undecided) is JobState.DONE
    cloud.world.create_guest("h3", "held", 1, 128, {"vda": 1}, running=False)

    told = fates(cloud)
    assert {name: fate.stays for name, fate in told.items()} == {
        "web": False,
        "stays": True,
        "comes": True,
        "back": True,
        "undecided": True,
        "held": False,
    }
    assert told["web"] == Fate("web", leaves.migration_id, "moving already")
    for job, name, todo in ((stays, "stays", "wait"), (comes, "comes", "wait"), (undecided, "undecided", "confirm or")):
        assert f"{job.migration_id[:8]} ends here; {todo}" in told[name].result
    assert told["held"].result == "submitted"

    # Each has come to its end: now all leave, or can be sent away.
    for job in (leaves, stays, comes, back):
        assert cloud.run(job) is JobState.DONE, cloud.story(job)
    for name in ("stays", "comes", "undecided"):
        assert cloud.run(cloud.service.confirm(name)) is JobState.DONE
    reverted = cloud.service.revert("web")
    told = fates(cloud)
    assert {name for name, fate in told.items() if fate.result == "submitted"} == {
        "stays",
        "comes",
        "undecided",
        "back",
    }
    assert told["web"].stays and "wait for its end" in told["web"].result
    assert cloud.run(reverted) is JobState.DONE
    assert fates(cloud)["web"].result == "submitted"


def test_a_machine_that_cannot_go_on_is_told(cloud: Cloud) -> None:
    job = cloud.service.migrate("web", host="h2")
    with cloud.database.write() as tx:
        tx.jobs.get(job.job_id).state = JobState.NEEDS_ATTENTION
        tx.jobs.get(job.job_id).reason = "somebody must look"
    told = fates(cloud)["web"]
    assert told.stays
    assert "needs attention: somebody must look" in told.result


def test_the_reason_of_a_disabled_host_is_kept(cloud: Cloud) -> None:
    assert cloud_host(cloud, "h1").disabled_reason is None
    fates(cloud)
    assert cloud_host(cloud, "h1").disabled_reason == "draining"
    cloud.inventory.set_host("h3", enabled=False, disabled_reason="new disks")
    fates(cloud, "h3")
    assert cloud_host(cloud, "h3").disabled_reason == "new disks"


# --- nothing new comes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [None, "h2"])
def test_disabled_between_the_choice_and_the_allocation(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    """The host that was chosen takes nothing any more; the next one does, unless this very one was asked for."""
    cloud.inventory.set_host("h3", reserved_memory_mb=1024)
    cloud.inventory.set_host("h1", enabled=False)
    job = cloud.service.resize("web", "big", host=asked)

    def disable_then(*args: Any, **kwargs: Any) -> Any:
        selection = choose(*args, **kwargs)
        cloud.inventory.set_host("h2", enabled=False)
        chosen.append(selection.host.name)
        return selection

    chosen: list[str] = []
    monkeypatch.setattr("resizeflow.tasks.allocation.choose", disable_then)
    assert cloud.run(job) is JobState.DONE
    assert chosen[0] == "h2"
    h2 = cloud_host(cloud, "h2")
    assert (h2.used_vcpus, h2.used_memory_mb, h2.used_disk_gb) == (0, 0, 0)
    if asked:
        assert cloud.migration(job).status is MigrationStatus.ERROR
        assert places(cloud)["web"] == "h1"
    else:
        assert places(cloud)["web"] == "h3"


def test_an_allocation_waits_for_a_disable(memory_path: Path, postgresql_url: str) -> None:
    cloud = Cloud(memory_path, connection=postgresql_url).build()
    job = cloud.service.resize("web", "big", host="h2")
    with cloud.database.write() as tx:
        tx.hosts.get("h2").enabled = False
        tx.flush()
        rival = Rival(lambda: cloud.run(job)).waits(cloud.database)
    assert rival.end() is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert cloud_host(cloud, "h2").used_vcpus == 0


@BOTH
@pytest.mark.slow
def test_drained_while_resizes_to_it_are_scheduled(cloud: Cloud) -> None:
    """Whatever is on its way to the host when `drain` returns, it has told of; nothing comes later."""
    names = [f"m{number}" for number in range(12)]
    more(cloud, *names)
    for host in ("h1", "h2", "h3"):
        cloud.inventory.set_host(host, max_moves=20)
    for name in names:
        cloud.service.resize(name, "big")

    def drained() -> set[str]:
        deadline = time.monotonic() + PATIENCE
        while not arriving(cloud, "h2") and time.monotonic() < deadline:
            time.sleep(0.01)
        return {name for name, fate in fates(cloud, "h2").items() if fate.stays}

    with workers(cloud, 2, jobs=3):
        (told,) = at_once(drained)
        carried_out(cloud)
    assert arriving(cloud, "h2") == told
    assert told and told < set(names)
    assert statuses(cloud) == {MigrationStatus.FINISHED: len(names)}


def arriving(cloud: Cloud, host: str) -> set[str]:
    """The machines that the scheduler has given a place on a host."""
    with cloud.database.read() as tx:
        return {row.instance_name for row in tx.migrations.open() if row.dest_host and row.dest_host.name == host}
