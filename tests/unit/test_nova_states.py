"""The states that are committed in each phase are Nova's, in its order: (vm_state, task_state, migration.status)."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.interface import Fence
from resizeflow.errors import InstanceIsLocked
from resizeflow.service import Submitted
from resizeflow.states import JobState, TaskState
from tests.committed import States, watched

pytestmark = pytest.mark.slow

Nova = tuple[str, str | None, str]

# nova/compute/manager.py prep_resize, resize_instance, finish_resize. Nova writes the status of a migration and the
# task state of its machine in two steps; here they change together.
RESIZE: list[Nova] = [
    ("active", "resize_prep", "pre-migrating"),
    ("active", "resize_migrating", "migrating"),
    ("active", "resize_migrating", "post-migrating"),
    ("active", "resize_migrated", "post-migrating"),
    ("active", "resize_finish", "post-migrating"),
    ("resized", None, "finished"),
]
# confirm_resize: the task state is not set, `resize_confirming` is never used.
CONFIRM: list[Nova] = [("resized", None, "confirming"), ("active", None, "confirmed")]
# delete in VERIFY_RESIZE: confirmed first, the machine goes last.
REMOVE: list[Nova] = [("resized", "deleting", "confirming"), ("active", None, "confirmed")]
# revert_resize: Nova says `reverted` when the destination is gone, here when the machine is back.
REVERT: list[Nova] = [("resized", "resize_reverting", "reverting"), ("active", None, "reverted")]


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


def seen(cloud: Cloud, job: Submitted) -> list[Nova]:
    """What a job's run commits, without repetitions."""
    told: list[Nova] = []

    def tell(now: States) -> None:
        if not told or told[-1] != now.nova:
            told.append(now.nova)

    with watched(cloud, job, tell):
        assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return told


def stopped(table: list[Nova]) -> list[Nova]:
    return [("stopped" if vm_state == "active" else vm_state, task, status) for vm_state, task, status in table]


def resized(cloud: Cloud) -> None:
    assert cloud.run(cloud.service.resize("web", "big", host="h2")) is JobState.DONE


@pytest.mark.parametrize("host", ["h2", "h1"], ids=["another-host", "same-host"])
def test_resize(cloud: Cloud, host: str) -> None:
    assert seen(cloud, cloud.service.resize("web", "big", host=host)) == RESIZE


def test_cold_migration(cloud: Cloud) -> None:
    assert seen(cloud, cloud.service.migrate("web")) == RESIZE


def test_confirm(cloud: Cloud) -> None:
    resized(cloud)
    assert seen(cloud, cloud.service.confirm("web")) == CONFIRM


def test_revert(cloud: Cloud) -> None:
    resized(cloud)
    assert seen(cloud, cloud.service.revert("web")) == REVERT


def test_remove(cloud: Cloud) -> None:
    resized(cloud)
    job = cloud.service.remove("web")
    assert job is not None
    assert seen(cloud, job) == REMOVE


@pytest.mark.parametrize(("decision", "table"), [("confirm", CONFIRM), ("revert", REVERT)])
def test_a_stopped_machine_stays_stopped(memory_path: Path, decision: str, table: list[Nova]) -> None:
    """Nova: test_cross_cell_migrate.test_resize_{confirm,revert}_from_stopped."""
    cloud = Cloud(memory_path).build(running=False)
    assert seen(cloud, cloud.service.resize("web", "big", host="h2")) == stopped(RESIZE)
    assert seen(cloud, getattr(cloud.service, decision)("web")) == stopped(table)
    assert cloud.world.running(cloud.uuid) == ()


@pytest.mark.parametrize(
    ("point", "way"),
    [
        ("PowerOffSource.destroy#1.checked", 2),
        ("RetireSource.define#1.checked", 2),
        ("ResizeDisks.grow_volume#1.checked", 4),
        ("StartDestination.start_paused#1.checked", 5),
    ],
)
def test_a_failure_goes_back_to_where_it_was(cloud: Cloud, point: str, way: int) -> None:
    """Nova leaves ERROR, powered off, in all of these; here the machine is ACTIVE again, the migration `error`."""
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.fault_at(point, "refuse")
    cloud.world.set_speed(shutdown_seconds=60)
    told = seen(cloud, job)
    assert told[:way] == RESIZE[:way]
    assert told[-1] == ("active", None, "error")
    assert set(told[way:-1]) <= set(RESIZE[:way])
    assert cloud.world.running(cloud.uuid) == ("h1",)


@pytest.mark.parametrize("decision", ["confirm", "revert"])
def test_a_decision_that_cannot_begin(cloud: Cloud, decision: str) -> None:
    resized(cloud)
    job = getattr(cloud.service, decision)("web")
    cloud.world.set_up("h2", False)
    begun = {"confirm": CONFIRM, "revert": REVERT}[decision][0]
    assert seen(cloud, job) == [begun, ("resized", None, "finished")]


def test_the_state_that_nova_never_sets_is_never_set(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    told = {task for _, task, _ in seen(cloud, job)}
    told |= {task for _, task, _ in seen(cloud, cloud.service.confirm("web"))}
    assert str(TaskState.RESIZE_CONFIRMING) not in told


@pytest.mark.parametrize(("was_running", "then"), [(True, "stopped"), (False, "active")])
def test_a_confirm_takes_the_machine_as_it_is_then(memory_path: Path, was_running: bool, then: str) -> None:
    """Stopped, or started, by its user while the resize waits for its decision."""
    cloud = Cloud(memory_path).build(running=was_running)
    resized(cloud)
    machine = cloud.connections.to(cloud.world.uri("h2"))
    machine.open(5)
    for method in ("destroy",) if was_running else ("start_paused", "resume"):
        machine.call(method, (cloud.uuid,), timeout=5, fence=Fence(cloud.clock.boottime() + 60, "virsh", 1))
    assert seen(cloud, cloud.service.confirm("web"))[-1] == (then, None, "confirmed")


@pytest.mark.parametrize("operation", ["resize", "confirm", "revert"])
def test_a_lock_does_not_stop_what_is_under_way(cloud: Cloud, operation: str) -> None:
    if operation == "resize":
        job = cloud.service.resize("web", "big", host="h2")
    else:
        resized(cloud)
        job = getattr(cloud.service, operation)("web")
    cloud.inventory.lock("web", True)
    end = {"resize": "finished", "confirm": "confirmed", "revert": "reverted"}[operation]
    assert seen(cloud, job)[-1][2] == end


def test_a_locked_machine_is_neither_resized_confirmed_nor_reverted(cloud: Cloud) -> None:
    cloud.inventory.lock("web", True)
    with pytest.raises(InstanceIsLocked):
        cloud.service.resize("web", "big")
    cloud.inventory.lock("web", False)
    resized(cloud)
    cloud.inventory.lock("web", True)
    for decide in (cloud.service.confirm, cloud.service.revert):
        with pytest.raises(InstanceIsLocked):
            decide("web")
