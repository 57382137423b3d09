"""The snapshot of the fleet that the scheduler decides on, and the decision: the first host that still passes when the
records are locked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from resizeflow import fitness, scheduler
from resizeflow.config import Settings
from resizeflow.looks import Looks
from resizeflow.persistence.aggregates import Properties
from resizeflow.persistence.database import Database
from resizeflow.persistence.hosts import Amount
from resizeflow.persistence.models import Flavor, Host, Instance, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.scheduler import HostState, Needs, Request, Selection


def snapshot(tx: Transaction) -> list[HostState]:
    """Each managed host, in as many questions however many there are."""
    properties, moves = tx.aggregates.properties(), tx.migrations.in_flight()
    return [_state(row, properties.get(row.id, {}), moves[row.id]) for row in tx.hosts.rows()]


def _state(host: Host | sa.Row[Any], properties: Properties, moves: int = 0) -> HostState:
    return HostState(
        id=host.id,
        name=host.name,
        enabled=host.enabled,
        disabled_reason=host.disabled_reason,
        fenced=host.fenced_at is not None,
        free_vcpus=host.vcpus * host.cpu_ratio - host.used_vcpus,
        free_memory_mb=host.memory_mb * host.ram_ratio - host.reserved_memory_mb - host.used_memory_mb,
        free_disk_gb=host.disk_gb * host.disk_ratio - host.used_disk_gb,
        traits=frozenset(host.traits),
        properties=properties,
        moves=moves,
    )


def request_for(tx: Transaction, instance: Instance, new: Flavor, target_id: str | None, settings: Settings) -> Request:
    """What a move of a machine to a flavor needs on another host, and on its own (docs/architecture.md)."""
    before, after = (Amount.of(flavor, volume_backed=instance.volume_backed) for flavor in (instance.flavor, new))
    group = instance.group_name
    return Request(
        vcpus=after.vcpus,
        memory_mb=after.memory_mb,
        disk_gb=after.disk_gb,
        source=instance.host_id,
        same_vcpus=max(after.vcpus - before.vcpus, 0),
        same_memory_mb=max(after.memory_mb - before.memory_mb, 0),
        same_disk_gb=after.disk_gb,
        same_host_allowed=settings.allow_resize_to_same_host and instance.flavor_id != new.id,
        target=target_id,
        zone=instance.availability_zone,
        others=tx.groups.others(group, instance.id) if group else None,
        needs=Needs.of(new.extra_specs),
    )


def choose(database: Database, looks: Looks, instance_id: str, new: Flavor, target_id: str | None) -> Selection:
    """The scheduler's decision for a machine and its new flavor, with looks at the best hosts. Raises NoValidHost;
    HostAway if the source does not answer; CinderAway, InvalidVolume, NeutronAway, InvalidPort."""
    with database.read() as tx:
        instance = tx.instances.whole(instance_id)
        request = request_for(tx, instance, new, target_id, looks.settings)
        states = snapshot(tx)
    machine = fitness.examine(looks, instance.host, instance, new)

    def look(state: HostState) -> str | None:
        with database.read() as tx:
            host = tx.session.get_one(Host, state.id)
        return fitness.why_unfit(looks, machine, host)

    return scheduler.select(states, request, looks.settings.scheduler, look)


def take_first(
    tx: Transaction, migration: Migration, candidates: Sequence[str], verdicts: dict[str, str], settings: Settings
) -> Host | None:
    """Makes the first of some hosts, by id, that passes all filters now the migration's destination; those after it
    are its alternates. None if none passes: then only the verdicts are new.

    What others may change meanwhile is locked, always in this order: the server group, the aggregates, the hosts by
    their ids. So two members of a group never come to one host because each did not see the other go there.
    """
    first_choice = migration.dest_host_id is None
    instance = tx.instances.get(migration.instance_id)
    if instance.group_name:
        tx.groups.lock(instance.group_name)
    if instance.availability_zone:
        tx.aggregates.lock()
    hosts = {host.id: host for host in tx.hosts.lock(migration.dest_host_id, *candidates)}
    properties = tx.aggregates.properties(candidates)
    request = request_for(tx, instance, migration.new_flavor, migration.requested_host_id, settings)
    for number, candidate in enumerate(candidates):
        host = hosts[candidate]
        reasons = scheduler.against(_state(host, properties.get(candidate, {})), request)
        if not reasons:
            tx.hosts.give_destination_back(migration)
            tx.hosts.take_destination(migration, host)
            migration.alternates = list(candidates[number + 1 :])
            told = verdicts[host.name] if first_choice and number == 0 else "chosen as alternate"
            migration.verdicts = {host.name: told} | {name: why for name, why in verdicts.items() if name != host.name}
            return host
        verdicts = {**verdicts, host.name: f"no longer: {'; '.join(reasons.values())}"}
    migration.verdicts = verdicts
    return None
