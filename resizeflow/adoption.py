"""Bringing a libvirt domain under management: what it is, and what must not be there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from resizeflow import ports, rules, vlans, volumes
from resizeflow.connections import CinderAway, HostAway, NeutronAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Definition, Disk
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.drivers.interface import DriverError
from resizeflow.errors import CinderConnectionFailed, Conflict, NeutronConnectionFailed, NotFound, RuleError
from resizeflow.looks import Looks
from resizeflow.persistence import models
from resizeflow.persistence.hosts import Amount, instance_consumer
from resizeflow.persistence.models import GIB, Binding, Flavor, Host, Instance, Port, Volume
from resizeflow.persistence.transaction import Transaction
from resizeflow.ports import SeenPort
from resizeflow.states import VmState
from resizeflow.volumes import AttachedVolume


@dataclass(frozen=True)
class Found:
    """A domain that can be adopted: its definition, the files and roles of its local disks, by device, its volumes
    and ports."""

    domain: DomainFacts
    machine: Definition
    files: Mapping[str, VolumeFacts]
    roles: Mapping[str, str]
    volumes: tuple[AttachedVolume, ...]
    ports: tuple[SeenPort, ...]
    vlans: Mapping[str, int]
    """Of ports on bridges that filter them, by MAC."""

    def of_role(self, role: str) -> list[VolumeFacts]:
        """The files of one role."""
        return [self.files[device] for device, own in self.roles.items() if own == role]

    @property
    def volume_backed(self) -> bool:
        """Whether its root disk is a volume."""
        return "root" not in self.roles.values()


def examine(
    looks: Looks, host: Host, name: str, *, swap: str | None = None, given_vlans: Mapping[str, int] | None = None
) -> Found:
    """Looks at a domain, by name or UUID. `swap` is the device that is its swap disk; `given_vlans` are those that NICs
    are said to be in, by MAC. Raises NotFound, or RuleError with what stands against adopting it."""
    try:
        hypervisor = looks.host(host, patience=0)
        domains = hypervisor.domains()
        files = {file.path: file for file in hypervisor.volumes(host.pool)}
    except HostAway as error:
        raise Conflict(f"The {error}. Nothing was changed.") from None
    except DriverError as error:
        raise RuleError(f"Host {host.name} cannot be used: {error}") from None
    domain = next((d for d in domains if name in (d.name, d.uuid)), None)
    if domain is None:
        raise NotFound(f"Host {host.name} has no domain {name!r}; `virsh -c {host.uri} list --all` shows what it has.")
    if not domain.persistent:
        raise RuleError(f"{domain.name} is transient: define it first.")
    rules.movable(domain)
    machine = definition.read(domain.inactive_xml)
    others = {path for other in domains if other.uuid != domain.uuid for path in _files(other)}
    _require_movable(host, machine, files, others)
    local = {disk.device: files[disk.path] for disk in machine.disks if disk.path}
    roles = _roles(machine, local, swap)
    seen_ports = _ports(looks, domain, host)
    in_vlans = vlans.examine(looks, host, domain, seen_ports, given_vlans or {})
    return Found(domain, machine, local, roles, _volumes(looks, domain), seen_ports, in_vlans)


def _files(domain: DomainFacts) -> set[str]:
    xmls = [xml for xml in (domain.inactive_xml, domain.live_xml) if xml]
    return {disk.path for xml in xmls for disk in definition.read(xml).disks if disk.path}


def _volumes(looks: Looks, domain: DomainFacts) -> tuple[AttachedVolume, ...]:
    try:
        return volumes.examine(looks, domain.inactive_xml, patience=0)
    except CinderAway as error:
        raise CinderConnectionFailed(f"{domain.name} has volumes, and {str(error).rstrip('.')}.") from None


def _ports(looks: Looks, domain: DomainFacts, host: Host) -> tuple[SeenPort, ...]:
    try:
        return ports.examine(looks, domain.inactive_xml, host.name, patience=0)
    except NeutronAway as error:
        raise NeutronConnectionFailed(f"{domain.name} has NICs, and {str(error).rstrip('.')}.") from None


def _roles(machine: Definition, files: Mapping[str, VolumeFacts], swap: str | None) -> dict[str, str]:
    """What each local disk is for: what cannot be written is the config drive, the first of the others the root disk,
    unless a volume comes before it."""
    roles: dict[str, str] = {}
    has_root = False
    for disk in machine.disks:
        if (file := files.get(disk.device)) is None:
            has_root = has_root or disk.network  # else it is an empty drive
        elif disk.kind == "cdrom" or (disk.readonly and file.capacity <= rules.CONFIG_DRIVE_BYTES):
            roles[disk.device] = "config"
        elif not has_root:
            roles[disk.device], has_root = "root", True
        else:
            roles[disk.device] = "swap" if disk.device == swap else "ephemeral"
    if not has_root:
        raise RuleError(f"{machine.name} has no disk: there is nothing that a resize could move.")
    if swap and roles.get(swap) != "swap":
        raise RuleError(f"{machine.name} has no disk {swap} that could be its swap disk.")
    return roles


def _require_movable(host: Host, machine: Definition, files: Mapping[str, VolumeFacts], others: set[str]) -> None:
    """`others` are the files that other domains of the host use."""
    for disk in machine.disks:
        if disk.path is None:
            continue
        if disk.kind != "disk":
            _require_config_drive(disk, files)
        elif disk.path not in files:
            raise RuleError(
                f"Disk {disk.device} ({disk.path}) is not in pool {host.pool} of host {host.name}, or the host cannot "
                "see it: move the file into the pool."
            )
        if disk.path in others:
            raise RuleError(f"{disk.device} ({disk.path}) is another domain's as well: detach it from one of them.")
        rules.format_as_defined(machine.name, disk, files[disk.path])


def _require_config_drive(disk: Disk, files: Mapping[str, VolumeFacts]) -> None:
    """A CD in a drive goes along as the machine's config drive if it is small and in the pool."""
    file = files.get(disk.path or "")
    if disk.kind != "cdrom" or file is None:
        raise RuleError(f"{disk.device} has {disk.path} inserted, which another host does not have: eject it.")
    if file.capacity > rules.CONFIG_DRIVE_BYTES:
        raise RuleError(
            f"{disk.device} has {disk.path} inserted, which with more than {rules.CONFIG_DRIVE_BYTES // rules.MIB} MiB "
            "is no config drive: eject it."
        )


def store(tx: Transaction, host: Host, found: Found, project: str, defaults: Mapping[str, int]) -> Instance:
    """Writes the records of an adopted machine. Raises Conflict if it is managed, OverQuota if it does not fit."""
    if known := tx.instances.find(found.machine.uuid):
        raise Conflict(f"Domain {found.machine.name} is managed already, as instance {known.name}.")
    if tx.instances.find(found.machine.name):
        raise Conflict(f"There is another managed instance named {found.machine.name}: rename one of them.")
    flavor = _flavor(tx, found)
    instance = Instance(
        id=found.machine.uuid,
        name=found.machine.name,
        project_id=project,
        host_id=host.id,
        flavor_id=flavor.id,
        vm_state=VmState.ACTIVE if found.domain.state is PowerState.RUNNING else VmState.STOPPED,
        volume_backed=found.volume_backed,
        created_at=tx.now(),
        launched_at=tx.now(),
        disks=[
            models.Disk(
                device=device,
                role=found.roles[device],
                volume=file.name,
                path=file.path,
                format=file.format,
                capacity=file.capacity,
            )
            for device, file in found.files.items()
        ],
        volumes=[
            Volume(
                volume_id=volume.volume_id,
                device=volume.device,
                size_gb=volume.size_gb,
                attachment_id=volume.attachment_id,
            )
            for volume in found.volumes
        ],
        ports=[
            Port(
                mac=port.mac,
                bridge=port.bridge,
                port_id=port.port_id,
                vlan=found.vlans.get(port.mac),
                bindings=[Binding(host_id=host.id, active=True)],
            )
            for port in found.ports
        ],
    )
    instance.flavor, instance.host = flavor, tx.hosts.get(host.id)
    tx.session.add(instance)
    text = f"{instance.name} of {host.name} adopted into project {project}, flavor {flavor.name}"
    tx.events.command(text, instance=instance, host=host.name, flavor=flavor.name)
    tx.quotas.add_instance(instance, defaults)
    amount = Amount.of(flavor, volume_backed=instance.volume_backed)
    tx.hosts.allocate(host, instance_consumer(instance.id), amount, force=True)
    return instance


def _flavor(tx: Transaction, found: Found) -> Flavor:
    """The flavor of exactly the machine's size, made if there is none; disks count in whole GiB, swap in
    MiB, rounded up; a config drive does not count, nor do volumes."""
    size = {
        "vcpus": found.machine.vcpus,
        "memory_mb": found.machine.memory_mb,
        "root_gb": _size(found, "root", GIB),
        "ephemeral_gb": _size(found, "ephemeral", GIB),
        "swap_mb": _size(found, "swap", rules.MIB),
    }
    known = tx.flavors.of_size(**size)
    if known is not None:
        return known
    name = "adopted-{vcpus}-{memory_mb}-{root_gb}-{ephemeral_gb}".format(**size)
    if size["swap_mb"]:
        name += f"-{size['swap_mb']}"
    flavor = tx.flavors.create(name, **size)
    tx.session.flush()
    return flavor


def _size(found: Found, role: str, unit: int) -> int:
    return sum(math.ceil(file.capacity / unit) for file in found.of_role(role))
