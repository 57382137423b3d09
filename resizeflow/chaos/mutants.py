"""Who tests the test? Seeded faults of the protocol, each of which the enumeration must catch.

Each is one plausible mistake in the product, made in the processes that run the job, and nowhere else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from resizeflow import flows
from resizeflow.drivers.hypervisor import DriverError, Fence
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


@dataclass(frozen=True)
class Mutant:
    """A seeded fault, and the kinds of cases that have to catch it, by scenario."""

    seed: Callable[[], None]
    where: tuple[tuple[str, str], ...]

    @property
    def explained(self) -> str:
        return (self.seed.__doc__ or "").strip()


MUTANTS: dict[str, Mutant] = {}


def _mutant(*where: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Registers a seeded fault under its name; `where` are `scenario kind`."""

    def register(seed: Callable[[], None]) -> Callable[[], None]:
        places = tuple((scenario, kind) for scenario, _, kind in (place.partition(" ") for place in where))
        MUTANTS[seed.__name__.replace("_", "-")] = Mutant(seed, places)
        return seed

    return register


# --- the fence -------------------------------------------------------------------------------------------


@_mutant("resize stops")
def no_epoch_check() -> None:
    """Commits do not ask whether the epoch is still theirs."""
    _replace(database, "_lock_at_epoch", lambda _connection, _lease: None)


@_mutant("resize stops")
def epoch_read_again() -> None:
    """A commit takes the job's epoch as it finds it, in place of the one of its own take-over."""

    def learn(connection: Any, lease: Lease) -> None:
        lease.epoch = connection.execute(sa.select(Job.epoch).where(Job.id == lease.job_id)).scalar_one()

    _replace(database, "_lock_at_epoch", learn)


@_mutant("resize stops")
def no_last_moment() -> None:
    """An effect that was checked may begin whenever its process goes on."""
    honest = Gate._fence

    def endless(gate: Gate) -> Fence:
        return replace(honest(gate), not_after=math.inf)

    _replace(Gate, "_fence", endless)


# --- the order of things ---------------------------------------------------------------------------------


@_mutant("resize kills")
def retire_after_transfer() -> None:
    """The disks are copied while the source could start the machine."""
    _reorder(RetireSource, behind=TransferDisks)


@_mutant("resize kills", "resize reboots")
def start_before_proof_of_off() -> None:
    """The destination is started before the source is retired and read back."""
    _reorder(RetireSource, behind=StartDestination)
    honest = StartDestination.do

    def careless(task: StartDestination, migration: Migration) -> None:
        migration.source_off_at = migration.source_off_at or migration.created_at
        honest(task, migration)

    _replace(StartDestination, "do", careless)


@_mutant("resize kills")
def no_pivot() -> None:
    """The point of no return is not written down."""
    _replace(Jobs, "pivot", lambda _jobs, _lease: None)


@_mutant("resize kills")
def rollback_after_the_pivot() -> None:
    """The compare-and-swap of the direction is dropped: a job turns back whenever it is asked to."""

    def turn_back(jobs: Jobs, job_id: str) -> bool:
        jobs.session.execute(sa.update(Job).where(Job.id == job_id).values(direction="back"))
        return True

    _replace(Jobs, "turn_back", turn_back)


# --- looking ---------------------------------------------------------------------------------------------


@_mutant("resize kills")
def create_without_looking() -> None:
    """An effect is done without a look whether it is there already."""

    def blind(_task: MoveTask, _done: Callable[[], bool], act: Callable[[], None], _what: str) -> None:
        act()

    _replace(MoveTask, "ensure", blind)


@_mutant("resize failures")
def unknown_is_failed() -> None:
    """An effect whose reply was lost counts as one that did not happen."""

    def hasty(_task: MoveTask, done: Callable[[], bool], act: Callable[[], None], what: str) -> None:
        if not done():
            act()
        if not done():
            raise DriverError(what)

    _replace(MoveTask, "ensure", hasty)


@_mutant("confirm kills")
def delete_without_seeing_the_other() -> None:
    """Confirm removes the source's disks without a look at the destination."""
    _replace(disks, "see_destination", lambda _task, _migration: None)


# --- undoing ---------------------------------------------------------------------------------------------


@_mutant("resize kills")
def undo_trusts_its_result() -> None:
    """What has no stored result is not undone: an effect half done by a killed worker stays."""
    execute, revert = MoveTask.execute, MoveTask.revert

    def with_result(task: MoveTask) -> bool:
        execute(task)
        return True

    def trusting(task: MoveTask, *args: Any, result: Any = None, **kwargs: Any) -> None:
        if result is True:
            revert(task, *args, **kwargs)

    _replace(MoveTask, "execute", with_result)
    _replace(MoveTask, "revert", trusting)


@_mutant("resize failures", "resize rollbacks")
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

    _replace(MoveTask, "revert", lenient)


@_mutant("resize kills")
def binding_forgotten() -> None:
    """The undo of BindPorts leaves the destination's bindings."""
    _replace(BindPorts, "undo", lambda _task, _migration: None)


@_mutant("resize kills")
def autostart_forgotten() -> None:
    """The undo of RetireSource restores the definition, but not the autostart."""
    honest = RetireSource.undo

    def forgetful(task: RetireSource, migration: Migration) -> None:
        migration.autostart = None
        honest(task, migration)

    _replace(RetireSource, "undo", forgetful)


@_mutant("resize kills")
def reservation_forgotten() -> None:
    """A rolled back resize keeps its quota reservation."""
    _replace(Quotas, "release", lambda _quotas, _migration: None)


# --- transactions ----------------------------------------------------------------------------------------


@_mutant("resize kills")
def event_outside_the_transaction() -> None:
    """What happened to a task is logged after the commit that it tells of."""
    honest = FlowConnection.update_atom_details

    def logged_later(connection: Any, detail: Any) -> Any:
        told: list[tuple[Any, Any]] = []
        with _instead(Events, "add", lambda _events, *args, **data: told.append((args, data))):
            answer = honest(connection, detail)
        with connection._database.write() as tx:
            for args, data in told:
                tx.events.add(*args, **data)
        return answer

    _replace(FlowConnection, "update_atom_details", logged_later)


@_mutant("resize kills")
def rows_outside_the_transaction() -> None:
    """A task's rows are written after the commit of its success."""
    honest = FlowConnection.update_atom_details

    def written_later(connection: Any, detail: Any) -> Any:
        kept: list[Any] = []
        with _instead(UnitOfWork, "write_rows", lambda work, _tx: kept.extend(work.rows)):
            answer = honest(connection, detail)
        with connection._database.write() as tx:
            for rows in kept:
                rows(tx)
        return answer

    _replace(FlowConnection, "update_atom_details", written_later)


@_mutant("resize kills")
def told_outside_the_transaction() -> None:
    """Others are told of a task after the commit of its success."""
    honest, flush = FlowConnection.update_atom_details, Outbox.flush

    def told_later(connection: Any, detail: Any) -> Any:
        kept: list[Any] = []
        with _instead(Outbox, "flush", lambda outbox: kept.extend(outbox._new)):
            answer = honest(connection, detail)
        with connection._database.write() as tx:
            tx.outbox._new = kept
            flush(tx.outbox)
        return answer

    _replace(FlowConnection, "update_atom_details", told_later)


# --- how a fault is seeded -------------------------------------------------------------------------------


def _reorder(task: type[MoveTask], *, behind: type[MoveTask]) -> None:
    """A task of the resize comes later than it should."""
    order = [other for other in flows.TASKS["resize_v1"] if other is not task]
    order.insert(order.index(behind) + 1, task)
    _replace(flows, "TASKS", {**flows.TASKS, "resize_v1": tuple(order)})


@contextlib.contextmanager
def _instead(owner: type, name: str, value: Any) -> Iterator[None]:
    honest = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, honest)


def _replace(owner: Any, name: str, value: Any) -> None:
    """For the life of this process."""
    if not hasattr(owner, name):
        raise AttributeError(f"{owner.__name__} has no {name} any more: the seeded fault would be none.")
    setattr(owner, name, value)
