"""What an operator keeps: hosts, flavors, quotas, and which machines are managed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oslo_db.exception import DBDuplicateEntry

from resizeflow import adoption
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.drivers.hypervisor import DriverError, HostFacts, PoolFacts
from resizeflow.errors import Conflict, RuleError, UsageError
from resizeflow.gate import Connections, HostAway, Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.hosts import debt_consumer, instance_consumer
from resizeflow.persistence.models import GIB, Flavor, Host, Instance, QuotaUsage
from resizeflow.persistence.quotas import RESOURCES


@dataclass(frozen=True)
class Quota:
    """A project's limit (-1: none) and use of one resource."""

    resource: str
    limit: int
    in_use: int
    reserved: int


class Inventory:
    """Changes to the records an operator keeps; hosts are only looked at."""

    def __init__(
        self, database: Database, settings: Settings, *, connections: Connections, clock: Clock | None = None
    ) -> None:
        self.database = database
        self.settings = settings
        self.clock = clock or Clock()
        self.looks = Looks(connections, settings, self.clock)

    # --- hosts -------------------------------------------------------------------------------------------

    def add_host(
        self,
        name: str,
        uri: str,
        *,
        pool: str = "default",
        peer_uri: str | None = None,
        data_uri: str | None = None,
        **limits: float,
    ) -> Host:
        """Brings a libvirt host under management; it must answer. `limits`: cpu_ratio, ram_ratio, disk_ratio,
        reserved_memory_mb, max_moves."""
        with self.database.read() as tx:
            if tx.hosts.find(name):
                raise Conflict(f"There is a host {name!r} already.")
        host = Host(name=name, uri=uri, peer_uri=peer_uri, data_uri=data_uri, pool=pool, **limits)
        facts, space = self._ask(host)
        host.id, host.vcpus, host.memory_mb = facts.uuid, facts.vcpus, facts.memory_mb
        host.disk_gb = space.capacity // GIB
        with self.database.write() as tx:
            if known := tx.hosts.find(facts.uuid):
                raise Conflict(f"{uri} is the host that is known as {known.name} already (host UUID {facts.uuid}).")
            # A host that was removed and comes back is the same row: past migrations point to it.
            host.removed = False
            return tx.session.merge(host)

    def _ask(self, host: Host) -> tuple[HostFacts, PoolFacts]:
        host.id = "new"
        try:
            hypervisor = self.looks.host(host, patience=0)
            return hypervisor.facts(), hypervisor.pool(host.pool)
        except HostAway as error:
            raise RuleError(
                f"The {str(error).rstrip('.')}. Check the URI {host.uri} and that libvirtd runs there."
            ) from None
        except DriverError as error:
            raise RuleError(f"Host {host.name} cannot be used: {error}") from None

    def set_host(self, name: str, *, fenced: bool | None = None, **changes: object) -> Host:
        """Changes a host's settings. `fenced` says that a person made sure that nothing runs there: a proof of off."""
        with self.database.write() as tx:
            host = tx.hosts.get(name)
            if fenced is not None:
                for migration in tx.migrations.open():
                    if host.id in (migration.source_host_id, migration.dest_host_id):
                        word = "fenced" if fenced else "no longer fenced"
                        who = os.environ.get("USER", "unknown")
                        tx.events.add(migration.id, "fence", f"host {host.name} is {word}, says {who}")
                host.fenced_at = tx.now() if fenced else None
            for key, value in changes.items():
                if value is not None:
                    setattr(host, key, value)
            if host.enabled:
                host.disabled_reason = None
        return host

    def remove_host(self, name: str, *, forgive_debts: bool = False) -> None:
        """Forgets a host that nothing needs. Raises Conflict saying what does."""
        with self.database.write() as tx:
            host = tx.hosts.get(name)
            if machines := [row.name for row in tx.instances.list() if row.host_id == host.id]:
                raise Conflict(f"Host {name} has managed instances: {', '.join(machines)}; move or remove them first.")
            used = [m.id[:8] for m in tx.migrations.open() if host.id in (m.source_host_id, m.dest_host_id)]
            if used:
                raise Conflict(f"Host {name} is needed by open migrations: {', '.join(used)}.")
            debts = tx.debts.open(host.id)
            if debts and not forgive_debts:
                left = ", ".join(f"{debt.kind} {debt.object}" for debt in debts)
                raise Conflict(f"Host {name} still has leftovers of ours ({left}); --forgive-debts gives them up.")
            for debt in debts:
                debt.forgiven, debt.settled_at = True, tx.now()
                tx.hosts.release(debt_consumer(debt.migration_id), host.id)
            # Migrations of the past name it: the row stays, hidden.
            host.removed, host.enabled, host.name = (
                True,
                False,
                f"{host.name} (removed {tx.now():%Y-%m-%d %H:%M:%S})",
            )

    # --- flavors and quotas ------------------------------------------------------------------------------

    def create_flavor(self, name: str, *, vcpus: int, memory_mb: int, root_gb: int, ephemeral_gb: int = 0) -> Flavor:
        """Makes a size: vCPUs, MiB, GiB."""
        if min(vcpus, memory_mb) < 1 or min(root_gb, ephemeral_gb) < 0:
            raise UsageError("A flavor needs at least 1 vCPU and 1 MiB of memory, and no negative disk.")
        with self.database.write() as tx:
            return tx.flavors.create(name, vcpus=vcpus, memory_mb=memory_mb, root_gb=root_gb, ephemeral_gb=ephemeral_gb)

    def delete_flavor(self, name: str) -> None:
        """It can no longer be asked for; machines that have it keep it."""
        with self.database.write() as tx:
            tx.flavors.get(name).deleted = True

    def quotas(self, project: str) -> Sequence[Quota]:
        with self.database.read() as tx:
            limits = tx.quotas.limits(project, self.settings.quota)
            rows = {r: tx.session.get(QuotaUsage, (project, r)) for r in RESOURCES}
        return [
            Quota(name, limits[name], row.in_use if row else 0, row.reserved if row else 0)
            for name, row in rows.items()
        ]

    def set_quota(self, project: str, limits: Mapping[str, int]) -> None:
        """Sets a project's own limits; -1 is none."""
        with self.database.write() as tx:
            for resource, limit in limits.items():
                if resource not in RESOURCES or limit < -1:
                    raise UsageError(f"Quota {resource}={limit} is not one of {', '.join(RESOURCES)} with -1 or more.")
                tx.quotas.set_limit(project, resource, limit)

    # --- instances ---------------------------------------------------------------------------------------

    def adopt(self, host: str, domain: str, *, project: str = "default") -> Instance:
        """Brings a libvirt domain under management: its flavor found or made, its NICs as ports, its disks."""
        with self.database.read() as tx:
            row = tx.hosts.get(host)
        found = adoption.examine(self.looks, row, domain)
        try:
            with self.database.write() as tx:
                return adoption.store(tx, row, found, project, self.settings.quota)
        except DBDuplicateEntry:
            raise Conflict(f"Domain {domain} is managed already.") from None

    def lock(self, instance: str, locked: bool) -> None:
        """A locked machine is neither resized, confirmed nor reverted."""
        with self.database.write() as tx:
            tx.instances.get(instance).locked = locked

    def remove_instance(self, instance: str) -> None:
        """Forgets a machine; its domain and disks stay as they are."""
        with self.database.write() as tx:
            row = tx.instances.get(instance, lock=True)
            if migration := tx.migrations.open_for(row.id):
                raise Conflict(f"Instance {row.name} has an open migration {migration.id[:8]} ({migration.status}).")
            tx.quotas.remove_instance(row.project_id, row.flavor)
            tx.hosts.release(instance_consumer(row.id))
            tx.session.delete(row)
