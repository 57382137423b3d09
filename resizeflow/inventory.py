"""What an operator keeps: hosts, flavors, quotas, and which machines are managed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oslo_db.exception import DBDuplicateEntry

from resizeflow import adoption
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.connections import Connections, HostAway
from resizeflow.drivers.hypervisor import HostFacts, PoolFacts
from resizeflow.drivers.interface import DriverError
from resizeflow.errors import Conflict, RuleError, UsageError
from resizeflow.looks import Looks
from resizeflow.persistence import recount
from resizeflow.persistence.changing import change, told
from resizeflow.persistence.database import Database
from resizeflow.persistence.flavors import projects_of
from resizeflow.persistence.hosts import debt_consumer
from resizeflow.persistence.models import GIB, Flavor, Host, Instance, Migration, QuotaUsage
from resizeflow.persistence.quotas import RESOURCES, Limit
from resizeflow.persistence.recount import Drift
from resizeflow.persistence.transaction import Transaction
from resizeflow.rules.extra_specs import TRAIT, well_formed
from resizeflow.states import MigrationStatus, Outcome


@dataclass(frozen=True)
class Quota:
    """A project's limit (-1: none), what it comes from, and use of one resource."""

    resource: str
    limit: int
    limit_from: str
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
        shell: str | None = None,
        traits: Collection[str] = (),
        **limits: float,
    ) -> Host:
        """Brings a libvirt host under management; it must answer. `shell` are the words before a command that run it
        there. `limits`: cpu_ratio, ram_ratio, disk_ratio,
        reserved_memory_mb, max_moves."""
        _require_traits(traits)
        _require_shell(shell)
        with self.database.read() as tx:
            if tx.hosts.find(name):
                raise Conflict(f"There is a host {name!r} already.")
        host = Host(name=name, uri=uri, peer_uri=peer_uri, data_uri=data_uri, shell=shell, pool=pool, **limits)
        host.traits = sorted(set(traits))
        facts, space = self._ask(host)
        host.id, host.vcpus, host.memory_mb = facts.uuid, facts.vcpus, facts.memory_mb
        host.disk_gb = space.capacity // GIB
        with self.database.write() as tx:
            if known := tx.hosts.find(facts.uuid):
                raise Conflict(f"{uri} is the host that is known as {known.name} already (host UUID {facts.uuid}).")
            # A host that was removed and comes back is the same row: past migrations point to it.
            host.removed = False
            size = {"vcpus": host.vcpus, "memory_mb": host.memory_mb, "disk_gb": host.disk_gb}
            tx.events.command(f"host {name} added, pool {pool}", host=name, pool=pool, **size, **limits)
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

    def set_host(
        self,
        name: str,
        *,
        fenced: bool | None = None,
        traits: Collection[str] = (),
        no_traits: Collection[str] = (),
        **changes: object,
    ) -> Host:
        """Changes a host's settings; `traits` are those that it gets, `no_traits` those that it loses. `fenced` says
        that a person made sure that nothing runs there: a proof of off."""
        _require_traits(traits)
        _require_shell(changes.get("shell"))
        with self.database.write() as tx:
            host = tx.hosts.get(name)
            tx.hosts.lock(host.id)
            values = {key: value for key, value in changes.items() if value is not None}
            values["traits"] = sorted({*host.traits, *traits} - set(no_traits))
            if values.get("enabled", host.enabled):
                values["disabled_reason"] = None
            if fenced is not None:
                self._tell_fence(tx, host, fenced)
                values["fenced_at"] = tx.now() if fenced else None
            if changed := change(host, values):
                tx.events.command(f"host {host.name} set: {told(changed)}", host=host.name, changes=changed)
        return host

    @staticmethod
    def _tell_fence(tx: Transaction, host: Host, fenced: bool) -> None:
        """To the migrations whose proof of off it is."""
        for migration in tx.migrations.open():
            if host.id in (migration.source_host_id, migration.dest_host_id):
                word = "fenced" if fenced else "no longer fenced"
                text = f"host {host.name} is {word}, says {tx.actor.user}"
                tx.events.add(migration.id, "fence", text, host=host.name, outcome=Outcome.OK)

    def remove_host(self, name: str, *, forgive_debts: bool = False) -> None:
        """Forgets a host that nothing needs, also as a member of aggregates. Raises Conflict saying what does."""
        with self.database.write() as tx:
            host = tx.hosts.get(name)
            # Who takes the host as a destination, or adopts a machine on it, changes its row: what is committed
            # before is seen below, what comes later finds it removed.
            tx.aggregates.lock()
            tx.hosts.lock(host.id)
            host = tx.hosts.get(host.id)
            if machines := [row.name for row in tx.instances.list() if row.host_id == host.id]:
                raise Conflict(f"Host {name} has managed instances: {', '.join(machines)}; move or remove them first.")
            if needed := [_told(migration) for migration in tx.migrations.open() if _needs(migration, host)]:
                raise Conflict(f"Host {name} is needed by open migrations: {', '.join(needed)}.")
            debts = tx.debts.open(host.id)
            if debts and not forgive_debts:
                left = ", ".join(f"{debt.kind} {debt.object}" for debt in debts)
                raise Conflict(f"Host {name} still has leftovers of ours ({left}); --forgive-debts gives them up.")
            for debt in debts:
                tx.debts.forgive(debt, host)
                tx.hosts.release(debt_consumer(debt.migration_id), host.id)
            tx.aggregates.forget(host)
            tx.events.command(f"host {host.name} removed", host=host.name, forgiven_debts=len(debts))
            # Migrations of the past name it: the row stays, hidden.
            host.removed, host.enabled, host.name = (
                True,
                False,
                f"{host.name} (removed {tx.now():%Y-%m-%d %H:%M:%S})",
            )

    # --- flavors and quotas ------------------------------------------------------------------------------

    def create_flavor(
        self,
        name: str,
        *,
        vcpus: int,
        memory_mb: int,
        root_gb: int,
        ephemeral_gb: int = 0,
        swap_mb: int = 0,
        extra_specs: Mapping[str, str] | None = None,
        is_public: bool = True,
    ) -> Flavor:
        """Makes a size: vCPUs, MiB, GiB, and with `extra_specs` what a host must be like."""
        if min(vcpus, memory_mb) < 1 or min(root_gb, ephemeral_gb, swap_mb) < 0:
            raise UsageError("A flavor needs at least 1 vCPU and 1 MiB of memory, and no negative disk.")
        for key, value in (extra_specs or {}).items():
            well_formed(key, value)
        size = {"vcpus": vcpus, "memory_mb": memory_mb, "root_gb": root_gb}
        size |= {"ephemeral_gb": ephemeral_gb, "swap_mb": swap_mb}
        access: dict[str, Any] = {"extra_specs": dict(extra_specs or {}), "is_public": is_public}
        with self.database.write() as tx:
            tx.events.command(f"flavor {name} created", **size, **access)
            return tx.flavors.create(name, **size, **access)

    def set_flavor(
        self,
        name: str,
        *,
        disabled: bool | None = None,
        grant: Collection[str] = (),
        withdraw: Collection[str] = (),
    ) -> Flavor:
        """Changes who may ask for a size; machines that have it keep it. Raises Conflict for a grant of a flavor that
        everybody may use."""
        with self.database.write() as tx:
            flavor = tx.flavors.get(name)
            if grant and flavor.is_public:
                raise Conflict(f"Flavor {flavor.name} is public: every project may use it already.")
            before = projects_of(flavor)
            for project in grant:
                tx.flavors.grant(flavor, project)
            for project in withdraw:
                tx.flavors.withdraw(flavor, project)
            changed = dict(change(flavor, {} if disabled is None else {"disabled": disabled}))
            if before != (after := projects_of(flavor)):
                changed["projects"] = [before, after]
            if changed:
                tx.events.command(f"flavor {flavor.name} set: {told(changed)}", changes=changed)
            return flavor

    def delete_flavor(self, name: str) -> None:
        """It can no longer be asked for; machines that have it keep it."""
        with self.database.write() as tx:
            flavor = tx.flavors.get(name)
            flavor.deleted = True
            tx.events.command(f"flavor {flavor.name} deleted")

    def quotas(self, project: str) -> Sequence[Quota]:
        """A project's limits and use."""
        with self.database.read() as tx:
            limits = tx.quotas.limits(project, self.settings.quota)
            rows = {name: tx.session.get(QuotaUsage, (project, name)) for name in RESOURCES}
        return [
            Quota(name, *limits[name], row.in_use if row else 0, row.reserved if row else 0)
            for name, row in rows.items()
        ]

    def class_limits(self) -> Mapping[str, Limit]:
        """The limits of projects without limits of their own, by resource."""
        with self.database.read() as tx:
            return tx.quotas.class_limits(self.settings.quota)

    def set_quota(self, project: str | None, limits: Mapping[str, int]) -> None:
        """Sets a project's own limits, or without a project those of quota class `default`; -1 is none."""
        try:
            with self.database.write() as tx:
                for resource, limit in limits.items():
                    if resource not in RESOURCES or limit < -1:
                        raise UsageError(
                            f"Quota {resource}={limit} is not one of {', '.join(RESOURCES)} with -1 or more."
                        )
                tx.quotas.set_limits(project, limits)
        except DBDuplicateEntry:
            raise Conflict("Somebody else has just set the same limit; look at it, and try again.") from None

    def delete_quota(self, project: str | None, resources: Collection[str] = RESOURCES) -> None:
        """Takes limits that were set for a project, or for quota class `default`, away again."""
        with self.database.write() as tx:
            tx.quotas.set_limits(project, dict.fromkeys(resources))

    def sync_quotas(self, project: str | None = None, *, dry_run: bool = False) -> Sequence[Drift]:
        """Recounts what a project (by default each) uses and has reserved. Returns what had drifted; it is set right,
        unless `dry_run`. Workers may go on meanwhile."""
        with self.database.read() if dry_run else self.database.write() as tx:
            project_ids = [name for name in recount.projects(tx) if project in (None, name)]
            if not dry_run:
                recount.lock(tx, project_ids)
            drifts = recount.find(tx, project_ids)
            if not dry_run:
                recount.correct(tx, drifts, tx.actor.user)
        return drifts

    # --- instances ---------------------------------------------------------------------------------------

    def adopt(
        self,
        host: str,
        domain: str,
        *,
        project: str = "default",
        swap: str | None = None,
        vlans: Mapping[str, int] | None = None,
    ) -> Instance:
        """Brings a libvirt domain under management: its flavor found or made, its NICs as ports, its disks and
        Cinder volumes. `swap` is the device that is its swap disk; `vlans` are those of its NICs, by MAC, where bridges
        do not say them."""
        with self.database.read() as tx:
            row = tx.hosts.get(host)
        found = adoption.examine(self.looks, row, domain, swap=swap, given_vlans=vlans)
        try:
            with self.database.write() as tx:
                return adoption.store(tx, row, found, project, self.settings.quota)
        except DBDuplicateEntry:
            raise Conflict(f"Domain {domain} is managed already.") from None

    def lock(self, instance: str, locked: bool) -> None:
        """A locked machine is neither resized, confirmed, reverted nor removed."""
        with self.database.write() as tx:
            row = tx.instances.get(instance)
            if change(row, {"locked": locked}):
                tx.events.command(f"{row.name} {'locked' if locked else 'unlocked'}", instance=row, host=row.host.name)

    def set_instance(self, instance: str, **changes: object) -> Instance:
        """Changes what a machine's moves depend on, each by its column's name: `shutdown_timeout` in seconds (None: the
        setting's), `group_name`, `availability_zone` (None: none). Raises what stands against it."""
        with self.database.write() as tx:
            row = tx.instances.get(instance, lock=True)
            if isinstance(seconds := changes.get("shutdown_timeout"), float) and not 0 <= seconds < math.inf:
                raise UsageError(f"A shutdown timeout of {seconds:g} seconds is none: give 0 (power off hard) or more.")
            if isinstance(group := changes.get("group_name"), str):
                tx.groups.may_join(row, group)
            if isinstance(zone := changes.get("availability_zone"), str):
                tx.aggregates.may_pin(row, zone)
            if changed := change(row, changes):
                text = f"{row.name} set: {told(changed)}"
                tx.events.command(text, instance=row, host=row.host.name, changes=changed)
        return row


def _needs(migration: Migration, host: Host) -> bool:
    """Whether an open migration comes from a host, goes there, or may still go there."""
    uses = {migration.source_host_id, migration.dest_host_id}
    if migration.status is MigrationStatus.PRE_MIGRATING:
        uses |= {migration.requested_host_id, *migration.alternates}
    return host.id in uses


def _told(migration: Migration) -> str:
    what = f"{migration.id[:8]} of {migration.instance_name} ({migration.status})"
    undecided = migration.status is MigrationStatus.FINISHED
    return f"{what}, confirm or revert it first" if undecided else what


def _require_shell(shell: object) -> None:
    if not isinstance(shell, str):
        return
    try:
        words = shlex.split(shell)
    except ValueError as error:
        raise UsageError(f"The shell {shell!r} cannot be taken apart into words: {str(error).lower()}.") from None
    if not words:
        raise UsageError("The shell is empty: give the words that run a command on the host, such as 'ssh root@h1'.")


def _require_traits(names: Collection[str]) -> None:
    if wrong := [name for name in names if not TRAIT.fullmatch(name)]:
        raise UsageError(f"{', '.join(wrong)} is no trait: a trait's name is of capital letters, digits and _.")
