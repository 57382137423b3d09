"""Domains as a host has them now."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

import libvirt

from resizeflow.drivers.hypervisor import DomainFacts, PowerState
from resizeflow.drivers.interface import Unknown
from resizeflow.drivers.libvirt.elements import parse
from resizeflow.drivers.libvirt.session import Session

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.SHUTOFF,
}
# A domain that starts or stops between two questions gives answers that do not fit: ask again.
_TRIES = 5


@dataclass(frozen=True)
class _Standing:
    """What a host says of many domains at once, or of one domain in four questions."""

    persistent: bool
    autostart: bool
    managed_save: bool
    snapshots: int


@dataclass(frozen=True)
class Migration:
    """A migration as its domain tells of it."""

    incoming: bool = False
    running: bool = False
    done: int = 0
    total: int = 0


def find_domain(session: Session, uuid: str) -> libvirt.virDomain:
    """The domain as libvirt's object. Called inside `Session.asking`; raises libvirt's "no domain"."""
    return session.connection.lookupByUUIDString(uuid)


def power_state(domain: libvirt.virDomain) -> PowerState:
    """The domain's power state."""
    return _power(*domain.state())


def is_starting(state: int, reason: int) -> bool:
    """libvirt calls a domain paused as soon as its start begins, but its QEMU may still hang at a disk, or fail."""
    return (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)


def domain_facts(session: Session, uuid: str) -> DomainFacts | None:
    """A domain by its UUID, None if the host knows none."""
    with session.asking(f"look at domain {uuid}"):
        try:
            domain = find_domain(session, uuid)
            standing = _Standing(
                persistent=bool(domain.isPersistent()),
                autostart=bool(domain.autostart()),
                managed_save=bool(domain.hasManagedSaveImage()),
                snapshots=domain.snapshotNum(),
            )
            return _facts(session, domain, standing)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise


def all_domain_facts(session: Session) -> tuple[DomainFacts, ...]:
    """All domains of the host. What libvirt can tell of all at once is asked once."""
    found = []
    with session.asking("list its domains"):
        list_domains = session.connection.listAllDomains
        domains = list_domains(0)
        groups = [
            {domain.UUIDString() for domain in list_domains(flag)}
            for flag in (
                libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT,
                libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART,
                libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE,
                libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT,
            )
        ]
        for domain in domains:
            persistent, autostart, managed_save, snapshots = (domain.UUIDString() in group for group in groups)
            try:
                standing = _Standing(
                    persistent, autostart, managed_save, snapshots=domain.snapshotNum() if snapshots else 0
                )
                found.append(_facts(session, domain, standing))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    return tuple(sorted(found, key=lambda facts: (facts.name, facts.uuid)))


def definition_with_secrets(session: Session, uuid: str) -> str:
    """The inactive definition with its passwords."""
    with session.asking(f"give the definition of domain {uuid}"):
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return str(find_domain(session, uuid).XMLDesc(flags))


def merging_devices(live: Element) -> frozenset[str]:
    """The devices of a live definition with an active block commit."""
    return frozenset(
        target.get("dev", "")
        for disk in live.iterfind("devices/disk")
        if (mirror := disk.find("mirror")) is not None
        and mirror.get("job") == "active-commit"
        and (target := disk.find("target")) is not None
    )


def _facts(session: Session, domain: libvirt.virDomain, standing: _Standing) -> DomainFacts:
    for _ in range(_TRIES):
        state, reason = domain.state()
        if state == libvirt.VIR_DOMAIN_SHUTOFF:
            return _facts_from(domain, standing, PowerState.SHUTOFF, live_xml=None, migration=Migration())
        xml = str(domain.XMLDesc(0))
        if parse(xml).get("id") is not None:
            migration = migration_of(domain, state, reason)
            return _facts_from(domain, standing, _power(state, reason), live_xml=xml, migration=migration)
    raise Unknown(f"{session.host}: domain '{domain.name()}' starts and stops faster than one can look at it.")


def _power(state: int, reason: int) -> PowerState:
    return PowerState.OTHER if is_starting(state, reason) else _STATES.get(state, PowerState.OTHER)


def _facts_from(
    domain: libvirt.virDomain,
    standing: _Standing,
    state: PowerState,
    *,
    live_xml: str | None,
    migration: Migration,
) -> DomainFacts:
    inactive_xml = live_xml
    if standing.persistent or live_xml is None:
        inactive_xml = str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    return DomainFacts(
        uuid=domain.UUIDString(),
        name=domain.name(),
        state=state,
        persistent=standing.persistent,
        autostart=standing.autostart,
        inactive_xml=inactive_xml or "",
        live_xml=live_xml,
        incoming=migration.incoming,
        job_running=migration.running,
        bytes_done=migration.done,
        bytes_total=migration.total,
        merging=merging_devices(parse(live_xml)) if live_xml else frozenset(),
        snapshots=standing.snapshots,
        managed_save=standing.managed_save,
    )


def migration_of(domain: libvirt.virDomain, state: int, reason: int) -> Migration:
    """The domain's migration, if it has one. A destination refuses to tell while it receives: its sign.

    A domain that starts, or whose QEMU is busy with a command, has none; libvirt would answer only when that is over,
    which takes minutes when a disk's storage is away.
    """
    try:
        if is_starting(state, reason) or domain.controlInfo()[0] == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED:
            return Migration()
        stats = domain.jobStats()
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        if code == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return Migration(incoming=True)
        if code == libvirt.VIR_ERR_OPERATION_INVALID:
            return Migration()  # shut off since
        raise
    running = stats.get("type") in (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)
    outgoing = running and stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    if not outgoing:
        return Migration(incoming=reason == libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
    return Migration(running=True, done=stats.get("disk_processed", 0), total=stats.get("disk_total", 0))
