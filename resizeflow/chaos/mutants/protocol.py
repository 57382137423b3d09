"""Seeded faults in the protocol of a flow: its fence, its order, its looks, its undoing, its transactions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from resizeflow import flows
from resizeflow.chaos.mutants.seeding import instead, mutant, put
from resizeflow.drivers.interface import DriverError, Fence
from resizeflow.gate import Gate
from resizeflow.handover import Handover
from resizeflow.lease import Lease
from resizeflow.persistence import database
from resizeflow.persistence.events import Events
from resizeflow.persistence.flow_store import FlowConnection
from resizeflow.persistence.jobs import Jobs
from resizeflow.persistence.models import Job, Migration
from resizeflow.persistence.outbox import Outbox
from resizeflow.persistence.quotas import Quotas
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.tasks import disks
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.destination import StartDestination
from resizeflow.tasks.network import BindPorts
from resizeflow.tasks.source import RetireSource
from resizeflow.tasks.transfer import TransferDisks

# --- the fence -------------------------------------------------------------------------------------------


@mutant("resize stops")
def no_epoch_check() -> None:
    """Commits do not ask whether the epoch is still theirs."""
    put(database, "_lock_at_epoch", lambda _connection, _lease: None)


@mutant("resize stops")
def epoch_read_again() -> None:
    """A commit takes the job's epoch as it finds it, in place of the one of its own take-over."""

    def learn(connection: Any, lease: Lease) -> None:
        lease.epoch = connection.execute(sa.select(Job.epoch).where(Job.id == lease.job_id)).scalar_one()

    put(database, "_lock_at_epoch", learn)


@mutant("resize stops")
def no_last_moment() -> None:
    """An effect that was checked may begin whenever its process goes on."""
    honest = Gate._fence

    def endless(gate: Gate) -> Fence:
        return replace(honest(gate), not_after=math.inf)

    put(Gate, "_fence", endless)


# --- the order of things ---------------------------------------------------------------------------------


@mutant("resize kills")
def retire_after_transfer() -> None:
    """The disks are copied while the source could start the machine."""
    reorder(RetireSource, behind=TransferDisks)


@mutant("resize kills", "resize reboots")
def start_before_proof_of_off() -> None:
    """The destination is started before the source is retired and read back."""
    reorder(RetireSource, behind=StartDestination)
    honest = StartDestination.do

    def careless(task: StartDestination, migration: Migration) -> None:
        migration.source_off_at = migration.source_off_at or migration.created_at
        honest(task, migration)

    put(StartDestination, "do", careless)


@mutant("resize kills")
def no_pivot() -> None:
    """The point of no return is not written down."""
    put(Jobs, "pivot", lambda _jobs, _lease: None)


@mutant("resize kills")
def rollback_after_the_pivot() -> None:
    """The compare-and-swap of the direction is dropped: a job turns back whenever it is asked to."""

    def turn_back(jobs: Jobs, job_id: str) -> bool:
        jobs.session.execute(sa.update(Job).where(Job.id == job_id).values(direction="back"))
        return True

    put(Jobs, "turn_back", turn_back)


# --- looking ---------------------------------------------------------------------------------------------


@mutant("resize kills")
def create_without_looking() -> None:
    """An effect is done without a look whether it is there already."""

    def blind(_task: MoveTask, _done: Callable[[], bool], act: Callable[[], None], _what: str) -> None:
        act()

    put(MoveTask, "ensure", blind)


@mutant("resize failures")
def unknown_is_failed() -> None:
    """An effect whose reply was lost counts as one that did not happen."""

    def hasty(_task: MoveTask, done: Callable[[], bool], act: Callable[[], None], what: str) -> None:
        if not done():
            act()
        if not done():
            raise DriverError(what)

    put(MoveTask, "ensure", hasty)


@mutant("confirm kills")
def delete_without_seeing_the_other() -> None:
    """Confirm removes the source's disks without a look at the destination."""
    put(disks, "see_destination", lambda _task, _migration: None)


# --- undoing ---------------------------------------------------------------------------------------------


@mutant("resize kills")
def undo_trusts_its_result() -> None:
    """What has no stored result is not undone: an effect half done by a killed worker stays."""
    execute, revert = MoveTask.execute, MoveTask.revert

    def with_result(task: MoveTask) -> bool:
        execute(task)
        return True

    def trusting(task: MoveTask, *args: Any, result: Any = None, **kwargs: Any) -> None:
        if result is True:
            revert(task, *args, **kwargs)

    put(MoveTask, "execute", with_result)
    put(MoveTask, "revert", trusting)


@mutant("resize failures", "resize rollbacks")
def undo_swallows_its_failure() -> None:
    """An undo that is refused is logged and counts as done."""
    honest = MoveTask.revert

    def lenient(task: MoveTask, *args: Any, **kwargs: Any) -> None:
        try:
            honest(task, *args, **kwargs)
        except Handover as handover:
            if not handover.reason.startswith("undoing"):
                raise
            task.tell(handover.reason)

    put(MoveTask, "revert", lenient)


@mutant("resize kills")
def binding_forgotten() -> None:
    """The undo of BindPorts leaves the destination's bindings."""
    put(BindPorts, "undo", lambda _task, _migration: None)


@mutant("resize kills")
def autostart_forgotten() -> None:
    """The undo of RetireSource restores the definition, but not the autostart."""
    honest = RetireSource.undo

    def forgetful(task: RetireSource, migration: Migration) -> None:
        migration.autostart = None
        honest(task, migration)

    put(RetireSource, "undo", forgetful)


@mutant("resize kills")
def reservation_forgotten() -> None:
    """A rolled back resize keeps its quota reservation."""
    put(Quotas, "release", lambda _quotas, _migration: None)


# --- transactions ----------------------------------------------------------------------------------------


@mutant("resize kills")
def event_outside_the_transaction() -> None:
    """What happened to a task is logged after the commit that it tells of."""
    honest = FlowConnection.update_atom_details

    def logged_later(connection: Any, detail: Any) -> Any:
        told: list[tuple[Any, Any]] = []
        with instead(Events, "add", lambda _events, *args, **data: told.append((args, data))):
            answer = honest(connection, detail)
        with connection._database.write() as tx:
            for args, data in told:
                tx.events.add(*args, **data)
        return answer

    put(FlowConnection, "update_atom_details", logged_later)


@mutant("resize kills")
def rows_outside_the_transaction() -> None:
    """A task's rows are written after the commit of its success."""
    honest = FlowConnection.update_atom_details

    def written_later(connection: Any, detail: Any) -> Any:
        kept: list[Any] = []
        with instead(UnitOfWork, "write_rows", lambda work, _tx: kept.extend(work.rows)):
            answer = honest(connection, detail)
        with connection._database.write() as tx:
            for rows in kept:
                rows(tx)
        return answer

    put(FlowConnection, "update_atom_details", written_later)


@mutant("resize kills")
def told_outside_the_transaction() -> None:
    """Others are told of a task after the commit of its success."""
    honest, flush = FlowConnection.update_atom_details, Outbox.flush

    def told_later(connection: Any, detail: Any) -> Any:
        kept: list[Any] = []
        with instead(Outbox, "flush", lambda outbox: kept.extend(outbox._new)):
            answer = honest(connection, detail)
        with connection._database.write() as tx:
            tx.outbox._new = kept
            flush(tx.outbox)
        return answer

    put(FlowConnection, "update_atom_details", told_later)


def reorder(task: type[MoveTask], *, behind: type[MoveTask]) -> None:
    """A task of the resize comes later than it should."""
    order = [other for other in flows.TASKS["resize_v1"] if other is not task]
    order.insert(order.index(behind) + 1, task)
    put(flows, "TASKS", {**flows.TASKS, "resize_v1": tuple(order)})
