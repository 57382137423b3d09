"""Invariants 4 and 8: what the rows say of one machine goes together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from resizeflow.doctor.report import Breach
from resizeflow.doctor.snapshot import Records
from resizeflow.persistence.flow_store import ENDED
from resizeflow.persistence.models import FlowDetail, Instance, Job, Migration, Port
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import Direction, JobState, MigrationStatus, TaskState, VmState

# --- 4: bindings -----------------------------------------------------------------------------------------

STALE = "inactive bindings that no open migration has are removed"


def check_bindings(records: Records) -> Iterator[Breach]:
    """Invariant 4: one active binding per port, on the instance's host; inactive ones only for open migrations."""
    for instance in records.instances.values():
        for port in instance.ports:
            subject = f"port {port.mac} of {instance.name}"
            active = [binding.host_id for binding in port.bindings if binding.active]
            if active != [instance.host_id]:
                yield Breach(
                    4,
                    subject,
                    f"active binding on {', '.join(map(records.host_name, active)) or 'no host'}",
                    f"active binding on {instance.host.name}",
                )
            for binding in stale_bindings(records, port):
                yield Breach(4, subject, f"inactive binding on {records.host_name(binding[1])}", "none there", STALE)


def stale_bindings(records: Records, port: Port) -> list[tuple[int, str]]:
    """Inactive bindings, as (id, host), that belong to no open migration of the machine."""
    migration = records.open_migrations.get(port.instance_id)
    owner = migration.id if migration else None
    return [
        (binding.id, binding.host_id)
        for binding in port.bindings
        if not binding.active and (owner is None or binding.migration_id != owner)
    ]


# --- 8: states -------------------------------------------------------------------------------------------

NONE = "none"
AS_BEFORE = None
"""The vm_state that the machine had when its migration was submitted."""
SOURCE, DESTINATION = "source", "destination"


@dataclass(frozen=True)
class Legal:
    """A combination of states that a machine with an open migration may be in."""

    status: MigrationStatus
    jobs: frozenset[str]
    """Operation and direction of the unfinished job, or `none`."""
    vm_state: VmState | None
    task_state: TaskState | None
    place: str
    """Whose host and flavor the instance has."""

    def __str__(self) -> str:
        vm_state = self.vm_state or "as before"
        return f"{self.status}, {vm_state}, {self.task_state or 'no task'}, at the {self.place}, job {_or(self.jobs)}"


_RESIZE = frozenset({"resize forward", "resize back"})
_CONFIRM = frozenset({"confirm forward", "confirm back"})
_REMOVE = frozenset({"remove forward", "remove back"})
_REVERT = frozenset({"revert forward", "revert back"})
# A flow's last task commits its rows before the flow itself ends: for a moment its job is not done yet.
_FINISHED = frozenset({NONE, "resize forward", "confirm back", "remove back", "revert back", "settle forward"})
_REVERTING = TaskState.RESIZE_REVERTING

LEGAL = (
    Legal(MigrationStatus.PRE_MIGRATING, _RESIZE, AS_BEFORE, TaskState.RESIZE_PREP, SOURCE),
    Legal(MigrationStatus.MIGRATING, _RESIZE, AS_BEFORE, TaskState.RESIZE_MIGRATING, SOURCE),
    Legal(MigrationStatus.POST_MIGRATING, _RESIZE, AS_BEFORE, TaskState.RESIZE_MIGRATING, SOURCE),
    Legal(MigrationStatus.POST_MIGRATING, _RESIZE, AS_BEFORE, TaskState.RESIZE_MIGRATED, DESTINATION),
    Legal(MigrationStatus.POST_MIGRATING, _RESIZE, AS_BEFORE, TaskState.RESIZE_FINISH, DESTINATION),
    Legal(MigrationStatus.FINISHED, _FINISHED, VmState.RESIZED, None, DESTINATION),
    Legal(MigrationStatus.CONFIRMING, _CONFIRM, VmState.RESIZED, None, DESTINATION),
    Legal(MigrationStatus.CONFIRMING, _REMOVE, VmState.RESIZED, TaskState.DELETING, DESTINATION),
    Legal(MigrationStatus.REVERTING, _REVERT, VmState.RESIZED, _REVERTING, DESTINATION),
    Legal(MigrationStatus.REVERTING, _REVERT, VmState.RESIZED, _REVERTING, SOURCE),
)
CLOSING = {
    MigrationStatus.CONFIRMED: (("confirm", "remove"), "SUCCESS"),
    MigrationStatus.REVERTED: (("revert",), "SUCCESS"),
    MigrationStatus.ERROR: (("resize",), "REVERTED"),
}
"""The operations that close a migration, and the end of their flow."""
AFTER_THE_MACHINE = frozenset({"settle", "remove"})
"""Operations whose job may last longer than the machine's record."""


def check_states(records: Records) -> Iterator[Breach]:
    """Invariant 8: vm_state, task_state, migration.status, direction and job agree."""
    for instance in records.instances.values():
        job = records.jobs.get(instance.id)
        migration = records.open_migrations.get(instance.id)
        if migration is None:
            yield from _check_idle(records, instance, job)
        else:
            yield from _check_moving(instance, migration, job)
    for job in records.jobs.values():
        yield from _check_job(records, job)


def _check_idle(records: Records, instance: Instance, job: Job | None) -> Iterator[Breach]:
    subject = f"instance {instance.name}"
    if instance.task_state is not None or instance.vm_state not in (VmState.ACTIVE, VmState.STOPPED):
        found = f"{instance.vm_state}, {instance.task_state or 'no task'}, without an open migration"
        yield Breach(8, subject, found, "active or stopped, no task")
    if job is not None and operation(job.flow) != "settle":
        closed = records.migrations[job.migration_id]
        if closed.status not in CLOSING or operation(job.flow) not in CLOSING[closed.status][0]:
            yield Breach(8, subject, f"job {_name(job)} of a migration that is {closed.status}", "no such job")


def _check_moving(instance: Instance, migration: Migration, job: Job | None) -> Iterator[Breach]:
    ours = (
        NONE if job is None else _name(job),
        instance.vm_state,
        instance.task_state,
        (instance.host_id, instance.flavor_id),
    )
    candidates = [legal for legal in LEGAL if legal.status == migration.status]
    for legal in candidates:
        vm_state = migration.old_vm_state if legal.vm_state is AS_BEFORE else legal.vm_state
        place = (
            (migration.source_host_id, migration.old_flavor_id)
            if legal.place == SOURCE
            else (migration.dest_host_id, migration.new_flavor_id)
        )
        if ours[0] in legal.jobs and ours[1:] == (vm_state, legal.task_state, place):
            return
    yield Breach(
        8,
        f"instance {instance.name}",
        f"{migration.status}, {instance.vm_state}, {instance.task_state or 'no task'}, on {instance.host.name} "
        f"with flavor {instance.flavor.name}, job {ours[0]}",
        "; or ".join(map(str, candidates)),
    )


def _check_job(records: Records, job: Job) -> Iterator[Breach]:
    subject = f"job {job.id}"
    if job.pivot_at is not None and job.direction is Direction.BACK:
        yield Breach(8, subject, "turned back after its point of no return", "forward")
    if (job.state is JobState.RUNNING) != (job.owner is not None):
        yield Breach(8, subject, f"{job.state}, held by {job.owner or 'nobody'}", "held exactly while it runs")
    if job.instance_id not in records.instances and operation(job.flow) not in AFTER_THE_MACHINE:
        yield Breach(8, subject, f"works on {job.instance_id}, which is not managed", "a managed instance")


def check_flows(tx: Transaction) -> Iterator[Breach]:
    """Invariant 8, for all jobs ever: a job is done if and only if its flow has ended, an end means its direction,
    and a migration is closed by the end of the flow that closes it."""
    ended = FlowDetail.state.in_(sorted(ENDED))
    done = Job.state == JobState.DONE
    against = sa.or_(
        sa.and_(FlowDetail.state == "SUCCESS", Job.direction == Direction.BACK),
        sa.and_(FlowDetail.state == "REVERTED", Job.direction == Direction.FORWARD),
    )
    # A resize past its pivot that a person gave up: its job is done where its flow stood.
    given_up = sa.and_(Job.flow.startswith("resize_v"), Job.pivot_at.is_not(None), Migration.discard_writes)
    disagreeing = sa.or_(
        FlowDetail.uuid.is_(None),
        sa.and_(done, ~given_up, sa.or_(FlowDetail.state.is_(None), ~ended)),
        sa.and_(~done, ended),
        against,
    )
    jobs = (
        sa.select(Job, FlowDetail.state)
        .join(Migration, Migration.id == Job.migration_id)
        .outerjoin(FlowDetail, FlowDetail.uuid == Job.id)
        .where(disagreeing)
    )
    for job, state in tx.session.execute(jobs):
        found = f"{_name(job)}, {job.state}, flow {state or 'not begun'}"
        yield Breach(8, f"job {job.id}", found, "done exactly when its flow has ended: SUCCESS forward, REVERTED back")
    for migration in tx.session.scalars(sa.select(Migration).where(sa.or_(*map(_closed_by_nobody, CLOSING)))):
        closing, end = CLOSING[migration.status]
        found = f"{migration.status}, but no {' or '.join(closing)} of it came to that end"
        yield Breach(8, f"migration {migration.id}", found, f"a {' or '.join(closing)} whose flow is {end}")


def _closed_by_nobody(status: MigrationStatus) -> sa.ColumnElement[bool]:
    closing, end = CLOSING[status]
    closer = (
        sa.select(Job.id)
        .join(FlowDetail, FlowDetail.uuid == Job.id)
        .where(
            Job.migration_id == Migration.id,
            sa.or_(*(Job.flow.startswith(f"{name}_v") for name in closing)),
            sa.or_(FlowDetail.state == end, Job.state != JobState.DONE),
        )
    )
    return sa.and_(Migration.status == status, ~closer.exists())


def operation(flow: str) -> str:
    """`resize` of `resize_v1`."""
    return flow.partition("_v")[0]


def _name(job: Job) -> str:
    return f"{operation(job.flow)} {job.direction}"


def _or(words: frozenset[str]) -> str:
    return " or ".join(sorted(words))
