"""What a request must satisfy: pure functions, one rule each, in Nova's order (nova/compute/api.py `resize`)."""

from __future__ import annotations

from resizeflow.drivers import definition
from resizeflow.drivers.definition import Disk
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.errors import Conflict, RuleError
from resizeflow.persistence.models import GIB, Flavor, Instance, Migration
from resizeflow.states import MigrationStatus, VmState


def not_locked(instance: Instance) -> None:
    """Nova's InstanceIsLocked, 409."""
    if instance.locked:
        raise Conflict(f"Instance {instance.name} is locked; `resizeflow instance unlock {instance.name}` first.")


def idle(instance: Instance, action: str) -> None:
    """Nova's InstanceInvalidState for a task state, 409: one thing at a time."""
    if instance.task_state is not None:
        raise Conflict(
            f"Cannot '{action}' instance {instance.name} while it is in task_state {instance.task_state}; "
            "`resizeflow migration list` shows what is being done to it."
        )


def resizable_state(instance: Instance, action: str) -> None:
    """Nova's InstanceInvalidState for a vm_state, 409: ACTIVE and STOPPED machines only."""
    if instance.vm_state is VmState.RESIZED:
        raise Conflict(
            f"Cannot '{action}' instance {instance.name} while it is in vm_state resized: confirm or revert first."
        )
    if instance.vm_state not in (VmState.ACTIVE, VmState.STOPPED):
        raise Conflict(f"Cannot '{action}' instance {instance.name} while it is in vm_state {instance.vm_state}.")


def flavor_differs(old: Flavor, new: Flavor) -> None:
    """Nova's CannotResizeToSameFlavor, 400."""
    if old.id == new.id:
        raise RuleError(f"When resizing, instances must change flavor: the machine has flavor {new.name} already.")


def root_not_smaller(old: Flavor, new: Flavor) -> None:
    """Nova's CannotResizeDisk, 400; Nova finds it only on the host, after it said yes."""
    if new.root_gb < old.root_gb:
        raise RuleError(
            f"Flavor {new.name} has a root disk of {new.root_gb} GiB, the machine's has {old.root_gb} GiB: "
            "a disk cannot shrink; choose a flavor with at least as much."
        )


def ephemeral_not_smaller(old: Flavor, new: Flavor) -> None:
    """As `root_not_smaller`, for the ephemeral disks (libvirt driver: 'Unable to resize disk down')."""
    if new.ephemeral_gb < old.ephemeral_gb:
        raise RuleError(
            f"Flavor {new.name} has {new.ephemeral_gb} GiB of ephemeral disk, the machine has {old.ephemeral_gb} "
            "GiB: a disk cannot shrink; choose a flavor with at least as much."
        )


def movable(domain: DomainFacts) -> None:
    """What the domain itself must not have: it would be lost, or cannot be on another host."""
    if domain.state not in (PowerState.RUNNING, PowerState.SHUTOFF):
        raise Conflict(f"{domain.name} is {domain.state}: resume it or shut it down first.")
    if domain.snapshots:
        raise Conflict(f"{domain.name} has {domain.snapshots} snapshot(s), which do not survive a move: delete them.")
    if domain.managed_save:
        raise Conflict(f"{domain.name} has a managed save image: start it, or remove the image.")
    if definition.read(domain.inactive_xml).host_devices:
        raise Conflict(f"{domain.name} has a host device, which cannot be moved: detach it.")


def definable(domain: DomainFacts, new: Flavor) -> None:
    """The definition must be one that can be rewritten for the flavor: said before anything is powered off."""
    mark = definition.Mark(migration="", epoch=0, role="destination")
    try:
        definition.resized(domain.inactive_xml, vcpus=new.vcpus, memory_mb=new.memory_mb, disks={}, mark=mark)
    except ValueError as error:
        raise Conflict(f"{domain.name} cannot get flavor {new.name}: {error}") from None


def format_as_defined(name: str, disk: Disk, volume: VolumeFacts) -> None:
    """libvirt's pool reads an image's format from its content, which a guest can write into a raw disk: sizes and
    chains read from such an image would be the guest's invention."""
    if volume.format != disk.format:
        raise Conflict(
            f"{name}'s disk {disk.device} is {disk.format} in its definition, but its file looks like {volume.format}: "
            "resizeflow does not move a disk whose content pretends to be another format."
        )


def to_decide(instance: Instance, migration: Migration | None, action: str) -> Migration:
    """Confirm and revert need a finished resize (Nova: 400 'Instance has not been resized.')."""
    if migration is None:
        raise RuleError(f"Instance {instance.name} has not been resized: there is nothing to {action}.")
    if migration.status is not MigrationStatus.FINISHED:
        raise Conflict(
            f"Cannot '{action}' instance {instance.name} while its migration is {migration.status}; "
            f"`resizeflow migration watch {migration.id[:8]}` follows it."
        )
    return migration


def new_capacity(old: Flavor, new: Flavor, role: str, *, first_ephemeral: bool, actual: int) -> int:
    """Bytes a disk is to have under a new flavor: the root disk the flavor's size, the first ephemeral disk what the
    flavor has more; never less than now, which `actual` tells."""
    if role == "root" and new.root_gb != old.root_gb:
        return max(actual, new.root_gb * GIB)
    if role == "ephemeral" and first_ephemeral:
        return actual + max(new.ephemeral_gb - old.ephemeral_gb, 0) * GIB
    return actual
