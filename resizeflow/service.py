"""The use cases: the one door for the command line, for an HTTP front later, and for tests."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from oslo_db.exception import DBDuplicateEntry

from resizeflow import plan, rules
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.drivers.hypervisor import DomainFacts, PowerState
from resizeflow.errors import Conflict, RuleError
from resizeflow.fitness import why_unfit
from resizeflow.fleet import request_for, snapshot
from resizeflow.gate import Connections, HostAway, Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Flavor, Host, Instance, Job, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.scheduler import Selection, select
from resizeflow.states import JobState, MigrationStatus, OnCrash, TaskState


@dataclass(frozen=True)
class Submitted:
    """A job that was accepted."""

    migration_id: str
    job_id: str


class Service:
    """Each method checks its rules before it changes anything; what it raises is one of `resizeflow.errors`."""

    def __init__(
        self, database: Database, settings: Settings, *, connections: Connections, clock: Clock | None = None
    ) -> None:
        self.database = database
        self.settings = settings
        self.clock = clock or Clock()
        self.looks = Looks(connections, settings, self.clock)

    # --- resize and cold migration -----------------------------------------------------------------------

    def resize(
        self, instance: str, flavor: str, *, host: str | None = None, on_crash: OnCrash | None = None
    ) -> Submitted:
        """Accepts a resize to another flavor: rules, quota, states and job in one transaction. `on_crash` is by
        default the setting of that name."""
        return self._submit(instance, flavor, host, on_crash)

    def migrate(self, instance: str, *, host: str | None = None, on_crash: OnCrash | None = None) -> Submitted:
        """Accepts a cold migration: the same flow with the same flavor."""
        return self._submit(instance, None, host, on_crash)

    def plan(self, instance: str, flavor: str | None, *, host: str | None = None) -> plan.Plan:
        """What a resize (or, without a flavor, a cold migration) would do. Raises what the submit would raise."""
        with self.database.read() as tx:
            row, new, target = self._checked(tx, instance, flavor, host)
            disks = list(row.disks)
            tx.quotas.would_fit(row.project_id, row.flavor, new, self.settings.quota)
        selection = self._select(row, new, target)
        with self.database.read() as tx:
            chosen = tx.hosts.get(selection.host.id)
        source = self.looks.host(row.host, patience=0)
        domain = self._domain(row)
        allocations = {volume.path: volume.allocation for volume in source.volumes(row.host.pool)}
        direct = self.settings.transfer != "stream" and chosen.peer_uri
        own = row.shutdown_timeout
        return plan.make(
            row,
            new,
            selection,
            disks,
            allocations,
            running=domain.state is PowerState.RUNNING,
            way="host to host" if direct else "through the worker",
            shutdown_timeout=self.settings.shutdown_timeout if own is None else own,
            bandwidth=self.settings.bandwidth,
        )

    def _submit(self, name: str, flavor: str | None, host: str | None, on_crash: OnCrash | None) -> Submitted:
        with self.database.read() as tx:
            row, new, target = self._checked(tx, name, flavor, host)
            tx.quotas.would_fit(row.project_id, row.flavor, new, self.settings.quota)
        selection = self._select(row, new, target)
        action = "resize" if flavor else "migrate"
        try:
            with self.database.write(point="job.submit") as tx:
                # Checked again: what was looked at outside the transaction may have changed.
                row, new, _target = self._checked(tx, name, flavor, host, lock=True)
                submitted = self._open_migration(tx, row, new, target, selection, on_crash=self._policy(on_crash))
        except DBDuplicateEntry:
            raise Conflict(f"Cannot '{action}' instance {name}: another request was faster.") from None
        return submitted

    def _checked(
        self, tx: Transaction, name: str, flavor: str | None, host: str | None, *, lock: bool = False
    ) -> tuple[Instance, Flavor, Host | None]:
        row = tx.instances.get(name, lock=lock)
        new = tx.flavors.get(flavor) if flavor else row.flavor
        target = tx.hosts.get(host) if host else None
        action = "resize" if flavor else "migrate"
        rules.not_locked(row)
        rules.idle(row, action)
        rules.resizable_state(row, action)
        if job := tx.jobs.busy(row.id):
            raise Conflict(
                f"Cannot '{action}' instance {row.name}: job {job.flow} of {job.migration_id[:8]} is not done."
            )
        if flavor:
            rules.flavor_differs(row.flavor, new)
            rules.root_not_smaller(row.flavor, new)
            rules.ephemeral_not_smaller(row.flavor, new)
        elif target is not None and target.id == row.host_id:
            raise RuleError(f"Instance {row.name} is on host {target.name} already; choose another one.")
        return row, new, target

    def _select(self, row: Instance, new: Flavor, target: Host | None) -> Selection:
        """The scheduler's choice now, with a look whether the machine and the host really fit."""
        domain = self._domain(row)
        rules.movable(domain)
        rules.definable(domain, new)
        with self.database.read() as tx:
            hosts = tx.hosts.list()
            bridges = [port.bridge for port in tx.instances.get(row.id).ports]
        fleet = snapshot(self.looks, hosts)
        request = request_for(
            row.flavor,
            new,
            row.host_id,
            target_id=target.id if target else None,
            same_host_allowed=self.settings.allow_resize_to_same_host,
        )
        while True:
            selection = select(fleet, request)
            chosen = next(host for host in hosts if host.id == selection.host.id)
            reason = why_unfit(self.looks, row.id, row.host, chosen, bridges)
            if reason is None:
                return selection
            fleet = [replace(host, away=reason) if host.id == chosen.id else host for host in fleet]

    def _domain(self, row: Instance) -> DomainFacts:
        try:
            domain = self.looks.host(row.host, patience=0).domain(row.id)
        except HostAway as error:
            raise Conflict(f"The instance's {error}. Nothing was changed; try again when it is back.") from None
        if domain is None:
            raise Conflict(
                f"Host {row.host.name} has no domain {row.name} ({row.id}) any more; `resizeflow instance remove "
                f"{row.name}` forgets it."
            )
        return domain

    def _policy(self, on_crash: OnCrash | None) -> OnCrash:
        return on_crash or OnCrash(self.settings.on_crash)

    def _open_migration(
        self,
        tx: Transaction,
        row: Instance,
        new: Flavor,
        target: Host | None,
        selection: Selection,
        *,
        on_crash: OnCrash,
    ) -> Submitted:
        kind = "migration" if new.id == row.flavor_id else "resize"
        migration = Migration(
            id=str(uuid.uuid4()),
            instance_id=row.id,
            instance_name=row.name,
            project_id=row.project_id,
            kind=kind,
            status=MigrationStatus.PRE_MIGRATING,
            source_host_id=row.host_id,
            requested_host_id=target.id if target else None,
            old_flavor_id=row.flavor_id,
            new_flavor_id=new.id,
            old_vm_state=row.vm_state,
            verdicts=selection.verdicts,
            created_at=tx.now(),
            old_flavor=row.flavor,
            new_flavor=new,
        )
        tx.session.add(migration)
        tx.session.flush()
        tx.quotas.reserve(migration, self.settings.quota)
        row.task_state = TaskState.RESIZE_PREP
        job = tx.jobs.create(str(uuid.uuid4()), migration.id, row.id, "resize_v1", on_crash)
        tx.events.add(
            migration.id,
            "state",
            f"{kind} of {row.name} accepted: flavor {row.flavor.name} to {new.name}, task state resize_prep",
        )
        return Submitted(migration.id, job.id)

    # --- deciding a finished resize ----------------------------------------------------------------------

    def confirm(self, instance: str) -> Submitted:
        """Accepts the confirm of a finished resize: it is kept, the way back is removed."""
        return self._decide(instance, "confirm", MigrationStatus.CONFIRMING, None, OnCrash.RESUME)

    def revert(self, instance: str, *, on_crash: OnCrash | None = None) -> Submitted:
        """Accepts the revert of a finished resize: the machine goes back, what it wrote since is discarded."""
        reverting, task_state = MigrationStatus.REVERTING, TaskState.RESIZE_REVERTING
        return self._decide(instance, "revert", reverting, task_state, self._policy(on_crash))

    def _decide(
        self, name: str, action: str, status: MigrationStatus, task_state: TaskState | None, on_crash: OnCrash
    ) -> Submitted:
        try:
            with self.database.write(point="job.submit") as tx:
                row = tx.instances.get(name, lock=True)
                rules.not_locked(row)
                migration = rules.to_decide(row, tx.migrations.open_for(row.id), action)
                migration.status = status
                row.task_state = task_state
                job = tx.jobs.create(str(uuid.uuid4()), migration.id, row.id, f"{action}_v1", on_crash)
                tx.events.add(migration.id, "state", f"{action} accepted, status {status}")
                return Submitted(migration.id, job.id)
        except DBDuplicateEntry:
            raise Conflict(f"Cannot '{action}' instance {name}: another request was faster.") from None

    # --- jobs in flight ----------------------------------------------------------------------------------

    def resume(self, migration: str) -> Submitted:
        """Lets a waiting or stopped job be taken up at once. A person has decided now what a policy would have
        decided: a job that was to be rolled back after a crash is resumed after it."""
        with self.database.write(point="job.resume") as tx:
            job = self._unfinished(tx, migration)
            tx.jobs.requeue(job.id)
            also = ", also after a crash" if job.on_crash is OnCrash.ROLLBACK else ""
            job.on_crash = OnCrash.RESUME
            tx.events.add(job.migration_id, "command", f"resume was asked for{also}")
            return Submitted(job.migration_id, job.id)

    def rollback(self, migration: str) -> Submitted:
        """Turns a job back: everything it did is undone. Refused after its point of no return."""
        with self.database.write(point="job.rollback") as tx:
            job = self._unfinished(tx, migration)
            if job.flow in ("confirm_v1", "settle_v1"):
                raise Conflict(f"A {job.flow.removesuffix('_v1')} only goes forward; `resizeflow migration resume` it.")
            if not tx.jobs.turn_back(job.id):
                raise Conflict(
                    "The machine has run on its destination since, its disks there hold data that exists nowhere "
                    "else: this can only go forward. Let it finish (`resizeflow migration resume`), then revert."
                )
            tx.jobs.requeue(job.id)
            tx.events.add(job.migration_id, "command", "rollback was asked for, direction back")
            return Submitted(job.migration_id, job.id)

    def _unfinished(self, tx: Transaction, migration: str) -> Job:
        row = tx.migrations.get(migration)
        job = tx.jobs.unfinished(row.id)
        if job is None:
            raise Conflict(f"Migration {row.id[:8]} is {row.status}: no job of it is left to resume or roll back.")
        return job

    def needs_somebody(self, job: Job) -> bool:
        """Whether a job is queued while no worker is up that would take it."""
        with self.database.read() as tx:
            return job.state is JobState.QUEUED and not tx.jobs.workers(job.flow)
