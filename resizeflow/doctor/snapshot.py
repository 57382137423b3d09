"""What the invariants are checked on: the records of one moment, and what hosts and services answered after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from resizeflow.connections import Away, HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.bridge import BridgeLink
from resizeflow.drivers.hypervisor import DomainFacts, SecretFacts, VolumeFacts
from resizeflow.drivers.interface import DriverError
from resizeflow.drivers.network import NetworkPort, PortBinding
from resizeflow.drivers.volume import Attachment, CinderVolume
from resizeflow.looks import Looks
from resizeflow.persistence.models import (
    Allocation,
    Debt,
    Host,
    Instance,
    Job,
    Migration,
    Port,
    QuotaUsage,
    Reservation,
)
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL, JobState

AT_ONCE = 8
"""Hosts that are looked at side by side: a silent one takes its whole time-out."""
CINDER, NEUTRON = "Cinder", "Neutron"


@dataclass(frozen=True)
class Records:
    """What is now, by the database; of history only what still holds something."""

    hosts: Mapping[str, Host]
    instances: Mapping[str, Instance]
    migrations: Mapping[str, Migration]
    """The open ones, and closed ones that have a job that is not done or an open debt."""
    jobs: Mapping[str, Job]
    """The unfinished ones, by instance."""
    allocations: Sequence[Allocation]
    usages: Sequence[QuotaUsage]
    reservations: Sequence[Reservation]
    debts: Sequence[Debt]
    """The open ones."""
    jobs_ever: Mapping[str, int]
    """How many jobs an instance has had: what tells that one came and went between two looks."""
    open_migrations: Mapping[str, Migration] = field(init=False)
    """By instance: there is at most one."""

    def __post_init__(self) -> None:
        still_open = {row.instance_id: row for row in self.migrations.values() if row.status not in TERMINAL}
        object.__setattr__(self, "open_migrations", still_open)

    @property
    def managed_hosts(self) -> list[Host]:
        return [host for host in self.hosts.values() if not host.removed]

    def host_name(self, host_id: str | None) -> str:
        host = self.hosts.get(host_id or "")
        return host.name if host else "no host"

    def name_of(self, instance_id: str) -> str:
        instance = self.instances.get(instance_id)
        return instance.name if instance else instance_id


def read(tx: Transaction) -> Records:
    """The records as the transaction sees them; the rows may be used after its end."""
    session = tx.session
    jobs = session.scalars(sa.select(Job).where(Job.state != JobState.DONE)).all()
    debts = tx.debts.open()
    busy = {job.migration_id for job in jobs} | {debt.migration_id for debt in debts}
    held = sa.or_(Migration.status.not_in(TERMINAL), Migration.id.in_(busy))
    machines = sa.select(Instance).options(
        selectinload(Instance.disks),
        selectinload(Instance.volumes),
        selectinload(Instance.ports).selectinload(Port.bindings),
    )
    moves = (
        sa.select(Migration)
        .where(held)
        .options(selectinload(Migration.disks), selectinload(Migration.volumes), selectinload(Migration.ports))
    )
    counts = session.execute(sa.select(Job.instance_id, sa.func.count()).group_by(Job.instance_id))
    return Records(
        hosts={row.id: row for row in session.scalars(sa.select(Host))},
        instances={row.id: row for row in session.scalars(machines)},
        migrations={row.id: row for row in session.scalars(moves)},
        jobs={job.instance_id: job for job in jobs},
        allocations=session.scalars(sa.select(Allocation).order_by(Allocation.id)).all(),
        usages=session.scalars(sa.select(QuotaUsage)).all(),
        reservations=session.scalars(sa.select(Reservation)).all(),
        debts=debts,
        jobs_ever={row[0]: row[1] for row in counts},
    )


@dataclass(frozen=True)
class Seen:
    """A host's domains, by UUID, the volumes of its pool, by name, and its libvirt secrets."""

    domains: Mapping[str, DomainFacts]
    volumes: Mapping[str, VolumeFacts]
    secrets: Sequence[SecretFacts]


@dataclass(frozen=True)
class Kept:
    """What Cinder has of a machine: its volumes, by id (None: unknown there), and all of its attachments; `others` are
    volumes that are kept for somebody else, by an attachment that is not the machine's."""

    volumes: Mapping[str, CinderVolume | None]
    attachments: Sequence[Attachment]
    others: frozenset[str]


@dataclass(frozen=True)
class Bound:
    """What Neutron has of a machine: its ports, and their bindings by the port's id."""

    ports: Sequence[NetworkPort]
    bindings: Mapping[str, tuple[PortBinding, ...]]


@dataclass(frozen=True)
class World:
    """What the hosts answered, by host id; what Cinder and Neutron answered, by machine; and why those did not that did
    not."""

    seen: Mapping[str, Seen]
    kept: Mapping[str, Kept]
    bound: Mapping[str, Bound]
    silent: Mapping[str, str]
    """By `host NAME`, `bridges of host NAME`, `Cinder` or `Neutron`."""
    bridges: Mapping[tuple[str, str], tuple[BridgeLink, ...]]
    """The members of the bridges on which machines have ports in VLANs, by the host's id and the bridge's name."""

    def domain(self, host_id: str | None, uuid: str) -> DomainFacts | None:
        look = self.seen.get(host_id or "")
        return look.domains.get(uuid) if look else None


def look(looks: Looks, records: Records) -> World:
    """Asks each managed host once, then Cinder about the volumes of each machine, by the records and by its definition,
    if there are any, and Neutron about the ports of each, if there is a Neutron or a machine had ports of one."""
    hosts = records.managed_hosts

    def ask(host: Host) -> Seen | str:
        hypervisor = looks.host(host, patience=0)
        try:
            return Seen(
                {domain.uuid: domain for domain in hypervisor.domains()},
                {volume.name: volume for volume in hypervisor.volumes(host.pool)},
                hypervisor.secrets(),
            )
        except (HostAway, DriverError) as error:
            return str(error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(hosts, pool.map(ask, hosts), strict=True))
    seen = {host.id: answer for host, answer in answers.items() if isinstance(answer, Seen)}
    silent = {f"host {host.name}": answer for host, answer in answers.items() if isinstance(answer, str)}
    kept, why = _ask_cinder(looks, _volumes(records, seen))
    bound, why_not = _ask_neutron(looks, records)
    for service, words in ((CINDER, why), (NEUTRON, why_not)):
        if words:
            silent[service] = words
    bridges, without = _ask_bridges(looks, records)
    return World(seen, kept, bound, silent | without, bridges)


def _ask_bridges(
    looks: Looks, records: Records
) -> tuple[dict[tuple[str, str], tuple[BridgeLink, ...]], dict[str, str]]:
    """The members of the bridges on which machines have ports in VLANs, of hosts that have shells; and why those do not
    answer that do not."""
    asked = {
        (row.host_id, port.bridge)
        for row in records.instances.values()
        for port in row.ports
        if port.own_vlan is not None
    }
    found, silent = {}, {}
    for host_id, bridge in sorted(asked):
        host = records.hosts[host_id]
        try:
            found[host_id, bridge] = looks.bridges(host, patience=0).bridge_links(bridge)
        except (HostAway, DriverError) as error:
            silent[f"bridges of host {host.name}"] = str(error)
    return found, silent


def _volumes(records: Records, seen: Mapping[str, Seen]) -> dict[str, frozenset[str]]:
    """The Cinder volumes that machines have or that move with them, by machine; one that has none is left out."""
    ids = {row.id: {volume.volume_id for volume in row.volumes} for row in records.instances.values()}
    for migration in records.migrations.values():
        if migration.instance_id in ids:
            ids[migration.instance_id] |= {volume.volume_id for volume in migration.volumes}
    for host in seen.values():
        for domain in host.domains.values():
            if domain.uuid in ids:
                ids[domain.uuid] |= defined(domain) or frozenset()
    return {instance_id: frozenset(found) for instance_id, found in ids.items() if found}


def defined(domain: DomainFacts | None) -> frozenset[str] | None:
    """The volumes in the definition that would start next; None where there is none that can be read."""
    try:
        return frozenset(definition.volumes(domain.inactive_xml).values()) if domain else None
    except ValueError:
        return None


def _ask_cinder(looks: Looks, volumes: Mapping[str, frozenset[str]]) -> tuple[dict[str, Kept], str | None]:
    """What it has of each machine, one after the other, as far as it answers; and why it stopped."""
    kept = {}
    try:
        for instance_id, ids in volumes.items():
            kept[instance_id] = _ask_of(looks, instance_id, ids)
    except (Away, DriverError) as error:
        return kept, str(error)
    return kept, None


def _ask_neutron(looks: Looks, records: Records) -> tuple[dict[str, Bound], str | None]:
    """What it has of each machine, as `_ask_cinder`."""
    bound: dict[str, Bound] = {}
    configured = looks.settings.services["neutron"].uri is not None
    asked = [row.id for row in records.instances.values() if configured or any(port.port_id for port in row.ports)]
    try:
        for instance_id in asked:
            network = looks.network(patience=0)
            found = network.ports(instance_id)
            bound[instance_id] = Bound(found, {port.id: network.bindings(port.id) for port in found})
    except (Away, DriverError) as error:
        return bound, str(error)
    return bound, None


def _ask_of(looks: Looks, instance_id: str, ids: frozenset[str]) -> Kept:
    cinder = looks.volumes(patience=0)
    attachments = cinder.attachments(instance_id)
    found = {volume_id: cinder.cinder_volume(volume_id) for volume_id in ids | {one.volume_id for one in attachments}}
    # Of a volume that is not kept for the machine: who else has it, if it is not free?
    lost = found.keys() - {one.volume_id for one in attachments}
    others = {volume_id for volume_id in lost if found[volume_id] and cinder.attachments(None, volume_id)}
    return Kept(found, attachments, frozenset(others))
