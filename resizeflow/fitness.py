"""Whether a host can really take a machine: looks only, at the source and at the candidate."""

from __future__ import annotations

from resizeflow.drivers import definition
from resizeflow.drivers.definition import Definition
from resizeflow.drivers.hypervisor import DomainFacts, DriverError, HostFacts, Hypervisor
from resizeflow.gate import HostAway, Looks
from resizeflow.persistence.models import Host

HEADROOM = 64 * 1024 * 1024
"""Bytes that a destination's pool must have free beyond the copy itself: metadata of image files."""


def why_unfit(looks: Looks, uuid: str, source: Host, host: Host, bridges: list[str]) -> str | None:
    """What speaks against a host for the machine `uuid`, in one clause; None if nothing does.

    Raises `HostAway` if the source does not answer.
    """
    domain = looks.host(source).domain(uuid)
    if domain is None:
        return f"the source {source.name} has no such domain any more"
    try:
        there = looks.host(host, patience=0)
        return (
            _unknown_machine(there.facts(), definition.read(domain.inactive_xml), bridges)
            or (_clash(there, domain) if host.id != source.id else None)
            or _no_space(looks, source, host, definition.read(domain.inactive_xml))
            or _no_way(looks, source, host)
        )
    except (HostAway, DriverError) as error:
        return str(error)


def _unknown_machine(facts: HostFacts, machine: Definition, bridges: list[str]) -> str | None:
    if missing := sorted(set(bridges) - facts.bridges):
        return f"it has no bridge {', '.join(missing)}"
    if machine.machine not in facts.machines:
        return f"its QEMU does not know machine type {machine.machine}"
    if machine.domain_type not in facts.domain_types:
        return f"it cannot run {machine.domain_type} guests"
    return None


def _clash(there: Hypervisor, domain: DomainFacts) -> str | None:
    for other in there.domains():
        if domain.uuid == other.uuid or domain.name == other.name:
            return f"it has a domain {other.name} ({other.uuid}) already"
    return None


def _no_space(looks: Looks, source: Host, host: Host, machine: Definition) -> str | None:
    needed = HEADROOM
    if host.id != source.id:
        files = {disk.path for disk in machine.disks if disk.path}
        needed += sum(volume.allocation for volume in looks.host(source).volumes(source.pool) if volume.path in files)
    pool = looks.host(host, patience=0).pool(host.pool)
    if pool.available < needed:
        return f"pool {pool.name} has {pool.available >> 20} MiB free, the disks need {needed >> 20} MiB"
    return None


def _no_way(looks: Looks, source: Host, host: Host) -> str | None:
    if host.id != source.id and not host.peer_uri and looks.settings.transfer == "direct":
        return "it has no peer URI, and transfer = direct allows no other way"
    return None
