"""What the machine itself must be like: a domain as it was looked at."""

from __future__ import annotations

from resizeflow.drivers import definition
from resizeflow.drivers.definition import Disk
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.errors import FlavorImageConflict, InstanceInvalidState, MigrationPreCheckError
from resizeflow.persistence.models import Flavor


def steady(domain: DomainFacts) -> None:
    """InstanceInvalidState, 409: running or off, not paused, suspended or crashed."""
    if domain.state not in (PowerState.RUNNING, PowerState.SHUTOFF):
        raise InstanceInvalidState(f"{domain.name} is {domain.state}: resume it or shut it down first.")


def movable(domain: DomainFacts) -> None:
    """Steady, and MigrationPreCheckError, 409, for what it must not have: it would be lost, or cannot be on another
    host."""
    steady(domain)
    if domain.snapshots:
        raise MigrationPreCheckError(
            f"{domain.name} has {domain.snapshots} snapshot(s), which do not survive a move: delete them."
        )
    if domain.managed_save:
        raise MigrationPreCheckError(f"{domain.name} has a managed save image: start it, or remove the image.")
    machine = definition.read(domain.inactive_xml)
    if machine.host_devices:
        raise MigrationPreCheckError(f"{domain.name} has a host device, which cannot be moved: detach it.")
    if machine.left_behind:
        raise MigrationPreCheckError(
            f"{domain.name} has {' and '.join(machine.left_behind)}, whose content would stay behind: detach it."
        )
    lasting(domain)
    for disk in machine.disks:
        if disk.kind in ("disk", "lun") and not disk.network:
            _is_a_file(domain.name, disk)


def lasting(domain: DomainFacts) -> None:
    """MigrationPreCheckError, 409: a disk that only the running machine has would be lost when it is shut down."""
    machine, running = definition.read(domain.inactive_xml), definition.read(domain.live_xml or domain.inactive_xml)
    if fleeting := sorted({disk.device for disk in running.disks} - {disk.device for disk in machine.disks}):
        raise MigrationPreCheckError(
            f"{domain.name} has disk {', '.join(fleeting)} only until it is shut down: attach it in its definition as "
            "well, or detach it."
        )


def _is_a_file(name: str, disk: Disk) -> None:
    if disk.block:
        raise MigrationPreCheckError(
            f"{name}'s disk {disk.device} is {disk.path}, a block device of its host (LVM, Fibre Channel, multipath, "
            "iSCSI by the kernel): only files, and volumes that QEMU opens by itself, can be moved."
        )
    if disk.path is None:
        raise MigrationPreCheckError(f"{name}'s disk {disk.device} names no file: only files and volumes can be moved.")


def definable(domain: DomainFacts, old: Flavor, new: Flavor) -> None:
    """FlavorImageConflict, 400: the definition must be one that can be rewritten for the flavor. Said before anything
    is powered off."""
    mark = definition.Mark(migration="", epoch=0, role="destination")
    try:
        definition.resized(domain.inactive_xml, vcpus=new.vcpus, memory_mb=new.memory_mb, disks={}, mark=mark)
        if new.swap_mb and not old.swap_mb:
            definition.free_device(domain.inactive_xml, beside=definition.read(domain.inactive_xml).first_disk)
    except ValueError as error:
        raise FlavorImageConflict(f"{domain.name} cannot get flavor {new.name}: {error}") from None


def format_as_defined(name: str, disk: Disk, volume: VolumeFacts) -> None:
    """libvirt's pool reads an image's format from its content, which a guest can write into a raw disk: sizes and
    chains read from such an image would be the guest's invention."""
    if volume.format != disk.format:
        raise MigrationPreCheckError(
            f"{name}'s disk {disk.device} is {disk.format} in its definition, but its file looks like {volume.format}: "
            "resizeflow does not move a disk whose content pretends to be another format."
        )
