"""From each state that a job can leave a machine in, something is accepted that leads out of it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.doctor import Doctor
from resizeflow.drivers.simulator.world import SimulatedWorld
from resizeflow.errors import InstanceInvalidState, InvalidMigrationState, ResizeflowError, ServiceUnavailable
from resizeflow.persistence.models import Job
from resizeflow.service import Service, Submitted
from resizeflow.states import Direction, JobState, MigrationStatus, VmState
from resizeflow.worker import Worker
from tests.committed import States, states, watched
from tests.console import Console, everything

pytestmark = pytest.mark.slow

PIVOT = "StartDestination.commit.pivot#1.after"


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build()


def resized(cloud: Cloud, host: str = "h2") -> Submitted:
    job = cloud.service.resize("web", "big", host=host)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return job


def breaches(cloud: Cloud) -> list[str]:
    return list(map(str, Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine().breaches))


# --- every state that is committed -----------------------------------------------------------------------

VERBS: Mapping[str, Callable[[Service, str], object]] = {
    "resume": lambda service, migration: service.resume(migration),
    "rollback": lambda service, migration: service.rollback(migration),
    "confirm": lambda service, _: service.confirm("web"),
    "revert": lambda service, _: service.revert("web"),
    "discard": lambda service, _: service.revert("web", discard_writes=True),
    "remove": lambda service, _: service.remove("web"),
    "migrate": lambda service, _: service.migrate("web"),
}
REST = {"migrate", "remove"}
DECIDE = {"confirm", "revert", "discard", "remove"}


def expected(now: States) -> set[str]:
    """What docs/recovery.md says is accepted."""
    if now.done:
        return DECIDE if now.status is MigrationStatus.FINISHED else REST
    if now.flow in ("confirm_v1", "remove_v1"):
        return {"resume"}
    if not now.pivoted:
        return {"resume", "rollback"}
    # The last moment of a resize is FINISHED, with a job that has only its own end left to write down.
    stuck = now.flow == "resize_v1" and now.status is MigrationStatus.POST_MIGRATING
    return {"resume", "discard"} if stuck else {"resume"}


def accepted(asked: Cloud, photo: Path, job: Submitted) -> set[str]:
    """The verbs that are accepted in the state of a photo, the unfinished job waiting for a person."""
    found = set()
    for verb, ask in VERBS.items():
        shutil.copy(photo, photo.with_name("asked"))
        with asked.database.write() as tx:
            needs_somebody = {"state": JobState.NEEDS_ATTENTION, "owner": None}
            tx.session.execute(sa.update(Job).where(Job.state != JobState.DONE).values(needs_somebody))
        try:
            ask(asked.service, job.migration_id)
        except ResizeflowError:
            continue
        finally:
            asked.release()
        found.add(verb)
    return found


RUNS: Mapping[str, tuple[str, str, str | None]] = {
    # operation, destination of the resize, the effect that fails
    "resize": ("resize", "h2", None),
    "resize on the same host": ("resize", "h1", None),
    "resize that fails late": ("resize", "h2", "start_paused"),
    "resize that fails early": ("resize", "h2", "create_volume"),
    "confirm": ("confirm", "h2", None),
    "confirm on the same host": ("confirm", "h1", None),
    "confirm of what is not whole": ("confirm", "h2", "away"),
    "remove": ("remove", "h2", None),
    "remove of what is not whole": ("remove", "h2", "away"),
    "revert": ("revert", "h2", None),
    "revert on the same host": ("revert", "h1", None),
    "revert that fails": ("revert", "h2", "start_paused"),
    "revert that cannot begin": ("revert", "h2", "away"),
}
CASES = [*((name, True) for name in RUNS), *((name, False) for name in ("resize", "confirm", "revert"))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "running"), CASES)
def test_out_of_every_state(memory_path: Path, name: str, running: bool) -> None:
    operation, host, failing = RUNS[name]
    cloud = Cloud(memory_path).build(running=running)
    job = cloud.service.resize("web", "big", host=host)
    if operation != "resize":
        assert cloud.run(job) is JobState.DONE
        decided = getattr(cloud.service, operation)("web")
        assert decided is not None
        job = decided
    if failing == "away":
        cloud.world.set_up("h2", False)
    elif failing:
        cloud.world.fail(None, failing)
    photos: dict[States, Path] = {}

    def take(now: States) -> None:
        photo = photos[now] = memory_path / f"photo{len(photos)}"
        photo.unlink(missing_ok=True)
        with sqlite3.connect(memory_path / "state.sqlite") as database:
            database.execute("VACUUM INTO ?", (str(photo),))

    with watched(cloud, job, take):
        assert cloud.run(job) is JobState.DONE, cloud.story(job)
    cloud.world.set_up("h2", True)
    cloud.release()
    assert len(photos) > 1
    asked = Cloud(memory_path, connection=f"sqlite:///{memory_path / 'asked'}")
    for now, photo in photos.items():
        assert accepted(asked, photo, job) == expected(now) != set(), now


# --- past the pivot, and it cannot finish ----------------------------------------------------------------


def stuck(cloud: Cloud, point: str = PIVOT, host: str = "h2") -> Submitted:
    """A resize whose worker died past the pivot, and whose destination died with it."""
    job = cloud.service.resize("web", "big", host=host)
    assert cloud.run_in_child(job, point) == KILLED
    if host == "h2":
        cloud.world.crash("h2")
        assert cloud.run(job) is JobState.QUEUED
    cloud.expire(job)
    return job


def test_a_dead_destination_is_left_once_it_is_fenced(cloud: Cloud) -> None:
    job = stuck(cloud)
    with pytest.raises(InvalidMigrationState, match="revert --discard-writes"):
        cloud.service.rollback(job.migration_id)
    before = everything(cloud)
    with pytest.raises(ServiceUnavailable, match=r"host h2 does not answer.*host set h2 --fenced"):
        cloud.service.revert("web", discard_writes=True)
    assert everything(cloud) == before
    cloud.inventory.set_host("h2", fenced=True)
    revert = cloud.service.revert("web", discard_writes=True)
    assert cloud.migration(job).status is MigrationStatus.REVERTING
    assert cloud.job(job).state is JobState.DONE
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert cloud.migration(job).status is MigrationStatus.REVERTED
    assert cloud.world.running(cloud.uuid) == ("h1",)
    with cloud.database.read() as tx:
        row = tx.instances.get("web")
        assert (row.vm_state, row.task_state, row.host.name) == (VmState.ACTIVE, None, "h1")
        assert {debt.kind for debt in tx.debts.open()} == {"domain", "disk"}
    # When it comes back, what is left there is removed.
    cloud.world.set_up("h2", True)
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    assert breaches(cloud) == []
    assert cloud.world.snapshot()["hosts"]["h2"]["domains"] == {}


def test_a_fence_from_before_the_pivot_is_no_proof(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "StartDestination.RUNNING.after") == KILLED
    cloud.inventory.set_host("h2", fenced=True)
    cloud.expire(job)
    assert cloud.run_in_child(job, PIVOT) == KILLED
    cloud.world.crash("h2")
    cloud.expire(job)
    with pytest.raises(ServiceUnavailable, match="host set h2 --fenced"):
        cloud.service.revert("web", discard_writes=True)
    cloud.inventory.set_host("h2", fenced=True)
    assert cloud.run(cloud.service.revert("web", discard_writes=True)) is JobState.DONE
    assert cloud.world.running(cloud.uuid) == ("h1",)


@pytest.mark.parametrize("point", [PIVOT, "StartDestination.resume#1.after", "StartDestination.SUCCESS.after"])
@pytest.mark.parametrize("host", ["h2", "h1"], ids=["another-host", "same-host"])
def test_a_destination_that_answers_is_turned_off(cloud: Cloud, point: str, host: str) -> None:
    job = cloud.service.resize("web", "big", host=host)
    assert cloud.run_in_child(job, point) == KILLED
    cloud.expire(job)
    revert = cloud.service.revert("web", discard_writes=True)
    assert breaches(cloud) == []
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert cloud.world.running(cloud.uuid) == ("h1",)
    assert breaches(cloud) == []


def test_turned_back_it_counts_as_finished(cloud: Cloud) -> None:
    """The revert cannot have the source: the resize waits for its decision, as any other."""
    stuck_job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(stuck_job, "StartDestination.SUCCESS.after") == KILLED
    cloud.expire(stuck_job)
    revert = cloud.service.revert("web", discard_writes=True)
    cloud.world.fail("h1", "start_paused")
    assert cloud.run(revert) is JobState.DONE
    assert cloud.job(revert).direction is Direction.BACK
    assert cloud.migration(revert).status is MigrationStatus.FINISHED
    assert cloud.world.running(cloud.uuid) == ("h2",)
    assert breaches(cloud) == []
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    assert breaches(cloud) == []


def test_before_the_pivot_nothing_has_to_be_discarded(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "MoveInstance.SUCCESS.after") == KILLED
    cloud.expire(job)
    with pytest.raises(InstanceInvalidState, match="migration rollback"):
        cloud.service.revert("web", discard_writes=True)


def test_a_worker_that_holds_it_keeps_it(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, PIVOT) == KILLED  # its lease goes on
    before = everything(cloud)
    with pytest.raises(ResizeflowError, match="a worker holds the resize of web"):
        cloud.service.revert("web", discard_writes=True)
    assert everything(cloud) == before


def test_who_held_it_before_can_do_nothing_any_more(cloud: Cloud) -> None:
    job = stuck(cloud)
    with cloud.database.write() as tx:
        lease = tx.jobs.take(job.job_id, "zombie", 600)
    assert lease is not None
    cloud.expire(job)
    cloud.inventory.set_host("h2", fenced=True)
    cloud.service.revert("web", discard_writes=True)
    with cloud.database.write() as tx:
        assert not tx.jobs.renew(lease, 600)
        assert tx.jobs.take(job.job_id, "another", 600) is None
    assert cloud.job(job).state is JobState.DONE


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.certify)], ids=["few", "all"])
def test_killed_at_a_commit_of_a_discarding_revert(memory_path: Path, every: int) -> None:
    log = memory_path / "points"

    def begun(number: int) -> tuple[Cloud, Submitted]:
        folder = memory_path / f"cloud{number}"
        folder.mkdir()
        cloud = Cloud(folder).build()
        stuck(cloud)
        cloud.inventory.set_host("h2", fenced=True)
        return cloud, cloud.service.revert("web", discard_writes=True)

    cloud, job = begun(0)
    assert cloud.run_in_child(job, log=log) == 0
    done = _come_to(cloud, job)
    assert done[:2] == (("h1",), MigrationStatus.REVERTED)
    points = [point for point in dict.fromkeys(log.read_text().split()) if "#" in point and point.endswith(".after")]
    points += ["RestoreSource.SUCCESS.before", "RemoveDestination.SUCCESS.before", "FinishRevert.SUCCESS.before"]
    for number, point in enumerate(points[::every], start=1):
        cloud, job = begun(number)
        assert cloud.run_in_child(job, point) == KILLED, point
        assert cloud.run(job, tries=3) is JobState.DONE, f"{point}\n{cloud.story(job)}"
        assert _come_to(cloud, job) == done, point
        cloud.release()


def _come_to(cloud: Cloud, job: Submitted) -> tuple[object, ...]:
    """What is told apart of how a revert ended: the hosts' domains and disks, and all that the records hold."""
    with cloud.database.read() as tx:
        row = tx.instances.get("web")
        held = [(held.host_id == row.host_id, held.consumer.partition(":")[0]) for held in tx.hosts.allocations()]
        owed = sorted((debt.kind, debt.settled_at) for debt in tx.debts.open())
        told = (row.vm_state, row.task_state, row.host.name, row.flavor.name, held, owed)
    assert breaches(cloud) == []
    return cloud.world.running(cloud.uuid), cloud.migration(job).status, *told


def test_what_the_operator_types(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path).build()
    job = stuck(cloud)
    console = Console(tmp_path / "resizeflow.conf")
    cloud.release()
    console.type("revert", "web", "--discard-writes").refused(4, "h2 --fenced")
    assert console.type("host", "set", "h2", "--fenced").code == 0
    answer = console.type("revert", "web", "--discard-writes", "--detach")
    assert answer.code == 0, answer
    assert cloud.migration(job).status is MigrationStatus.REVERTING
    assert "resize is given up past its point of no return" in cloud.story(job)


# --- a domain that somebody undefined behind our back ----------------------------------------------------


def undefine(cloud: Cloud, host: str) -> None:
    """`virsh destroy` and `virsh undefine` on a host."""
    world: SimulatedWorld = cloud.world
    cloud.release()
    with sqlite3.connect(cloud.folder / "world.sqlite") as database:
        database.execute("DELETE FROM domains WHERE host = ? AND uuid = ?", (host, cloud.uuid))
    assert host not in world.running(cloud.uuid)


def test_undefined_at_rest_it_is_removed_or_defined_again(cloud: Cloud) -> None:
    undefine(cloud, "h1")
    with pytest.raises(ResizeflowError, match="instance remove web"):
        cloud.service.resize("web", "big")
    assert cloud.service.remove("web") is None
    assert breaches(cloud) == []


@pytest.mark.parametrize("host", ["h2", "h1"], ids=["another-host", "same-host"])
def test_undefined_at_the_destination_it_is_reverted(cloud: Cloud, host: str) -> None:
    before = resized(cloud, host)
    undefine(cloud, host)
    confirm = cloud.service.confirm("web")
    assert cloud.run(confirm) is JobState.DONE
    assert cloud.migration(before).status is MigrationStatus.FINISHED
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert cloud.world.running(cloud.uuid) == ("h1",)
    assert breaches(cloud) == []


@pytest.mark.parametrize("host", ["h2", "h1"], ids=["another-host", "same-host"])
def test_undefined_at_the_destination_a_revert_may_be_turned_back(cloud: Cloud, host: str) -> None:
    resized(cloud, host)
    undefine(cloud, host)
    revert = cloud.service.revert("web")
    cloud.world.fail("h1", "start_paused")
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert cloud.migration(revert).status is MigrationStatus.FINISHED
    again = cloud.service.revert("web")
    assert cloud.run(again) is JobState.DONE, cloud.story(again)
    assert cloud.world.running(cloud.uuid) == ("h1",)
    assert breaches(cloud) == []


@pytest.mark.parametrize("hosts", [["h1"], ["h1", "h2"]], ids=["source", "both"])
def test_undefined_at_the_source_it_is_defined_as_captured(cloud: Cloud, hosts: list[str]) -> None:
    resized(cloud)
    for host in hosts:
        undefine(cloud, host)
    revert = cloud.service.revert("web")
    cloud.world.fail("h1", "start_paused")
    assert cloud.run(revert) is JobState.DONE, cloud.story(revert)
    assert cloud.migration(revert).status is MigrationStatus.FINISHED
    again = cloud.service.revert("web")
    assert cloud.run(again) is JobState.DONE, cloud.story(again)
    assert cloud.world.running(cloud.uuid) == ("h1",)
    assert breaches(cloud) == []


def test_undefined_at_the_source_it_is_confirmed(cloud: Cloud) -> None:
    resized(cloud)
    undefine(cloud, "h1")
    confirm = cloud.service.confirm("web")
    assert cloud.run(confirm) is JobState.DONE, cloud.story(confirm)
    assert states(cloud, confirm) is not None
    assert cloud.migration(confirm).status is MigrationStatus.CONFIRMED
    assert breaches(cloud) == []
