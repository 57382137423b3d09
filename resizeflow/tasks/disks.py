"""The disks once they are there: grown to the flavor, merged or removed when the resize is confirmed."""

from __future__ import annotations

from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark, Placement
from resizeflow.drivers.hypervisor import Hypervisor, PowerState
from resizeflow.drivers.interface import DriverError
from resizeflow.persistence.models import Host, Migration, MovedDisk
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TaskState
from resizeflow.tasks import machine
from resizeflow.tasks.base import MoveTask, destination
from resizeflow.tasks.carrier import carrier_xml, end_carrier
from resizeflow.tasks.moved import no_disks, outdated, with_content

POLL = 0.5


class ResizeDisks(MoveTask):
    """Grows the destination's disks to the new flavor.

    Effect: each volume has at least its new capacity; task state `resize_finish`.
    Undo: the task state; TransferDisks' undo removes the disks, the source's were never touched.
    Convergent because: a volume that is large enough is left alone.
    If killed: the rest is grown by the next run.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        hypervisor = self.gate.host(host)
        for disk in with_content(migration):
            name, wanted = disk.dest_volume or "", disk.new_capacity or disk.source_capacity

            def large_enough(name: str = name, wanted: int = wanted) -> bool:
                volume = hypervisor.volume(host.pool, name)
                return volume is not None and volume.capacity >= wanted

            def grow(name: str = name, wanted: int = wanted) -> None:
                hypervisor.grow_volume(host.pool, name, wanted)

            self.ensure(large_enough, grow, f"{disk.device} of {wanted} bytes")

        def finishing(tx: Transaction) -> None:
            tx.instances.get(migration.instance_id).task_state = TaskState.RESIZE_FINISH
            tx.events.add(migration.id, "state", "task state resize_finish", task=self.name)
            tx.notify("instance.resize_finish.start", tx.migrations.get(migration.id), task=self.name)

        self.world.work.record(finishing)

    def undo(self, migration: Migration) -> None:
        def not_finishing(tx: Transaction) -> None:
            tx.instances.get(migration.instance_id).task_state = TaskState.RESIZE_MIGRATED

        self.world.work.record(not_finishing)


class MergeOverlays(MoveTask):
    """Confirm on the same host: each overlay is merged into the disk it lies on, which the machine then uses.

    Effect: block commit of all disks; when all are ready the guest is suspended for the pivots (tens of
        milliseconds: libvirtd killed inside a pivot has lost a running QEMU), then runs on. A machine that is off is
        merged in a paused carrier and redefined. Then the overlays are deleted.
    Undo: none. Once begun, the old disks are no way back; that is written down first.
    Convergent because: a device that uses its base is merged; a running commit is found and followed.
    If killed: the commit goes on by itself; a suspended guest is resumed by the next run.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        if not migration.same_host:
            self.tell(f"{no_disks(migration) or 'the disks were copied'}, there is nothing to merge")
            return
        host = destination(migration)
        if migration.merge_begun_at is None:
            with self.world.intent("merge") as tx:
                tx.migrations.get(migration.id).merge_begun_at = tx.now()
        if any(disk.merged_at is None for disk in with_content(migration)):
            self._merge(migration, host)
        self._use_bases(migration, host)
        for disk in with_content(migration):
            machine.delete_volume(self, host, disk.dest_volume or "")

        def merged(tx: Transaction) -> None:
            rows = {disk.device: disk for disk in tx.instances.get(migration.instance_id).disks}
            for disk in with_content(migration):
                row = rows[disk.device]
                row.volume, row.path, row.format = disk.source_volume, disk.source_path, disk.source_format

        self.world.work.record(merged)

    def _merge(self, migration: Migration, host: Host) -> None:
        hypervisor, uuid = self.gate.host(host), migration.instance_id
        if machine.is_off(hypervisor.domain(uuid)):
            xml = carrier_xml(self, migration, at_destination=True)
            self.ensure(
                lambda: not machine.is_off(hypervisor.domain(uuid)),
                lambda: hypervisor.start_carrier(xml),
                "carrier for the merge",
            )
        for disk in with_content(migration):
            self._commit(migration, hypervisor, disk)
        domain = hypervisor.domain(uuid)
        if domain is not None and domain.state is PowerState.RUNNING:
            self.ensure(
                lambda: self._state(hypervisor, uuid) is PowerState.PAUSED,
                lambda: hypervisor.suspend(uuid),
                "suspended guest for the pivot",
            )
        for disk in with_content(migration):
            self._pivot(migration, hypervisor, disk)
        with self.world.intent("merged") as tx:
            for disk in with_content(tx.migrations.get(migration.id)):
                disk.merged_at = disk.merged_at or tx.now()
            tx.events.add(migration.id, "transfer", "all overlays are merged", task=self.name)

    def _commit(self, migration: Migration, hypervisor: Hypervisor, disk: MovedDisk) -> None:
        uuid, device = migration.instance_id, disk.device
        while not self._on_base(hypervisor, uuid, disk):
            merge = hypervisor.merge(uuid, device)
            if merge is not None and merge.ready:
                return
            if merge is None:
                self.ensure(
                    lambda: hypervisor.merge(uuid, device) is not None or self._on_base(hypervisor, uuid, disk),
                    lambda: hypervisor.start_merge(uuid, device, self.world.settings.bandwidth),
                    f"merge of {device}",
                )
            self.gate.watching("merge", POLL)

    def _pivot(self, migration: Migration, hypervisor: Hypervisor, disk: MovedDisk) -> None:
        uuid = migration.instance_id
        self.ensure(
            lambda: self._on_base(hypervisor, uuid, disk),
            lambda: hypervisor.pivot_merge(uuid, disk.device),
            f"pivot of {disk.device}",
        )

    def _use_bases(self, migration: Migration, host: Host) -> None:
        """The guest runs on, if it ran; the definition of a machine that is off names the bases."""
        hypervisor, uuid = self.gate.host(host), migration.instance_id
        end_carrier(self, migration, host)
        domain = hypervisor.domain(uuid)
        if domain is not None and domain.state is PowerState.PAUSED and migration.dest_was_running:
            machine.let_run(self, host, migration)
        bases = {disk.device: Placement(disk.source_path, disk.source_format) for disk in with_content(migration)}

        def named() -> bool:
            now = hypervisor.domain(uuid)
            paths = {disk.device: disk.path for disk in definition.read(now.inactive_xml).disks} if now else {}
            return all(paths.get(device) == base.path for device, base in bases.items())

        def redefine() -> None:
            xml = hypervisor.definition_with_secrets(uuid)
            size = definition.read(xml)
            mark = Mark(migration.id, self.world.lease.epoch, "destination")
            hypervisor.define(
                definition.resized(xml, vcpus=size.vcpus, memory_mb=size.memory_mb, disks=bases, mark=mark)
            )

        self.ensure(named, redefine, "definition with the merged disks")

    @staticmethod
    def _state(hypervisor: Hypervisor, uuid: str) -> PowerState | None:
        domain = hypervisor.domain(uuid)
        return domain.state if domain else None

    @staticmethod
    def _on_base(hypervisor: Hypervisor, uuid: str, disk: MovedDisk) -> bool:
        domain = hypervisor.domain(uuid)
        if domain is None or domain.live_xml is None:
            raise DriverError("the machine stopped during the merge")
        paths = {found.device: found.path for found in definition.read(domain.live_xml).disks}
        return paths.get(disk.device) == disk.source_path


class RemoveSourceDisks(MoveTask):
    """Confirm: removes the captured disks from the source, each by its exact pool and name.

    Effect: only after the destination and its disks have just been seen (no copy is deleted unless the other was
        looked at); a file that any domain or chain still refers to is refused by the driver. On the same host only
        old swap space is removed, the others are in use, merged.
    Undo: none. Convergent because: a file that is gone is fine.
    If killed: the rest is removed by the next run. A source that is away: each disk becomes a debt.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        gone = outdated(migration)
        if not gone:
            self.tell(f"{no_disks(migration) or 'the disks are still in use'}, nothing is removed")
            return
        see_destination(self, migration)
        source = migration.source_host
        try:
            for disk in gone:
                machine.delete_volume(self, source, disk.source_volume)
        except HostAway as error:
            if error.host.id != source.id or migration.same_host:
                raise
            for disk in gone:
                self.owe(migration, source, "disk", disk.source_volume, str(error))


def see_destination(task: MoveTask, migration: Migration) -> None:
    """Raises DriverError unless the destination has our domain with every disk at its size."""
    host = destination(migration)
    hypervisor = task.gate.host(host)
    domain = hypervisor.domain(migration.instance_id)
    if domain is None or not machine.has_role(domain, migration, "destination"):
        raise DriverError(f"{host.name} has no domain of this migration")
    paths = {disk.device: disk.path for disk in definition.read(domain.inactive_xml).disks}
    for disk in migration.disks:
        merged = migration.same_host and migration.merge_begun_at is not None and disk.role != "swap"
        if paths.get(disk.device) not in ({disk.dest_path, disk.source_path} if merged else {disk.dest_path}):
            raise DriverError(f"{disk.device} on {host.name} is {paths.get(disk.device)}, not {disk.dest_path}")
        if merged or disk.dest_volume is None:
            continue
        volume = hypervisor.volume(host.pool, disk.dest_volume)
        if volume is None or volume.capacity < (disk.new_capacity or 0):
            raise DriverError(f"{disk.device} on {host.name} is not there at its full size")
