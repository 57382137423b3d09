"""What a rollback needs, written down before anything is touched."""

from __future__ import annotations

from resizeflow import rules
from resizeflow.drivers import definition
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.errors import Conflict
from resizeflow.persistence.models import Disk, Migration, MovedDisk
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks.base import MoveTask, destination


def volume_name(migration: Migration, device: str, image_format: str) -> str:
    """The name of a disk's file at the destination: it carries the migration's id, so it is found without memory."""
    return f"{migration.instance_name}-{device}.{migration.id}.{image_format}"


class CaptureSource(MoveTask):
    """Writes down, once, what the machine is: power state, autostart, definition, disks, where they will go.

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
        volumes = {volume.path: volume for volume in source.volumes(migration.source_host.pool)}
        with self.world.database.read() as tx:
            known = list(tx.instances.get(migration.instance_id).disks)
        moved = _plan_disks(migration, domain, known, volumes, pool_path)

        def store(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.was_running = domain.state is PowerState.RUNNING
            row.autostart = domain.autostart
            row.definition = domain.inactive_xml
            row.has_secrets = has_secrets
            tx.session.add_all(moved)

        self.world.work.record(store)


def _plan_disks(
    migration: Migration,
    domain: DomainFacts,
    known: list[Disk],
    volumes: dict[str, VolumeFacts],
    pool_path: str,
) -> list[MovedDisk]:
    roles = {disk.device: disk for disk in known}
    ephemeral = next((disk.device for disk in known if disk.role == "ephemeral"), None)
    moved = []
    for disk in definition.read(domain.inactive_xml).disks:
        if disk.kind != "disk" or disk.path is None:
            continue
        row, volume = roles.get(disk.device), volumes.get(disk.path)
        if row is None or volume is None:
            raise Conflict(
                f"{domain.name}'s disk {disk.device} ({disk.path}) is not one that was adopted: remove the instance "
                "from resizeflow and adopt it again."
            )
        rules.format_as_defined(domain.name, disk, volume)
        # An overlay is qcow2; a copy keeps the format it had.
        image_format = "qcow2" if migration.same_host else disk.format
        name = volume_name(migration, disk.device, image_format)
        moved.append(
            MovedDisk(
                migration_id=migration.id,
                device=disk.device,
                role=row.role,
                source_volume=volume.name,
                source_path=disk.path,
                source_format=disk.format,
                source_capacity=volume.capacity,
                source_allocation=volume.allocation,
                dest_volume=name,
                dest_path=f"{pool_path}/{name}",
                dest_format=image_format,
                new_capacity=rules.new_capacity(
                    migration.old_flavor,
                    migration.new_flavor,
                    row.role,
                    first_ephemeral=disk.device == ephemeral,
                    actual=volume.capacity,
                ),
            )
        )
    return moved
