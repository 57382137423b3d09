"""Through the worker: the fallback where hosts cannot reach each other. Our journal says what has arrived."""

from __future__ import annotations

import sqlalchemy as sa

from resizeflow.drivers.hypervisor import StreamSegment, StreamTarget
from resizeflow.drivers.interface import Differs, DriverError, Watch
from resizeflow.persistence.models import Host, Migration, MovedDisk, Segment
from resizeflow.tasks import machine
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.carrier import carrier_xml, copied, end_carrier, write_down
from resizeflow.tasks.moved import with_content

BEGINNINGS = 4
POLL = 1.0


class StreamTransfer:
    """One migration's disks, one after the other, each from its last recorded segment."""

    def __init__(self, task: MoveTask, migration: Migration, host: Host) -> None:
        self.task = task
        self.gate = task.gate
        self.migration = migration
        self.host = host

    def run(self) -> None:
        """Returns when the destination has all disks, durably and recorded. Raises DriverError, HostAway."""
        for disk in with_content(self.migration):
            if disk.copied_at is None:
                self._copy(disk)
        self._flush()
        copied(self.task, self.migration, f"all disks are on {self.host.name}")

    def _copy(self, disk: MovedDisk) -> None:
        for beginning in range(1, BEGINNINGS + 1):
            done = self._journal(disk)
            if done:
                self.task.tell(f"{disk.device}: goes on at byte {done[-1].offset + done[-1].length}")
            target = StreamTarget(
                self.host.uri,
                self.host.pool,
                disk.dest_volume or "",
                done,
                self.task.world.settings.bandwidth,
            )
            source = self.migration.source_host
            error = self._follow(disk, self.gate.start(source, "stream", source.pool, disk.source_volume, target))
            if error is None:
                return
            if beginning == BEGINNINGS:
                raise error
            if isinstance(error, Differs):
                self._forget_journal(disk)
            self.task.tell_retry(f"{disk.device}: the stream broke and goes on: {error}")

    def _journal(self, disk: MovedDisk) -> tuple[StreamSegment, ...]:
        with self.task.world.database.read() as tx:
            rows = tx.session.scalars(sa.select(Segment).where(Segment.disk_id == disk.id).order_by(Segment.offset))
            return tuple(StreamSegment(row.offset, row.length, row.sha256) for row in rows)

    def _forget_journal(self, disk: MovedDisk) -> None:
        with self.task.world.intent("journal") as tx:
            tx.session.execute(sa.delete(Segment).where(Segment.disk_id == disk.id))

    def _follow(self, disk: MovedDisk, watch: Watch) -> DriverError | None:
        try:
            while True:
                ended = watch.ended()
                segments = watch.news(0 if ended else POLL)
                if segments:
                    self._record(disk, segments)
                elif ended:
                    return watch.error()
                self.gate.watching("stream", 0, watch)
        finally:
            watch.stop()

    def _record(self, disk: MovedDisk, segments: tuple[StreamSegment, ...]) -> None:
        with self.task.world.intent("segments") as tx:
            for segment in segments:
                tx.session.merge(
                    Segment(disk_id=disk.id, offset=segment.offset, length=segment.length, sha256=segment.sha256)
                )
            tx.session.flush()
            row = tx.migrations.get(self.migration.id)
            sent = sa.select(sa.func.sum(Segment.length)).where(Segment.disk_id.in_([moved.id for moved in row.disks]))
            total = sum(_file_size(moved) for moved in with_content(row))
            write_down(tx, self.task, row, min(int(tx.session.scalar(sent) or 0), total), total)

    def _flush(self) -> None:
        """libvirt's streams are never synced: a carrier that opens the new disks and ends writes them to disk."""
        hypervisor = self.gate.host(self.host)
        xml = carrier_xml(self.task, self.migration, at_destination=True)
        self.task.ensure(
            lambda: machine.has_role(
                hypervisor.domain(self.migration.instance_id), self.migration, "carrier", live=True
            ),
            lambda: hypervisor.start_carrier(xml),
            f"carrier on {self.host.name}",
        )
        end_carrier(self.task, self.migration, self.host)


def _file_size(disk: MovedDisk) -> int:
    """Bytes of the file that is streamed: a raw image's apparent size, about what a qcow2 image takes."""
    return disk.source_capacity if disk.source_format == "raw" else disk.source_allocation
