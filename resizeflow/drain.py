"""Draining a host: it takes nothing new, and every machine on it is moved away. Done again, it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from resizeflow.connections import HostAway
from resizeflow.errors import NotFound, RuleError
from resizeflow.inventory import Inventory
from resizeflow.persistence.models import Host, Job, Migration
from resizeflow.service import Service
from resizeflow.states import Direction, JobState, MigrationStatus


@dataclass(frozen=True)
class Fate:
    """What becomes of a machine that is on the host, on its way to or from it, or has its way back there."""

    instance: str
    migration_id: str | None
    result: str
    stays: bool = False
    """Whether somebody has to do something before the host gets empty of it; `result` says what."""


def drain(inventory: Inventory, service: Service, name: str, reason: str | None = None) -> list[Fate]:
    """Disables a host and submits a cold migration of each machine on it that does not leave already. `reason` is by
    default the one that it is disabled for already. What a killed drain did not get to, the next one does."""
    with inventory.database.read() as tx:
        reason = reason or tx.hosts.get(name).disabled_reason or "draining"
    host = inventory.set_host(name, enabled=False, disabled_reason=reason)
    # Read after the host was disabled: whatever was allowed to come here before is among them.
    with inventory.database.read() as tx:
        machines = {row.id: row.name for row in tx.instances.list() if row.host_id == host.id}
        moves = {m.instance_id: m for m in tx.migrations.open() if host.id in (m.source_host_id, m.dest_host_id)}
        jobs = tx.jobs.unfinished_of([m.id for m in moves.values()])
    fates = [_under_way(host, m, jobs.get(m.id)) for m in moves.values()]
    fates += [_submit(service, machine) for key, machine in machines.items() if key not in moves]
    return sorted(fates, key=lambda fate: fate.instance)


def _submit(service: Service, machine: str) -> Fate:
    try:
        return Fate(machine, service.migrate(machine).migration_id, "submitted")
    except (RuleError, NotFound, HostAway) as error:
        return Fate(machine, None, f"refused: {error}", stays=True)


def _under_way(host: Host, migration: Migration, job: Job | None) -> Fate:
    name, short = migration.instance_name, migration.id[:8]
    if job is not None and job.state is JobState.NEEDS_ATTENTION:
        return Fate(name, migration.id, f"refused: migration {short} needs attention: {job.reason}", stays=True)
    if _ends_on(migration, job) == host.id:
        todo = "confirm or revert it" if migration.status is MigrationStatus.FINISHED else "wait for its end"
        return Fate(name, migration.id, f"refused: migration {short} ends here; {todo}, then drain again", stays=True)
    if migration.status is MigrationStatus.FINISHED:
        return Fate(name, migration.id, "moved, to be confirmed or reverted")
    return Fate(
        name, migration.id, "confirming" if migration.status is MigrationStatus.CONFIRMING else "moving already"
    )


def _ends_on(migration: Migration, job: Job | None) -> str | None:
    """The host that the machine is on when its job has ended, if it is chosen yet."""
    turned_back = job is not None and job.direction is Direction.BACK
    to_source = turned_back != (migration.status is MigrationStatus.REVERTING)
    return migration.source_host_id if to_source else migration.dest_host_id
