"""The disks' content gets to the destination: by overlay, host to host, or through the worker."""

from __future__ import annotations

import uuid

from resizeflow.connections import HostAway
from resizeflow.drivers.hypervisor import VolumeFacts, VolumeSpec
from resizeflow.drivers.swap import PAGE, Swap
from resizeflow.persistence.models import Host, Migration, MovedDisk
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import MigrationStatus
from resizeflow.tasks import machine
from resizeflow.tasks.base import MoveTask, destination
from resizeflow.tasks.carrier import end_carrier
from resizeflow.tasks.direct import DirectTransfer, PathBlocked
from resizeflow.tasks.moved import at_destination, no_disks, with_content
from resizeflow.tasks.stream import StreamTransfer


class TransferDisks(MoveTask):
    """Makes the destination's disks, with the content of the source's.

    Effect: on the same host an overlay on each disk; else empty volumes, filled by a carrier that the hosts move
        between them, or through the worker; swap space is made anew. The source's disks are only read. Status
        `post-migrating` at the end.
    Undo: ends the carriers on both hosts, then deletes the volumes made, by their names.
    Convergent because: volumes are made once, one that was left half made is made anew; a running transfer is found
        by its mark and taken over; a stream goes on after its last recorded segment; a disk recorded as copied is not
        copied again.
    If killed: the hosts go on with a direct transfer; whoever comes next finds it running or complete.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        for disk in at_destination(migration):
            self._make_volume(migration, host, disk)
            if disk.role == "swap":
                self._make_swap(migration, host, disk)
        if not migration.same_host and not all(disk.copied_at for disk in with_content(migration)):
            self._copy(migration, host)
        if nothing := no_disks(migration):
            self.tell(f"{nothing}, nothing is copied")
        self._end_carriers(migration)

        def arrived(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            tx.migrations.advance(row, MigrationStatus.MIGRATING, to=MigrationStatus.POST_MIGRATING)

        self.world.work.record(arrived)

    def _make_volume(self, migration: Migration, host: Host, disk: MovedDisk) -> None:
        hypervisor = self.gate.host(host)
        blank = disk.role == "swap"
        overlay = migration.same_host and not blank
        spec = VolumeSpec(
            name=disk.dest_volume or "",
            capacity=disk.new_capacity or 0 if blank else disk.source_capacity,
            format=disk.dest_format or "",
            backing_path=disk.source_path if overlay else None,
            backing_format=disk.source_format if overlay else None,
        )

        def whole() -> bool:
            volume = hypervisor.volume(host.pool, spec.name)
            return volume is not None and (disk.copied_at is not None or _as_specified(volume, spec))

        def make() -> None:
            if hypervisor.volume(host.pool, spec.name) is not None:
                self.tell(f"{spec.name} on {host.name} was only half made: it is made anew")
                machine.delete_volume(self, host, spec.name)
            hypervisor.create_volume(host.pool, spec)

        self.ensure(whole, make, f"volume {spec.name} on {host.name}")

    def _make_swap(self, migration: Migration, host: Host, disk: MovedDisk) -> None:
        """What swap space holds is worth nothing while its machine is off; what the guest calls it by is kept."""
        hypervisor, name = self.gate.host(host), disk.dest_volume or ""
        old = None
        if disk.source_volume:
            old = self.gate.host(migration.source_host).swap(migration.source_host.pool, disk.source_volume)
        identity = old.uuid if old else str(uuid.uuid5(uuid.UUID(migration.instance_id), disk.device))
        swap = Swap(identity, (disk.new_capacity or 0) // PAGE * PAGE, old.label if old else "")
        self.ensure(
            lambda: hypervisor.swap(host.pool, name) == swap,
            lambda: hypervisor.make_swap(host.pool, name, swap),
            f"swap space {name} on {host.name}",
        )

    def _copy(self, migration: Migration, host: Host) -> None:
        way = self.world.settings.transfer
        if way != "stream" and host.peer_uri:
            try:
                DirectTransfer(self, migration, host).run()
            except PathBlocked as error:
                if way == "direct":
                    raise
                self.tell_retry(f"{error}; the disks go through the worker instead")
                self._end_carriers(migration)
            else:
                return
        StreamTransfer(self, migration, host).run()

    def _end_carriers(self, migration: Migration) -> None:
        """Nothing of a transfer runs on either host after this. The source's end goes first: it ends the job."""
        if migration.same_host:
            return
        end_carrier(self, migration, migration.source_host)
        end_carrier(self, migration, destination(migration))

    def undo(self, migration: Migration) -> None:
        host = migration.dest_host
        if host is None or not migration.disks:
            return
        if not migration.same_host:
            end_carrier(self, migration, migration.source_host)
        try:
            if not migration.same_host:
                end_carrier(self, migration, host)
                if machine.has_role(self.gate.host(host).domain(migration.instance_id), migration, "destination"):
                    machine.remove_domain(self, host, migration)  # It was away when DefineDestination was undone.
            for disk in at_destination(migration):
                machine.delete_volume(self, host, disk.dest_volume or "")
        except HostAway as error:
            if migration.same_host:
                raise
            for disk in at_destination(migration):
                self.owe(migration, host, "disk", disk.dest_volume or "", str(error))
            self.owe(migration, host, "domain", migration.instance_id, str(error))


def _as_specified(volume: VolumeFacts, spec: VolumeSpec) -> bool:
    """Whether the making of a volume came to its end: one that was interrupted has no header that says all this."""
    facts = (volume.format, volume.backing_path)
    return facts == (spec.format, spec.backing_path) and volume.capacity >= spec.capacity
