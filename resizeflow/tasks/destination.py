"""The machine on its destination: defined for the new flavor, started, and past the point of no return."""

from __future__ import annotations

from collections.abc import Mapping

from resizeflow import ports, volumes
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Connected, Mark, Placement
from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.network import Plug
from resizeflow.drivers.passwords import with_passwords
from resizeflow.errors import Conflict
from resizeflow.gate import HostAway
from resizeflow.handover import Waiting
from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import MigrationStatus
from resizeflow.tasks import bindings, machine, secrets
from resizeflow.tasks.attachments import Attachments, complete, connections, record_volumes
from resizeflow.tasks.base import WAIT_FOR_HOST, MoveTask, destination
from resizeflow.tasks.disks import see_destination
from resizeflow.tasks.moved import at_destination, at_source
from resizeflow.tasks.network import leave, unbind
from resizeflow.tasks.source import close_as_finished


class DefineDestination(MoveTask):
    """Defines the machine on the destination with its new flavor, its disks and ports there; autostart stays off.

    Effect: a persistent, shut-off domain marked as this migration's destination, and then the libvirt secrets that its
        volumes name: nobody takes them for unused.
    Undo: undefines it; on the same host the retired definition is put back, never undefined; the secrets are removed.
    Convergent because: a domain with our mark is left as it is.
    If killed: the definition is there whole or not at all.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        hypervisor = self.gate.host(host)
        existing = hypervisor.domain(migration.instance_id)
        ours = machine.has_role(existing, migration, "destination")
        if existing is not None and not ours and not migration.same_host:
            raise Conflict(f"{host.name} has a domain {migration.instance_name} that is not this migration's.")
        attached = connections(self, migration, "dest_attachment", host)
        if not ours:
            xml = self._definition(migration, attached, bindings.plugs(self, migration, host))
            self.ensure(
                lambda: machine.has_role(hypervisor.domain(migration.instance_id), migration, "destination"),
                lambda: hypervisor.define(xml),
                f"definition on {host.name}",
            )
        secrets.provide(self, migration, host, attached.values())
        machine.set_autostart(self, host, migration, False)

    def _definition(self, migration: Migration, attached: Mapping[str, Connected], plugs: Mapping[str, Plug]) -> str:
        old, new = migration.old_flavor, migration.new_flavor
        xml = _with_disks_of(migration, definition.restored(self._source_xml(migration)))
        xml = definition.plugged(definition.connected(xml, attached), plugs)
        machine_now = definition.read(xml)
        return definition.resized(
            xml,
            vcpus=machine_now.vcpus if new.vcpus == old.vcpus else new.vcpus,
            memory_mb=machine_now.memory_mb if new.memory_mb == old.memory_mb else new.memory_mb,
            disks={
                disk.device: Placement(disk.dest_path, disk.dest_format)
                for disk in migration.disks
                if disk.dest_path and disk.dest_format
            },
            mark=Mark(migration.id, self.world.lease.epoch, "destination"),
        )

    def _source_xml(self, migration: Migration) -> str:
        """The host's own definition, for its passwords; the captured one where there are none and the host is away."""
        try:
            return self.gate.host(migration.source_host).definition_with_secrets(migration.instance_id)
        except HostAway as error:
            if migration.has_secrets or not migration.definition:
                raise Waiting(f"{error}; the machine's passwords are only there", delay=WAIT_FOR_HOST) from error
            self.tell(f"{error}: the definition captured before is used")
            return migration.definition

    def undo(self, migration: Migration) -> None:
        host = migration.dest_host
        if host is None:
            return
        try:
            if not migration.same_host:
                machine.remove_domain(self, host, migration)
            elif machine.has_role(self.gate.host(host).domain(migration.instance_id), migration, "destination"):
                self._put_back_retired(migration)
            secrets.remove(self, migration, host)
        except HostAway as error:
            if migration.same_host:
                raise
            self.owe(migration, host, "domain", migration.instance_id, str(error))

    def _put_back_retired(self, migration: Migration) -> None:
        hypervisor = self.gate.host(migration.source_host)
        captured = migration.definition or ""

        def redefine() -> None:
            now = hypervisor.definition_with_secrets(migration.instance_id)
            mark = Mark(migration.id, self.world.lease.epoch, "retired")
            hypervisor.define(definition.retired(with_passwords(captured, now), mark))

        self.ensure(
            lambda: machine.has_role(hypervisor.domain(migration.instance_id), migration, "retired"),
            redefine,
            f"the retired definition on {migration.source_host.name}",
        )


def _with_disks_of(migration: Migration, xml: str) -> str:
    """The definition with the disks that the machine has at its destination, and no others of its old ones."""
    for disk in migration.disks:
        if not disk.source_volume:
            xml = definition.with_disk(xml, disk.device, beside=definition.read(xml).first_disk)
        elif not disk.dest_volume:
            xml = definition.without_disk(xml, disk.device)
    return xml


class StartDestination(MoveTask):
    """Starts the machine on the destination, if it was on: the pivot.

    Effect: only with the proof of off. Started paused, so that all that can be refused is refused while the flow can
        still turn back; ports plugged in by Neutron's agent, volumes' attachments completed; pivot committed; CPUs
        resumed; seen running.
    Undo: before the pivot the paused domain is destroyed. After it there is none: its disks hold data that exists
        nowhere else.
    Convergent because: each step looks first; after the pivot a machine found off is started again.
    If killed: before the pivot a paused domain may be left, which both directions know; after it the flow goes on.
    """

    def do(self, migration: Migration) -> None:
        if not migration.was_running:
            complete(self, migration, "dest_attachment")
            self.tell(f"{migration.instance_name} was off and stays off")
            return
        host = destination(migration)
        hypervisor = self.gate.host(host)
        if migration.source_off_at is None and not machine.is_fenced(migration.source_host, migration):
            raise Waiting(f"no proof that {migration.source_host.name} is off", delay=WAIT_FOR_HOST)
        with self.world.database.read() as tx:
            pivoted = tx.jobs.get(self.world.lease.job_id).pivot_at is not None
        domain = hypervisor.domain(migration.instance_id)
        if not pivoted and domain is not None and domain.state is PowerState.RUNNING:
            raise self.attention(f"{migration.instance_name} runs on {host.name} although nobody of us started it")
        machine.start_paused(self, host, migration)
        if not pivoted:
            bindings.await_plugged(self, migration, host)
            complete(self, migration, "dest_attachment")
            self._look_at_source(migration)
            with self.world.intent("pivot") as tx:
                tx.jobs.pivot(self.world.lease)
                tx.events.add(
                    migration.id,
                    "pivot",
                    "point of no return: the machine's CPUs are about to run",
                    task=self.name,
                )
        machine.let_run(self, host, migration)

        def running(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.resumed_at = row.resumed_at or tx.now()

        self.world.work.record(running)

    def _look_at_source(self, migration: Migration) -> None:
        if migration.same_host:
            return
        try:
            source = self.gate.host(migration.source_host, patience=0).domain(migration.instance_id)
        except HostAway as error:
            self.tell(f"{error}; the proof of off is stored")
            return
        if not machine.is_off(source):
            raise self.attention(f"{migration.instance_name} is up on {migration.source_host.name} as well")

    def undo(self, migration: Migration) -> None:
        host = migration.dest_host
        if host is None:
            return
        try:
            domain = self.gate.host(host).domain(migration.instance_id)
            if machine.has_role(domain, migration, "destination"):
                machine.end_paused(self, host, migration)
        except HostAway as error:
            if migration.same_host:
                raise
            self.owe(migration, host, "domain", migration.instance_id, str(error))


class CheckDestination(MoveTask):
    """Confirm: looks whether the destination really has everything, before anything is deleted.

    Effect: none on hosts. Our definition, every disk at its size, every volume that the machine has now attached, every
        port bound; that, and whether it runs, is written down.
    Undo: closes the confirm: nothing was deleted, the migration is `finished` again.
    Convergent because: it only looks. If killed: looks again.
    """

    def do(self, migration: Migration) -> None:
        see_destination(self, migration)
        host = destination(migration)
        domain = self.gate.host(host).domain(migration.instance_id)
        attached = volumes.examine(self.gate, domain.inactive_xml) if domain else ()
        had = [port.port_id for port in migration.ports]
        has = ports.examine(self.gate, domain.inactive_xml, host.name, known=had) if domain else ()

        def seen(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            record_volumes(tx, migration.instance_id, attached)
            bindings.record_now(tx, row, host.id, has)
            # A confirm taken up again after it had suspended the guest for a merge must not take that for the user's.
            if row.merge_begun_at is None:
                row.dest_was_running = domain is not None and domain.state is PowerState.RUNNING

        self.world.work.record(seen)

    def undo(self, migration: Migration) -> None:
        self.world.work.record(lambda tx: close_as_finished(tx, migration, MigrationStatus.CONFIRMING, self.name))


class PowerOffDestination(MoveTask):
    """Revert: shuts the machine down on the destination.

    Effect: off; what it wrote since the resize will be discarded.
    Undo: starts it again if it was on; a fenced host is left as it is, and the revert can be asked for anew.
    Convergent because: one that is off stays off.
    If killed: the guest may go on shutting down; the next run waits for it.
    """

    def do(self, migration: Migration) -> None:
        seconds = machine.shutdown_seconds(self, migration)
        try:
            machine.power_off(self, destination(migration), migration, seconds)
        except HostAway as error:
            accept_fence(self, migration, error)

    def undo(self, migration: Migration) -> None:
        if not migration.dest_was_running:
            return
        try:
            machine.run_again(self, destination(migration), migration, machine.shutdown_seconds(self, migration))
        except HostAway as error:
            accept_fence(self, migration, error)


class RetireDestination(MoveTask):
    """Revert: the destination can no longer start by itself; its disks are kept; proof of off.

    Effect: as RetireSource; a domain that somebody undefined cannot start either.
    Undo: the inverse edit, marked as destination again, autostart as it was.
    Convergent because: a definition with our retired mark is not edited again. If killed: the next run goes on.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        try:
            if self._is_gone(migration):
                self.tell(f"proof of off: {host.name} has no domain {migration.instance_name}", proof=True)
            else:
                machine.retire(self, host, migration)
        except HostAway as error:
            accept_fence(self, migration, error)

        def proof(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.dest_off_at = row.dest_off_at or tx.now()

        self.world.work.record(proof)

    def undo(self, migration: Migration) -> None:
        try:
            self._restore(migration)
        except HostAway as error:
            accept_fence(self, migration, error)

    def _restore(self, migration: Migration) -> None:
        host = destination(migration)
        if self._is_gone(migration):
            self.tell(f"{host.name} has no domain {migration.instance_name}: nothing is restored there")
            return

        attached = connections(self, migration, "dest_attachment", host)

        def as_destination(now: str) -> str:
            mark = Mark(migration.id, self.world.lease.epoch, "destination")
            before = definition.connected(migration.dest_definition or definition.restored(now), attached)
            return definition.marked(with_passwords(before, now), mark)

        machine.unretire(self, host, migration, as_destination)
        secrets.provide(self, migration, host, attached.values())
        machine.set_autostart(self, host, migration, bool(migration.autostart))

    def _is_gone(self, migration: Migration) -> bool:
        return self.gate.host(destination(migration)).domain(migration.instance_id) is None


def accept_fence(task: MoveTask, migration: Migration, error: HostAway) -> None:
    """A host that is away counts as off only if a person said that it is (`host set --fenced`)."""
    if not machine.is_fenced(error.host, migration):
        raise error
    task.tell(
        f"{error.host.name} is away and fenced since {error.host.fenced_at:%Y-%m-%d %H:%M:%S}: that is proof of off"
    )


class RemoveDestination(MoveTask):
    """Revert: removes the destination's domain, disks, bindings, secrets and the volumes' ways back.

    Effect: only after the source has just been seen with its definition and disks. A volume that was detached at the
        destination since loses its return attachment: it is nobody's.
    Undo: none, the machine has run on the source. Convergent because: what is gone is fine.
    If killed: the rest by the next run. Host away: debts.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        self._see_source(migration)
        try:
            if not migration.same_host:
                machine.remove_domain(self, host, migration)
            for disk in at_destination(migration):
                machine.delete_volume(self, host, disk.dest_volume or "")
            secrets.remove(self, migration, host)
        except HostAway as error:
            if migration.same_host:
                raise
            self.owe(migration, host, "domain", migration.instance_id, str(error))
            for disk in at_destination(migration):
                self.owe(migration, host, "disk", disk.dest_volume or "", str(error))
        self._give_up_volumes(migration)
        if not migration.same_host:
            leave(self, migration, host, stays=migration.source_host)
            self._forget_detached_ports(migration)
        self.world.work.record(lambda tx: unbind(tx, migration, host.id))

    def _give_up_volumes(self, migration: Migration) -> None:
        for volume in migration.volumes:
            attachments = Attachments(self, migration, volume)
            attachments.remove("onward_attachment")
            if volume.detached:
                attachments.remove("return_attachment")
            attachments.sweep()
        secrets.remove(self, migration, migration.source_host)

    def _forget_detached_ports(self, migration: Migration) -> None:
        """A port that was removed at the destination has its way back still."""
        for port in bindings.each(self, migration, [port for port in migration.ports if port.detached]):
            port.leave(migration.source_host, stays=None)

    def _see_source(self, migration: Migration) -> None:
        source = migration.source_host
        hypervisor = self.gate.host(source)
        domain = hypervisor.domain(migration.instance_id)
        if domain is None or machine.has_role(domain, migration, "retired"):
            raise self.attention(f"{source.name} does not have the machine back: nothing is deleted")
        for disk in at_source(migration):
            if hypervisor.volume(source.pool, disk.source_volume) is None:
                raise self.attention(f"{disk.source_path} is missing on {source.name}: nothing is deleted")
