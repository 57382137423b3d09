"""The rules of a request, each alone: what passes, what is refused, and with which of Nova's codes."""

from __future__ import annotations

import pytest

from resizeflow import rules
from resizeflow.drivers.definition import Disk
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.errors import Conflict, RuleError
from resizeflow.persistence.models import GIB, Flavor, Instance, Migration
from resizeflow.states import MigrationStatus, TaskState, VmState

XML = "<domain type='qemu'><name>web</name><uuid>u</uuid><memory>1</memory><os><type>hvm</type></os>{}</domain>"


def flavor(name: str, root: int = 10, ephemeral: int = 0) -> Flavor:
    return Flavor(id=name, name=name, vcpus=1, memory_mb=1, root_gb=root, ephemeral_gb=ephemeral)


def instance(vm_state: VmState = VmState.ACTIVE, task_state: TaskState | None = None, locked: bool = False) -> Instance:
    return Instance(name="web", vm_state=vm_state, task_state=task_state, locked=locked)


def domain(state: PowerState = PowerState.RUNNING, devices: str = "", **more: int) -> DomainFacts:
    xml = XML.format(f"<devices>{devices}</devices>")
    return DomainFacts("u", "web", state, True, False, xml, **more)  # type: ignore[arg-type]


def test_locked() -> None:
    rules.not_locked(instance())
    with pytest.raises(Conflict, match="resizeflow instance unlock web"):
        rules.not_locked(instance(locked=True))


@pytest.mark.parametrize("state", TaskState)
def test_busy(state: TaskState) -> None:
    rules.idle(instance(), "resize")
    with pytest.raises(Conflict, match=f"'resize' instance web while it is in task_state {state}"):
        rules.idle(instance(task_state=state), "resize")


@pytest.mark.parametrize("state", VmState)
def test_states_that_can_be_resized(state: VmState) -> None:
    if state in (VmState.ACTIVE, VmState.STOPPED):
        rules.resizable_state(instance(state), "resize")
        return
    with pytest.raises(Conflict, match=f"vm_state {state}") as error:
        rules.resizable_state(instance(state), "resize")
    assert (error.value.http_code, error.value.exit_code) == (409, 4)
    assert ("confirm or revert first" in str(error.value)) == (state is VmState.RESIZED)


def test_flavors() -> None:
    small, large = flavor("small", 10, 5), flavor("large", 20, 10)
    rules.flavor_differs(small, large)
    rules.root_not_smaller(small, large)
    rules.root_not_smaller(small, small)
    rules.ephemeral_not_smaller(small, large)
    for rule in (rules.root_not_smaller, rules.ephemeral_not_smaller):
        with pytest.raises(RuleError, match="a disk cannot shrink") as error:
            rule(large, small)
        assert error.value.http_code == 400
    with pytest.raises(RuleError, match="must change flavor"):
        rules.flavor_differs(small, flavor("small"))


@pytest.mark.parametrize("state", PowerState)
def test_power_states(state: PowerState) -> None:
    if state in (PowerState.RUNNING, PowerState.SHUTOFF):
        rules.movable(domain(state))
    else:
        with pytest.raises(Conflict, match=f"web is {state}"):
            rules.movable(domain(state))


def test_what_would_be_lost() -> None:
    for bad, told in (
        (domain(snapshots=3), "3 snapshot"),
        (domain(managed_save=True), "managed save"),
        (domain(devices="<hostdev mode='subsystem' type='usb'/>"), "host device"),
    ):
        with pytest.raises(Conflict, match=told):
            rules.movable(bad)


def test_an_image_that_pretends_to_be_another_format() -> None:
    disk = Disk("vda", "disk", "/p/web", "raw", False, False)
    rules.format_as_defined("web", disk, VolumeFacts("web", "/p/web", 1, 1, "raw"))
    with pytest.raises(Conflict, match="pretends to be another format"):
        rules.format_as_defined("web", disk, VolumeFacts("web", "/p/web", 1, 1, "qcow2"))


@pytest.mark.parametrize("status", MigrationStatus)
def test_what_can_be_decided(status: MigrationStatus) -> None:
    migration = Migration(id="0123456789", status=status)
    if status is MigrationStatus.FINISHED:
        assert rules.to_decide(instance(), migration, "confirm") is migration
    else:
        with pytest.raises(Conflict, match=f"its migration is {status}"):
            rules.to_decide(instance(), migration, "confirm")
    with pytest.raises(RuleError, match="has not been resized"):
        rules.to_decide(instance(), None, "revert")


@pytest.mark.parametrize(
    ("role", "first", "actual", "expected"),
    [
        ("root", False, 10 * GIB, 20 * GIB),
        ("root", False, 30 * GIB, 30 * GIB),
        ("ephemeral", True, 5 * GIB + 7, 9 * GIB + 7),
        ("ephemeral", False, 5 * GIB, 5 * GIB),
        ("other", False, 3, 3),
    ],
)
def test_new_sizes_of_disks(role: str, first: bool, actual: int, expected: int) -> None:
    old, new = flavor("old", 10, 5), flavor("new", 20, 9)
    assert rules.new_capacity(old, new, role, first_ephemeral=first, actual=actual) == expected
    assert rules.new_capacity(new, new, role, first_ephemeral=first, actual=actual) == actual
    assert rules.new_capacity(new, old, "ephemeral", first_ephemeral=True, actual=actual) == actual
