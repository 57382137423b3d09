"""What a resize changes, side by side: before, as asked for, and how it is in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resizeflow.audit.progress import size
from resizeflow.persistence.models import Host, Migration, Port
from resizeflow.persistence.quotas import RESOURCES, charges
from resizeflow.states import MigrationStatus

NOTHING = "-"
KEPT = frozenset({MigrationStatus.FINISHED, MigrationStatus.CONFIRMING, MigrationStatus.CONFIRMED})
TAKEN_BACK = frozenset({MigrationStatus.ERROR, MigrationStatus.REVERTED})


@dataclass(frozen=True)
class Line:
    """One property. `after` is None while it is not known."""

    what: str
    before: str
    asked: str
    after: str | None

    @property
    def changes(self) -> bool:
        return self.before != self.asked


def comparison(migration: Migration, ports: Sequence[Port]) -> list[Line]:
    """Flavor, host, sizes, disks, ports, volumes, quota. `ports` are those that the machine has now."""
    return [
        *(_line(migration, *properties) for properties in _sizes(migration)),
        *(_line(migration, *properties) for properties in _disks(migration)),
        *(_line(migration, *properties) for properties in _ports(migration, ports)),
        *(_line(migration, *properties) for properties in _volumes(migration)),
        *_quota(migration),
    ]


def _line(migration: Migration, what: str, before: str, asked: str) -> Line:
    if migration.status in KEPT:
        return Line(what, before, asked, asked)
    return Line(what, before, asked, before if migration.status in TAKEN_BACK else None)


def _name(host: Host | None) -> str:
    return host.name if host else NOTHING


def _sizes(migration: Migration) -> Iterator[tuple[str, str, str]]:
    old, new = migration.old_flavor, migration.new_flavor
    yield "flavor", old.name, new.name
    yield "host", migration.source_host.name, _name(migration.dest_host)
    yield "vCPUs", str(old.vcpus), str(new.vcpus)
    yield "memory", f"{old.memory_mb} MiB", f"{new.memory_mb} MiB"
    yield "root disk", f"{old.root_gb} GiB", f"{new.root_gb} GiB"
    if old.ephemeral_gb or new.ephemeral_gb:
        yield "ephemeral disk", f"{old.ephemeral_gb} GiB", f"{new.ephemeral_gb} GiB"
    if old.swap_mb or new.swap_mb:
        yield "swap", f"{old.swap_mb} MiB", f"{new.swap_mb} MiB"


def _disks(migration: Migration) -> Iterator[tuple[str, str, str]]:
    for disk in migration.disks:
        before = f"{disk.source_path}, {disk.source_format}, {size(disk.source_capacity)}"
        asked = f"{disk.dest_path}, {disk.dest_format}, {size(disk.new_capacity or disk.source_capacity)}"
        what = f"disk {disk.device} ({disk.role})"
        yield what, before if disk.source_path else NOTHING, asked if disk.dest_path else NOTHING


def _ports(migration: Migration, ports: Sequence[Port]) -> Iterator[tuple[str, str, str]]:
    hosts = f"on {migration.source_host.name}", f"on {_name(migration.dest_host)}"
    moved = {port.mac: f"port {port.port_id} ({port.mac})" for port in migration.ports}
    for what in (moved or {port.mac: f"port {port.mac} ({port.bridge})" for port in ports}).values():
        yield what, *hosts


def _volumes(migration: Migration) -> Iterator[tuple[str, str, str]]:
    for volume in migration.volumes:
        before, asked = volume.source_attachment or NOTHING, volume.dest_attachment or NOTHING
        yield f"volume {volume.volume_id} ({volume.device})", f"attachment {before}", f"attachment {asked}"


def _quota(migration: Migration) -> Iterator[Line]:
    """Until a finished resize is decided, the larger of both is charged (persistence/quotas.py)."""
    old, new = charges(migration)
    for resource in RESOURCES:
        line = _line(migration, f"quota: {resource}", str(old[resource]), str(new[resource]))
        if migration.status in (MigrationStatus.FINISHED, MigrationStatus.CONFIRMING):
            line = Line(line.what, line.before, line.asked, str(max(old[resource], new[resource])))
        yield line
