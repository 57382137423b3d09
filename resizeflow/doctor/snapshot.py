"""What the invariants are checked on: the records of one moment, and what the hosts answered after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from resizeflow.drivers.hypervisor import DomainFacts, DriverError, VolumeFacts
from resizeflow.gate import HostAway, Looks
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
        selectinload(Instance.disks), selectinload(Instance.ports).selectinload(Port.bindings)
    )
    counts = session.execute(sa.select(Job.instance_id, sa.func.count()).group_by(Job.instance_id))
    return Records(
        hosts={row.id: row for row in session.scalars(sa.select(Host))},
        instances={row.id: row for row in session.scalars(machines)},
        migrations={row.id: row for row in session.scalars(sa.select(Migration).where(held))},
        jobs={job.instance_id: job for job in jobs},
        allocations=session.scalars(sa.select(Allocation).order_by(Allocation.id)).all(),
        usages=session.scalars(sa.select(QuotaUsage)).all(),
        reservations=session.scalars(sa.select(Reservation)).all(),
        debts=debts,
        jobs_ever={row[0]: row[1] for row in counts},
    )


@dataclass(frozen=True)
class Seen:
    """A host's domains, by UUID, and the volumes of its pool, by name."""

    domains: Mapping[str, DomainFacts]
    volumes: Mapping[str, VolumeFacts]


@dataclass(frozen=True)
class World:
    """What the hosts answered, by host id; and why those did not that did not, by name."""

    seen: Mapping[str, Seen]
    silent: Mapping[str, str]

    def domain(self, host_id: str | None, uuid: str) -> DomainFacts | None:
        look = self.seen.get(host_id or "")
        return look.domains.get(uuid) if look else None


def look(looks: Looks, hosts: Sequence[Host]) -> World:
    """Asks each host once."""

    def ask(host: Host) -> Seen | str:
        hypervisor = looks.host(host, patience=0)
        try:
            return Seen(
                {domain.uuid: domain for domain in hypervisor.domains()},
                {volume.name: volume for volume in hypervisor.volumes(host.pool)},
            )
        except (HostAway, DriverError) as error:
            return str(error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(hosts, pool.map(ask, hosts), strict=True))
    return World(
        {host.id: answer for host, answer in answers.items() if isinstance(answer, Seen)},
        {host.name: answer for host, answer in answers.items() if isinstance(answer, str)},
    )
