"""Revert: the machine comes back to its source, with what it has now, and past the point of no return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resizeflow import ports, rules, volumes
from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Connected
from resizeflow.drivers.hypervisor import DomainFacts
from resizeflow.drivers.passwords import with_passwords
from resizeflow.errors import Conflict
from resizeflow.handover import Waiting
from resizeflow.persistence.models import Migration, MovedVolume
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import MigrationStatus
from resizeflow.tasks import bindings, machine, secrets, vlans
from resizeflow.tasks.attachments import complete, connections, current, record_volumes
from resizeflow.tasks.base import WAIT_FOR_HOST, MoveTask, destination
from resizeflow.tasks.instance import close_as_finished
from resizeflow.tasks.moved import at_source
from resizeflow.volumes import AttachedVolume


class CheckSource(MoveTask):
    """Revert: looks whether the way back is open.

    Effect: none on hosts. Host up, retired definition ours or none (same host: no merge begun), disks as captured. The
        volumes and ports that the machine has now are written down: those are what goes back.
    Undo: closes the revert: `reverting` to `finished`, the instance is resized as before.
    Convergent because: it only looks. If killed: looks again.
    """

    def do(self, migration: Migration) -> None:
        source = migration.source_host
        hypervisor = self.gate.host(source)
        if migration.merge_begun_at is not None:
            raise Conflict("The confirm had begun to merge the disks: there is no way back any more, confirm again.")
        domain = hypervisor.domain(migration.instance_id)
        if not migration.same_host and domain is not None and not machine.has_role(domain, migration, "retired"):
            raise Conflict(f"The domain {migration.instance_name} on {source.name} is not the one that was retired.")
        for disk in at_source(migration):
            volume = hypervisor.volume(source.pool, disk.source_volume)
            if volume is None or volume.capacity != disk.source_capacity:
                raise Conflict(f"{disk.device} ({disk.source_path}) on {source.name} is not as it was captured.")
        there = self._look_at_destination(migration)
        if there is not None:
            rules.lasting(there)
        attached = volumes.examine(self.gate, there.inactive_xml) if there else None
        had, host = [port.port_id for port in migration.ports], destination(migration)
        has = ports.examine(self.gate, there.inactive_xml, host.name, known=had) if there else None
        new = vlans.of_new(self, migration, host, there, has) if there and has else {}

        def seen(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.dest_was_running = not machine.is_off(there)
            row.dest_definition = there.inactive_xml if there else None
            if attached is not None:
                record_now(tx, row, attached)
            if has is not None:
                bindings.record_now(tx, row, host.id, has, new)

        self.world.work.record(seen)

    def _look_at_destination(self, migration: Migration) -> DomainFacts | None:
        try:
            return self.gate.host(destination(migration)).domain(migration.instance_id)
        except HostAway as error:
            if not machine.is_fenced(error.host, migration):
                raise Conflict(
                    f"The {error}. Wait for it; or, once you made sure that nothing runs there, say so with "
                    f"`resizeflow host set {error.host.name} --fenced` and revert again."
                ) from error
            return None

    def undo(self, migration: Migration) -> None:
        self.world.work.record(lambda tx: close_as_finished(tx, migration, MigrationStatus.REVERTING, self.name))


def record_now(tx: Transaction, migration: Migration, found: Sequence[AttachedVolume]) -> None:
    """The migration's volumes are those that the machine was found with at its destination, and those that it had."""
    now = {one.volume_id: one for one in found}
    for row in migration.volumes:
        one = now.pop(row.volume_id, None)
        row.detached = one is None
        if one is not None:
            row.device, row.dest_attachment = one.device, one.attachment_id
    for one in now.values():
        migration.volumes.append(
            MovedVolume(volume_id=one.volume_id, device=one.device, dest_attachment=one.attachment_id)
        )
    record_volumes(tx, migration.instance_id, found)


class RestoreSource(MoveTask):
    """Revert: the source's definition is startable again, with the old flavor.

    Effect: the inverse edit of the host's own definition; on the same host the captured one with today's passwords. In
        it the volumes and NICs that the machine has now, as they are connected here; the secrets that they name. Where
        somebody undefined the machine there, the captured one is all that is left, without passwords.
    Undo: retired again; on the same host a machine that was undefined is undefined again.
    Convergent because: a definition without our retired mark is not edited. If killed: done or not done.
    """

    def do(self, migration: Migration) -> None:
        captured, source = migration.definition or "", migration.source_host
        hypervisor = self.gate.host(source)

        attached = connections(self, migration, "return_attachment", source)

        def original(now: str) -> str:
            before = with_passwords(captured, now) if migration.same_host else definition.restored(now)
            return self._as_now(migration, before, attached)

        if hypervisor.domain(migration.instance_id) is None:
            self.tell(
                f"{source.name} has no domain {migration.instance_name} any more: it is defined as captured"
                f"{', without its passwords' if migration.has_secrets else ''}"
            )
            self.ensure(
                lambda: hypervisor.domain(migration.instance_id) is not None,
                lambda: hypervisor.define(self._as_now(migration, captured, attached)),
                f"captured definition on {source.name}",
            )
        machine.unretire(self, source, migration, original)
        secrets.provide(self, migration, source, attached.values())

    def _as_now(self, migration: Migration, xml: str, attached: Mapping[str, Connected]) -> str:
        plugs = bindings.plugs(self, migration, migration.source_host)
        return definition.plugged(_with_nics(migration, _with_volumes(migration, xml, attached)), plugs)

    def undo(self, migration: Migration) -> None:
        source = migration.source_host
        hypervisor = self.gate.host(source)
        if hypervisor.domain(migration.instance_id) is None:
            return  # It was undefined before, and is not defined yet.
        if migration.same_host and migration.dest_definition is None:
            # Retired, it would be restored as the destination's, whose definition nobody has.
            self.forget(lambda: hypervisor.undefine(migration.instance_id))
        else:
            machine.retire(self, source, migration)


def _with_volumes(migration: Migration, xml: str, attached: Mapping[str, Connected]) -> str:
    """A definition of the source with the volumes that the machine has now, and no others."""
    volumes_then = definition.volumes(xml)
    now = {volume.device: volume.volume_id for volume in current(migration)}
    for device, volume_id in volumes_then.items():
        if now.get(device) != volume_id:
            xml = definition.without_disk(xml, device)
    for device, volume_id in now.items():
        if volumes_then.get(device) != volume_id:
            xml = definition.with_disk_of(xml, migration.dest_definition or "", device)
    return definition.connected(xml, attached)


def _with_nics(migration: Migration, xml: str) -> str:
    """A definition of the source with the NICs that the machine has now, and no others."""
    if migration.dest_definition is None:
        return xml
    then, now = ({nic.mac for nic in definition.read(one).nics} for one in (xml, migration.dest_definition))
    for mac in sorted(then - now):
        xml = definition.without_nic(xml, mac)
    for mac in sorted(now - then):
        xml = definition.with_nic_of(xml, migration.dest_definition, mac)
    return xml


class StartSource(MoveTask):
    """Revert: the machine runs on its source again, if it ran before the resize: the revert's pivot.

    Effect: started paused, ports plugged in, volumes' attachments completed, pivot committed, CPUs resumed, autostart
        as captured.
    Undo: before the pivot the paused domain is destroyed; after it there is none.
    Convergent because: each step looks first. If killed: as StartDestination.
    """

    def do(self, migration: Migration) -> None:
        source = migration.source_host
        with self.world.database.read() as tx:
            pivoted = tx.jobs.get(self.world.lease.job_id).pivot_at is not None
        if not pivoted and migration.dest_off_at is None:
            raise Waiting(f"no proof that {destination(migration).name} is off", delay=WAIT_FOR_HOST)
        if migration.was_running:
            machine.start_paused(self, source, migration)
            if not pivoted:
                bindings.await_plugged(self, migration, source)
        if not pivoted:
            complete(self, migration, "return_attachment")
            with self.world.intent("pivot") as tx:
                tx.jobs.pivot(self.world.lease)
                tx.events.add(migration.id, "pivot", "point of no return of the revert", task=self.name)
        if migration.was_running:
            machine.let_run(self, source, migration)
        machine.set_autostart(self, source, migration, bool(migration.autostart))

    def undo(self, migration: Migration) -> None:
        source = migration.source_host
        domain = self.gate.host(source).domain(migration.instance_id)
        if not machine.has_role(domain, migration, "retired"):
            machine.end_paused(self, source, migration)
