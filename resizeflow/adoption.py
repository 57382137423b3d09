"""Bringing a libvirt domain under management: what it is, and what must not be there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from resizeflow import rules
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Definition, Disk
from resizeflow.drivers.hypervisor import DomainFacts, DriverError, PowerState, VolumeFacts
from resizeflow.errors import Conflict, NotFound, RuleError
from resizeflow.gate import HostAway, Looks
from resizeflow.persistence import models
from resizeflow.persistence.hosts import Amount, instance_consumer
from resizeflow.persistence.models import GIB, Binding, Flavor, Host, Instance, Port
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import VmState


@dataclass(frozen=True)
class Found:
    """A domain that can be adopted: its definition, and the volumes and roles of its disks, by device."""

    domain: DomainFacts
    machine: Definition
    volumes: Mapping[str, VolumeFacts]
    roles: Mapping[str, str]

    def of_role(self, role: str) -> list[VolumeFacts]:
        """The volumes of one role."""
        return [self.volumes[device] for device, own in self.roles.items() if own == role]


def examine(looks: Looks, host: Host, name: str, *, swap: str | None = None) -> Found:
    """Looks at a domain, by name or UUID. `swap` is the device that is its swap disk. Raises NotFound, or RuleError
    with what stands against adopting it."""
    try:
        hypervisor = looks.host(host, patience=0)
        domains = hypervisor.domains()
        volumes = {volume.path: volume for volume in hypervisor.volumes(host.pool)}
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
    _require_movable(host, machine, volumes, others)
    local = {disk.device: volumes[disk.path] for disk in machine.disks if disk.path}
    return Found(domain, machine, local, _roles(machine, local, swap))


def _files(domain: DomainFacts) -> set[str]:
    xmls = [xml for xml in (domain.inactive_xml, domain.live_xml) if xml]
    return {disk.path for xml in xmls for disk in definition.read(xml).disks if disk.path}


def _roles(machine: Definition, volumes: Mapping[str, VolumeFacts], swap: str | None) -> dict[str, str]:
    """What each disk is for: the first one is the root disk, what cannot be written the config drive."""
    roles = {}
    for disk in machine.disks:
        if (volume := volumes.get(disk.device)) is None:
            continue
        if disk.kind == "cdrom" or (disk.readonly and volume.capacity <= rules.CONFIG_DRIVE_BYTES):
            roles[disk.device] = "config"
        elif "root" not in roles.values():
            roles[disk.device] = "root"
        else:
            roles[disk.device] = "swap" if disk.device == swap else "ephemeral"
    if "root" not in roles.values():
        raise RuleError(f"{machine.name} has no local disk: there is nothing that a resize could move.")
    if swap and roles.get(swap) != "swap":
        raise RuleError(f"{machine.name} has no disk {swap} that could be its swap disk.")
    return roles


def _require_movable(host: Host, machine: Definition, volumes: Mapping[str, VolumeFacts], others: set[str]) -> None:
    """`others` are the files that other domains of the host use."""
    for disk in machine.disks:
        if disk.network:
            raise RuleError(f"Disk {disk.device} is a network disk: machines with volumes cannot be adopted yet.")
        if disk.path is None:
            continue
        if disk.kind != "disk":
            _require_config_drive(disk, volumes)
        elif disk.path not in volumes:
            raise RuleError(
                f"Disk {disk.device} ({disk.path}) is not in pool {host.pool} of host {host.name}, or the host cannot "
                "see it: move the file into the pool."
            )
        if disk.path in others:
            raise RuleError(f"{disk.device} ({disk.path}) is another domain's as well: detach it from one of them.")
        rules.format_as_defined(machine.name, disk, volumes[disk.path])
    for nic in machine.nics:
        if nic.bridge is None:
            raise RuleError(f"NIC {nic.mac} is not plugged into a bridge by name ({nic.kind}): only bridges can move.")


def _require_config_drive(disk: Disk, volumes: Mapping[str, VolumeFacts]) -> None:
    """A CD in a drive goes along as the machine's config drive if it is small and in the pool."""
    volume = volumes.get(disk.path or "")
    if disk.kind != "cdrom" or volume is None:
        raise RuleError(f"{disk.device} has {disk.path} inserted, which another host does not have: eject it.")
    if volume.capacity > rules.CONFIG_DRIVE_BYTES:
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
        created_at=tx.now(),
        launched_at=tx.now(),
        disks=[
            models.Disk(
                device=device,
                role=found.roles[device],
                volume=volume.name,
                path=volume.path,
                format=volume.format,
                capacity=volume.capacity,
            )
            for device, volume in found.volumes.items()
        ],
        ports=[
            Port(mac=nic.mac, bridge=nic.bridge or "", bindings=[Binding(host_id=host.id, active=True)])
            for nic in found.machine.nics
        ],
    )
    instance.flavor, instance.host = flavor, tx.hosts.get(host.id)
    tx.session.add(instance)
    tx.quotas.add_instance(project, flavor, defaults)
    tx.hosts.allocate(host, instance_consumer(instance.id), Amount.of(flavor), force=True)
    return instance


def _flavor(tx: Transaction, found: Found) -> Flavor:
    """The flavor of exactly the machine's size, made if there is none; disks count in whole GiB, swap in
    MiB, rounded up; a config drive does not count."""
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
    return sum(math.ceil(volume.capacity / unit) for volume in found.of_role(role))
