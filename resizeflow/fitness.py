"""Whether a host can really take a machine: looks only, at the source once and at each candidate."""

from __future__ import annotations

from dataclasses import dataclass

from resizeflow import ports, vlans, volumes
from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Definition
from resizeflow.drivers.hypervisor import HostFacts, Hypervisor
from resizeflow.drivers.interface import DriverError, Refused
from resizeflow.errors import NoValidHost
from resizeflow.looks import Looks
from resizeflow.persistence.models import Flavor, Host, Instance
from resizeflow.rules import MIB

HEADROOM = 64 * 1024 * 1024
"""Bytes that a destination's pool must have free beyond the copy itself: metadata of image files."""


@dataclass(frozen=True)
class Machine:
    """What a host must have for a machine, as its source has it now; sizes in bytes."""

    source: Host
    xml: str
    definition: Definition
    bridges: frozenset[str]
    """Those that its NICs are plugged into, but for ports of Neutron's: each host has its own for these."""
    disks: int
    """What its disks take, and a copy of them will: all but swap space."""
    swap: int
    """What it is to have of swap space, which is made on every host, its own too."""
    ceph_secrets: frozenset[str] = frozenset()
    """The libvirt secrets without which a host cannot open its volumes. Those for iSCSI are made on each host."""
    has_ports: bool = False
    """Whether any of its NICs is a port of Neutron's."""
    filtering: frozenset[str] = frozenset()
    """The bridges that have to filter VLANs, because ports of it are in one."""


def examine(looks: Looks, source: Host, instance: Instance, new: Flavor) -> Machine:
    """Looks at a machine, with its disks and ports by the records, that is to get the flavor `new`, and at its volumes.
    Raises HostAway if the source does not answer, NoValidHost if it has no such machine that could be moved;
    CinderAway, InvalidVolume, NeutronAway, InvalidPort."""
    there = looks.host(source)
    swap = {disk.path for disk in instance.disks if disk.role == "swap"}
    try:
        domain = there.domain(instance.id)
        if domain is None:
            raise NoValidHost(f"No valid host: the source {source.name} has no such domain any more.")
        machine = definition.read(domain.inactive_xml)
        copied = {disk.path for disk in machine.disks} - swap
        taken = sum(volume.allocation for volume in there.volumes(source.pool) if volume.path in copied)
    except DriverError as error:
        raise NoValidHost(f"No valid host: {error}") from None
    secrets = [volume.secret for volume in volumes.examine(looks, domain.inactive_xml)]
    ceph = frozenset(secret.uuid.lower() for secret in secrets if secret and secret.kind == "ceph")
    filtering = frozenset(port.bridge for port in instance.ports if port.own_vlan is not None)
    if reason := vlans.fault(looks, source, filtering):
        raise NoValidHost(f"No valid host: ports of {instance.name} are in VLANs; its host {source.name}: {reason}.")
    has = ports.examine(looks, domain.inactive_xml, source.name, known=instance.port_ids)
    return Machine(
        source,
        domain.inactive_xml,
        machine,
        frozenset(port.bridge for port in has if port.port_id is None),
        taken,
        new.swap_mb * MIB,
        ceph,
        has_ports=any(port.port_id for port in has),
        filtering=filtering,
    )


def why_unfit(looks: Looks, machine: Machine, host: Host) -> str | None:
    """What a look at a host has against it, in one clause; None if nothing. Raises HostAway if the source is needed and
    does not answer, NeutronAway if Neutron is."""
    there = looks.host(host, patience=0)
    elsewhere = host.id != machine.source.id
    try:
        if reason := _unknown_machine(there.facts(), machine):
            return reason
        there.check_cpu(machine.xml)
        return (
            (_clash(there, machine.definition) if elsewhere else None)
            or (_no_secret(looks, there, machine) if elsewhere and machine.ceph_secrets else None)
            or (ports.agent_fault(looks.network(), host.name) if machine.has_ports else None)
            or vlans.fault(looks, host, machine.filtering, patience=0)
            or _no_space(there, host, HEADROOM + machine.swap + (machine.disks if elsewhere else 0))
            or (_no_way(host, looks.settings.transfer) if elsewhere else None)
        )
    except HostAway as error:
        if error.host.id != host.id:
            raise
        return str(error).rstrip(".")
    except DriverError as error:
        return str(error).rstrip(".")


def _unknown_machine(facts: HostFacts, machine: Machine) -> str | None:
    if missing := sorted(machine.bridges - facts.bridges):
        return f"it has no bridge {', '.join(missing)}"
    if machine.definition.machine not in facts.machines:
        return f"its QEMU does not know machine type {machine.definition.machine}"
    if machine.definition.domain_type not in facts.domain_types:
        return f"it cannot run {machine.definition.domain_type} guests"
    return None


def _clash(there: Hypervisor, machine: Definition) -> str | None:
    for other in there.domains():
        if machine.uuid == other.uuid or machine.name == other.name:
            return f"it has a domain {other.name} ({other.uuid}) already"
    return None


def _no_secret(looks: Looks, there: Hypervisor, machine: Machine) -> str | None:
    """A secret that it lacks is copied from the source, if that tells its value."""
    source = looks.host(machine.source)
    for uuid in sorted(machine.ceph_secrets - {secret.uuid for secret in there.secrets()}):
        try:
            readable = source.secret_value(uuid) is not None
        except Refused:
            readable = False
        if not readable:
            return f"it has no libvirt secret {uuid}, and {machine.source.name}'s cannot be read: define it there"
    return None


def _no_space(there: Hypervisor, host: Host, needed: int) -> str | None:
    pool = there.pool(host.pool)
    if pool.available < needed:
        return f"pool {pool.name} has {pool.available >> 20} MiB free, the disks need {needed >> 20} MiB"
    return None


def _no_way(host: Host, transfer: str) -> str | None:
    if not host.peer_uri and transfer == "direct":
        return "it has no peer URI, and transfer = direct allows no other way"
    return None
