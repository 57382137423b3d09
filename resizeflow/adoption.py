"""Bringing a libvirt domain under management: what it is, and what must not be there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from resizeflow import rules
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Definition
from resizeflow.drivers.hypervisor import DomainFacts, DriverError, PowerState, VolumeFacts
from resizeflow.errors import Conflict, NotFound, RuleError
from resizeflow.gate import HostAway, Looks
from resizeflow.persistence.hosts import Amount, instance_consumer
from resizeflow.persistence.models import GIB, Binding, Disk, Flavor, Host, Instance, Port
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import VmState


@dataclass(frozen=True)
class Found:
    """A domain that can be adopted: its definition and the volumes of its disks, the root disk's first."""

    domain: DomainFacts
    machine: Definition
    volumes: Mapping[str, VolumeFacts]


def examine(looks: Looks, host: Host, name: str) -> Found:
    """Looks at a domain, by name or UUID. Raises NotFound, or RuleError with what stands against adopting it."""
    try:
        hypervisor = looks.host(host, patience=0)
        domain = next((d for d in hypervisor.domains() if name in (d.name, d.uuid)), None)
        volumes = {volume.path: volume for volume in hypervisor.volumes(host.pool)}
    except HostAway as error:
        raise Conflict(f"The {error}. Nothing was changed.") from None
    except DriverError as error:
        raise RuleError(f"Host {host.name} cannot be used: {error}") from None
    if domain is None:
        raise NotFound(f"Host {host.name} has no domain {name!r}; `virsh -c {host.uri} list --all` shows what it has.")
    if not domain.persistent:
        raise RuleError(f"{domain.name} is transient: define it first.")
    rules.movable(domain)
    machine = definition.read(domain.inactive_xml)
    _require_movable(host, machine, volumes)
    local = {disk.device: disk.path for disk in machine.disks if disk.kind == "disk" and disk.path}
    return Found(domain, machine, {device: volumes[path] for device, path in local.items()})


def _require_movable(host: Host, machine: Definition, volumes: Mapping[str, VolumeFacts]) -> None:
    if not any(disk.kind == "disk" and (disk.path or disk.network) for disk in machine.disks):
        raise RuleError(f"{machine.name} has no local disk: there is nothing that a resize could move.")
    for disk in machine.disks:
        if disk.network:
            raise RuleError(f"Disk {disk.device} is a network disk: machines with volumes cannot be adopted yet.")
        if disk.kind != "disk" or disk.path is None:
            if disk.path is not None:
                raise RuleError(f"{disk.device} has {disk.path} inserted, which another host does not have: eject it.")
            continue
        if disk.path not in volumes:
            raise RuleError(
                f"Disk {disk.device} ({disk.path}) is not in pool {host.pool} of host {host.name}, or the host cannot "
                "see it: move the file into the pool."
            )
        rules.format_as_defined(machine.name, disk, volumes[disk.path])
    for nic in machine.nics:
        if nic.bridge is None:
            raise RuleError(f"NIC {nic.mac} is not plugged into a bridge by name ({nic.kind}): only bridges can move.")


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
            Disk(
                device=device,
                role="root" if number == 0 else "ephemeral",
                volume=volume.name,
                path=volume.path,
                format=volume.format,
                capacity=volume.capacity,
            )
            for number, (device, volume) in enumerate(found.volumes.items())
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
    """The flavor of exactly the machine's size, made if there is none; disks count in whole GiB, rounded up."""
    sizes = [math.ceil(volume.capacity / GIB) for volume in found.volumes.values()]
    size = {
        "vcpus": found.machine.vcpus,
        "memory_mb": found.machine.memory_mb,
        "root_gb": sizes[0],
        "ephemeral_gb": sum(sizes[1:]),
    }
    known = tx.flavors.of_size(**size)
    if known is not None:
        return known
    name = "adopted-{vcpus}-{memory_mb}-{root_gb}-{ephemeral_gb}".format(**size)
    flavor = tx.flavors.create(name, **size)
    tx.session.flush()
    return flavor
