"""The machine on its destination: defined for the new flavor, started, past the point of no return, and confirmed."""

from __future__ import annotations

from collections.abc import Mapping

from resizeflow import ports, volumes
from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Connected, Mark, Placement
from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.network import Plug
from resizeflow.drivers.passwords import with_passwords
from resizeflow.errors import Conflict
from resizeflow.handover import Waiting
from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import MigrationStatus
from resizeflow.tasks import bindings, machine, secrets, vlans
from resizeflow.tasks.attachments import complete, connections, record_volumes
from resizeflow.tasks.base import WAIT_FOR_HOST, MoveTask, destination
from resizeflow.tasks.disks import see_destination
from resizeflow.tasks.instance import close_as_finished


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
        new = vlans.of_new(self, migration, host, domain, has) if domain else {}

        def seen(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            record_volumes(tx, migration.instance_id, attached)
            bindings.record_now(tx, row, host.id, has, new)
            # A confirm taken up again after it had suspended the guest for a merge must not take that for the user's.
            if row.merge_begun_at is None:
                row.dest_was_running = domain is not None and domain.state is PowerState.RUNNING

        self.world.work.record(seen)

    def undo(self, migration: Migration) -> None:
        self.world.work.record(lambda tx: close_as_finished(tx, migration, MigrationStatus.CONFIRMING, self.name))
