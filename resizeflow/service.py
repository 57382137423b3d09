"""The use cases: the one door for the command line, for an HTTP front later, and for tests."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from oslo_db.exception import DBDuplicateEntry

from resizeflow import plan, ports, rules, volumes
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.connections import CinderAway, Connections, HostAway, NeutronAway
from resizeflow.decision import CONFIRM, REMOVE, REVERT, Way, decidable, decide, give_up, undecidable
from resizeflow.drivers.hypervisor import DomainFacts, PowerState
from resizeflow.errors import (
    Conflict,
    InstanceUpdateConflict,
    InvalidMigrationState,
    InvalidPort,
    InvalidVolume,
    OverQuota,
)
from resizeflow.fleet import choose
from resizeflow.looks import Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Flavor, Host, Instance, Job, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.rules import BEFORE_LOOKING, RULES, Decision, Move
from resizeflow.rules.discarding import answers_or_is_fenced
from resizeflow.rules.removal import REMOVING
from resizeflow.rules.request import Request
from resizeflow.scheduler import Selection
from resizeflow.states import JobState, MigrationStatus, OnCrash, TaskState
from resizeflow.tasks.base import destination
from resizeflow.tasks.removal import forget

R = TypeVar("R", bound=Request)
ONLY_FORWARD = frozenset({"confirm_v1", "remove_v1", "settle_v1"})
"""Flows that are never turned back by a person."""


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
        move = self._examined(instance, flavor, host)
        row, new = move.instance, move.new
        selection = self._choose(move)
        with self.database.read() as tx:
            chosen = tx.hosts.get(selection.host.id)
            disks = list(tx.instances.get(row.id).disks)
        source = self.looks.host(row.host, patience=0)
        allocations = {volume.path: volume.allocation for volume in source.volumes(row.host.pool)}
        direct = self.settings.transfer != "stream" and chosen.peer_uri
        own = row.shutdown_timeout
        return plan.make(
            row,
            new,
            selection,
            disks,
            allocations,
            volumes=move.volumes,
            xml=move.machine.inactive_xml,
            running=move.machine.state is PowerState.RUNNING,
            way="host to host" if direct else "through the worker",
            shutdown_timeout=self.settings.shutdown_timeout if own is None else own,
            bandwidth=self.settings.bandwidth,
        )

    def _submit(self, name: str, flavor: str | None, host: str | None, on_crash: OnCrash | None) -> Submitted:
        seen = self._examined(name, flavor, host)
        selection = self._choose(seen)
        with self._one_winner(name), self.database.write(point="job.submit") as tx:
            # Checked again: what was looked at outside the transaction may have changed.
            move = replace(self._move(tx, name, flavor, host, lock=True), domain=seen.domain)
            rules.check(move, RULES)
            return self._open_migration(
                tx, move.instance, move.new, move.target, selection, on_crash=self._policy(on_crash)
            )

    def _examined(self, name: str, flavor: str | None, host: str | None) -> Move:
        """A request that satisfies the rules, with a look at the machine. Raises the first rule's error."""
        with self.database.read() as tx:
            move = self._move(tx, name, flavor, host)
            known = move.instance.port_ids
        rules.check(move, BEFORE_LOOKING)
        row = move.instance
        try:
            move = replace(move, domain=self.looks.host(row.host, patience=0).domain(row.id))
        except HostAway as error:
            move = replace(move, away=str(error))
        if move.domain is not None:
            move = self._with_ports(self._with_volumes(move, move.domain), move.domain, row.host, known)
        rules.check(move, RULES)
        return move

    def _with_volumes(self, request: R, domain: DomainFacts | None) -> R:
        """A request with a look at the volumes that a domain has now; without a domain, only at whether Cinder answers.
        A machine that has none needs no Cinder."""
        try:
            if domain is not None:
                return replace(request, volumes=volumes.examine(self.looks, domain.inactive_xml, patience=0))
            volumes.usable(self.looks, patience=0)
        except CinderAway as error:
            return replace(request, cinder_away=str(error))
        except InvalidVolume as error:
            return replace(request, bad_volume=error)
        return request

    def _with_ports(self, request: R, domain: DomainFacts | None, host: Host, known: Collection[str]) -> R:
        """A request with a look at the ports that a domain has now on a host; without a domain, only at whether Neutron
        answers."""
        try:
            if domain is None:
                ports.usable(self.looks, patience=0)
            else:
                ports.examine(self.looks, domain.inactive_xml, host.name, known=known, patience=0)
        except NeutronAway as error:
            return replace(request, neutron_away=str(error))
        except InvalidPort as error:
            return replace(request, bad_port=error)
        return request

    def _move(self, tx: Transaction, name: str, flavor: str | None, host: str | None, *, lock: bool = False) -> Move:
        """What the records say about a request. Raises InstanceNotFound."""
        row = tx.instances.get(name, lock=lock)
        new = row.flavor if flavor is None else tx.flavors.find(flavor)
        return Move(
            action="migrate" if flavor is None else "resize",
            instance=row,
            job=tx.jobs.busy(row.id),
            flavor_name=flavor,
            flavor=new,
            host_name=host,
            target=None if host is None else tx.hosts.find(host),
            same_host_allowed=self.settings.allow_resize_to_same_host,
            over_quota=self._over_quota(tx, row, new or row.flavor),
        )

    def _over_quota(self, tx: Transaction, row: Instance, new: Flavor) -> OverQuota | None:
        try:
            tx.quotas.would_fit(row, new, self.settings.quota)
        except OverQuota as error:
            return error
        return None

    @contextmanager
    def _one_winner(self, name: str) -> Iterator[None]:
        """What a rule allowed a moment ago and a transaction refuses was changed in between: of requests at once one
        is accepted, the others get InstanceUpdateConflict."""
        try:
            yield
        except Conflict as error:
            raise InstanceUpdateConflict(f"Another request was faster: {error}") from None
        except DBDuplicateEntry:
            raise InstanceUpdateConflict(
                f"Another request for instance {name} was faster; `resizeflow migration list` shows it."
            ) from None

    def _choose(self, move: Move) -> Selection:
        """The scheduler's choice now. Raises NoValidHost, ServiceUnavailable, CinderConnectionFailed, InvalidVolume;
        NeutronConnectionFailed, InvalidPort."""
        target_id = move.target.id if move.target else None
        try:
            return choose(self.database, self.looks, move.instance.id, move.new, target_id)
        except HostAway as error:
            # The machine's own: it has gone since the rules were asked.
            rules.check(replace(move, away=str(error)), RULES)
            raise
        except CinderAway as error:
            rules.check(replace(move, cinder_away=str(error)), RULES)
            raise
        except NeutronAway as error:
            rules.check(replace(move, neutron_away=str(error)), RULES)
            raise

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
            volume_backed=row.volume_backed,
            verdicts=selection.verdicts,
            created_at=tx.now(),
            old_flavor=row.flavor,
            new_flavor=new,
        )
        tx.session.add(migration)
        tx.session.flush()
        tx.events.add(
            migration.id,
            "state",
            f"{kind} of {row.name} accepted: flavor {row.flavor.name} to {new.name}, task state resize_prep",
        )
        tx.quotas.reserve(migration, self.settings.quota)
        row.task_state = TaskState.RESIZE_PREP
        job = tx.jobs.create(str(uuid.uuid4()), migration.id, row.id, "resize_v1", on_crash)
        return Submitted(migration.id, job.id)

    # --- deciding a finished resize ----------------------------------------------------------------------

    def confirm(self, instance: str) -> Submitted:
        """Accepts the confirm of a finished resize: it is kept, the way back is removed."""
        return self._decide(instance, CONFIRM, OnCrash.RESUME)

    def revert(self, instance: str, *, on_crash: OnCrash | None = None, discard_writes: bool = False) -> Submitted:
        """Accepts the revert of a finished resize: the machine goes back, what it wrote since is discarded, but
        for what is on volumes. With `discard_writes` also of one that is past its pivot and cannot finish."""
        with self.database.read() as tx:
            migration = tx.migrations.open_for(tx.instances.get(instance).id)
        if discard_writes and migration is not None and migration.status is MigrationStatus.POST_MIGRATING:
            return self._give_up(instance, self._policy(on_crash))
        return self._decide(instance, REVERT, self._policy(on_crash))

    def _give_up(self, name: str, on_crash: OnCrash) -> Submitted:
        with self.database.read() as tx:
            stuck = undecidable(tx, name)
        answers_or_is_fenced(stuck, *self._destination_of(stuck.resize))
        self._require_services(stuck)
        with self._one_winner(name), self.database.write(point="job.submit") as tx:
            give_up(tx, name)
            job = decide(tx, name, REVERT, on_crash)
            return Submitted(job.migration_id, job.id)

    def _destination_of(self, migration: Migration) -> tuple[Host, str | None]:
        """Where a migration goes, and why that host does not answer."""
        host = destination(migration)
        try:
            self.looks.host(host, patience=0).facts()
        except HostAway as error:
            return host, str(error)
        return host, None

    def remove(self, instance: str) -> Submitted | None:
        """Forgets a machine; its domain and disks stay as they are. A finished resize is confirmed first, as by Nova's
        delete in VERIFY_RESIZE: that is a job. Else it is forgotten when this returns None."""
        with self.database.read() as tx:
            migration = tx.migrations.open_for(tx.instances.get(instance).id)
        if migration is not None and migration.status is MigrationStatus.FINISHED:
            return self._decide(instance, REMOVE, OnCrash.RESUME)
        with self.database.write() as tx:
            row = tx.instances.get(instance, lock=True)
            rules.check(Decision("remove", row, tx.jobs.busy(row.id), tx.migrations.open_for(row.id)), REMOVING)
            text = f"{row.name} is not managed any more; its domain and disks stay on {row.host.name}"
            tx.events.command(text, instance=row, host=row.host.name)
            forget(tx, row)
        return None

    def _decide(self, name: str, way: Way, on_crash: OnCrash) -> Submitted:
        with self.database.read() as tx:
            decision = decidable(tx, name, way)
        self._require_services(decision)
        with self._one_winner(name), self.database.write(point="job.submit") as tx:
            job = decide(tx, name, way, on_crash)
            return Submitted(job.migration_id, job.id)

    def _require_services(self, decision: Decision) -> None:
        """Who decides a resize of volumes or ports is told now what its job would wait for, or end by. Raises
        CinderConnectionFailed, InvalidVolume; NeutronConnectionFailed, InvalidPort."""
        has_volumes, known = bool(decision.resize.volumes), [port.port_id for port in decision.resize.ports]
        if not has_volumes and not known:
            return
        host = destination(decision.resize)
        try:
            there = self.looks.host(host, patience=0).domain(decision.instance.id)
        except HostAway:
            there = None
        if has_volumes:
            rules.check(self._with_volumes(decision, there), rules.VOLUMES)
        if known:
            rules.check(self._with_ports(decision, there, host, known), rules.PORTS)

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
            if job.flow in ONLY_FORWARD:
                raise InvalidMigrationState(
                    f"A {job.flow.removesuffix('_v1')} only goes forward; `resizeflow migration resume` it."
                )
            if not tx.jobs.turn_back(job.id):
                raise InvalidMigrationState(
                    "The machine has run on its destination since, its disks there hold data that exists nowhere "
                    "else: this can only go forward. Let it finish (`resizeflow migration resume`), then revert; a "
                    "resize that cannot finish is given up with `resizeflow revert --discard-writes`."
                )
            tx.jobs.requeue(job.id)
            tx.events.add(job.migration_id, "command", "rollback was asked for, direction back")
            return Submitted(job.migration_id, job.id)

    def _unfinished(self, tx: Transaction, migration: str) -> Job:
        row = tx.migrations.get(migration)
        job = tx.jobs.unfinished(row.id)
        if job is None:
            raise InvalidMigrationState(
                f"Migration {row.id[:8]} is {row.status}: no job of it is left to resume or roll back."
            )
        return job

    def needs_somebody(self, job: Job) -> bool:
        """Whether a job is queued while no worker is up that would take it."""
        with self.database.read() as tx:
            return job.state is JobState.QUEUED and not tx.workers.up(job.flow)
