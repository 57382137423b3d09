"""What a rollback needs, written down before anything is touched."""

from __future__ import annotations

from resizeflow import ports, rules, volumes
from resizeflow.drivers import definition
from resizeflow.drivers.hypervisor import DomainFacts, Hypervisor, PowerState, VolumeFacts
from resizeflow.errors import Conflict
from resizeflow.persistence.models import Disk, Migration, MovedDisk, MovedPort, MovedVolume
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import vlans
from resizeflow.tasks.attachments import record_volumes
from resizeflow.tasks.base import MoveTask, destination
from resizeflow.tasks.bindings import record_ports


def volume_name(migration: Migration, device: str, image_format: str) -> str:
    """The name of a disk's file at the destination: it carries the migration's id, so it is found without memory."""
    return f"{migration.instance_name}-{device}.{migration.id}.{image_format}"


class CaptureSource(MoveTask):
    """Writes down, once, what the machine is: power state, autostart, definition, disks and where they go, volumes,
    ports.

    Effect: rows only, committed with the task. The definition is stored without secrets.
    Undo: nothing; the rows are history.
    Convergent because: a captured machine is not captured again.
    If killed: before the commit it looks again, the machine is untouched.
    """

    def do(self, migration: Migration) -> None:
        if migration.definition:
            return
        source, host = self.gate.host(migration.source_host), destination(migration)
        domain = source.domain(migration.instance_id)
        if domain is None:
            raise Conflict(f"{migration.source_host.name} has no domain {migration.instance_name} any more.")
        rules.movable(domain)
        has_secrets = source.definition_with_secrets(domain.uuid) != domain.inactive_xml
        pool_path = self.gate.host(host).pool(host.pool).path
        files = {volume.path: volume for volume in source.volumes(migration.source_host.pool)}
        with self.world.database.read() as tx:
            instance = tx.instances.get(migration.instance_id)
            known, had = list(instance.disks), instance.port_ids
        moved = _plan_disks(migration, domain, known, files, pool_path)
        _refuse_hibernated(source, migration, known)
        attached = volumes.examine(self.gate, domain.inactive_xml)
        has = ports.examine(self.gate, domain.inactive_xml, migration.source_host.name, known=had)
        new = vlans.of_new(self, migration, migration.source_host, domain, has)

        def store(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.was_running = domain.state is PowerState.RUNNING
            row.autostart = domain.autostart
            row.definition = domain.inactive_xml
            row.has_secrets = has_secrets
            tx.session.add_all(moved)
            tx.session.add_all(
                MovedVolume(
                    migration_id=migration.id,
                    volume_id=one.volume_id,
                    device=one.device,
                    source_attachment=one.attachment_id,
                )
                for one in attached
            )
            record_volumes(tx, migration.instance_id, attached)
            tx.session.add_all(
                MovedPort(migration_id=migration.id, port_id=one.port_id, mac=one.mac) for one in has if one.port_id
            )
            record_ports(tx, migration.instance_id, migration.source_host_id, has, new)

        self.world.work.record(store)


def _refuse_hibernated(source: Hypervisor, migration: Migration, known: list[Disk]) -> None:
    """Swap space is made anew: the memory of a guest that was suspended to disk would be lost."""
    for disk in known:
        swap = source.swap(migration.source_host.pool, disk.volume) if disk.role == "swap" else None
        if swap is not None and swap.hibernated:
            raise Conflict(
                f"{migration.instance_name} is suspended to its swap disk {disk.device}: start it, and shut it down."
            )


def _plan_disks(
    migration: Migration,
    domain: DomainFacts,
    known: list[Disk],
    volumes: dict[str, VolumeFacts],
    pool_path: str,
) -> list[MovedDisk]:
    """What becomes of each disk. A config drive that stays on its host does not move."""
    disks = [disk for disk in definition.read(domain.inactive_xml).disks if disk.path is not None]
    again = "remove the instance from resizeflow and adopt it again"
    for adopted in known:
        if (adopted.device, adopted.path) not in [(disk.device, disk.path) for disk in disks]:
            raise Conflict(f"{domain.name} has no disk {adopted.device} ({adopted.path}) any more: {again}.")
    rows = {row.device: row for row in known}
    ephemeral = next((row.device for row in known if row.role == "ephemeral"), None)
    moved = []
    for disk in disks:
        row, volume = rows.get(disk.device), volumes.get(disk.path or "")
        config = row.role == "config" if row else disk.kind != "disk"
        if config and migration.same_host:
            continue
        if row is None and config:
            raise Conflict(f"{domain.name} has {disk.path} inserted, which another host does not have: eject it.")
        if row is None or volume is None:
            raise Conflict(f"{domain.name}'s disk {disk.device} ({disk.path}) is not one that was adopted: {again}.")
        rules.format_as_defined(domain.name, disk, volume)
        moved.append(_moved(migration, row, volume, pool_path, first_ephemeral=disk.device == ephemeral))
    if migration.new_flavor.swap_mb and not any(disk.role == "swap" for disk in moved):
        moved.append(_added_swap(migration, domain.inactive_xml, pool_path))
    return moved


def _moved(migration: Migration, row: Disk, volume: VolumeFacts, pool_path: str, *, first_ephemeral: bool) -> MovedDisk:
    old, new = migration.old_flavor, migration.new_flavor
    capacity = rules.new_capacity(old, new, row.role, first_ephemeral=first_ephemeral, actual=volume.capacity)
    disk = MovedDisk(
        migration_id=migration.id,
        device=row.device,
        role=row.role,
        source_volume=volume.name,
        source_path=volume.path,
        source_format=volume.format,
        source_capacity=volume.capacity,
        source_allocation=volume.allocation,
        new_capacity=capacity,
    )
    if row.role != "swap":
        # An overlay is qcow2; a copy keeps the format it had.
        _give_destination(disk, migration, "qcow2" if migration.same_host else volume.format, pool_path)
    elif capacity:
        _give_destination(disk, migration, "raw", pool_path)
    return disk


def _added_swap(migration: Migration, xml: str, pool_path: str) -> MovedDisk:
    """Swap space for a machine that had none."""
    disk = MovedDisk(
        migration_id=migration.id,
        device=definition.free_device(xml, beside=definition.read(xml).first_disk),
        role="swap",
        source_volume="",
        source_path="",
        source_format="",
        source_capacity=0,
        source_allocation=0,
        new_capacity=migration.new_flavor.swap_mb * rules.MIB,
    )
    _give_destination(disk, migration, "raw", pool_path)
    return disk


def _give_destination(disk: MovedDisk, migration: Migration, image_format: str, pool_path: str) -> None:
    name = volume_name(migration, disk.device, image_format)
    disk.dest_volume, disk.dest_path, disk.dest_format = name, f"{pool_path}/{name}", image_format
