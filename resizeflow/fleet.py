"""The snapshot of the fleet that the scheduler decides on: counters from the database, a look at each host."""

from __future__ import annotations

from collections.abc import Sequence

from resizeflow.gate import HostAway, Looks
from resizeflow.persistence.hosts import Amount
from resizeflow.persistence.models import Flavor, Host, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.scheduler import HostState, Request, Selection, select


def snapshot(looks: Looks, hosts: Sequence[Host], *, ask: bool = True) -> list[HostState]:
    """The hosts' states. `ask` looks at each enabled host whether it answers."""
    return [_state(looks, host, ask=ask) for host in hosts]


def _state(looks: Looks, host: Host, *, ask: bool) -> HostState:
    away = None
    if ask and host.enabled:
        try:
            looks.host(host, patience=0).facts()
        except HostAway as error:
            away = str(error)
    return HostState(
        id=host.id,
        name=host.name,
        enabled=host.enabled,
        disabled_reason=host.disabled_reason,
        free_vcpus=host.vcpus * host.cpu_ratio - host.used_vcpus,
        free_memory_mb=host.memory_mb * host.ram_ratio - host.reserved_memory_mb - host.used_memory_mb,
        free_disk_gb=host.disk_gb * host.disk_ratio - host.used_disk_gb,
        away=away,
    )


def request_for(old: Flavor, new: Flavor, source_id: str, *, target_id: str | None, same_host_allowed: bool) -> Request:
    """What a move from an old to a new flavor needs on another host, and on its own (docs/architecture.md)."""
    before, after = Amount.of(old), Amount.of(new)
    return Request(
        vcpus=after.vcpus,
        memory_mb=after.memory_mb,
        disk_gb=after.disk_gb,
        source=source_id,
        same_vcpus=max(after.vcpus - before.vcpus, 0),
        same_memory_mb=max(after.memory_mb - before.memory_mb, 0),
        same_disk_gb=after.disk_gb,
        same_host_allowed=same_host_allowed and old.id != new.id,
        target=target_id,
    )


def choose(tx: Transaction, looks: Looks, migration: Migration, *, same_host_allowed: bool) -> Selection:
    """The scheduler's decision for a migration."""
    request = request_for(
        migration.old_flavor,
        migration.new_flavor,
        migration.source_host_id,
        target_id=migration.requested_host_id,
        same_host_allowed=same_host_allowed,
    )
    return select(snapshot(looks, tx.hosts.list()), request)
