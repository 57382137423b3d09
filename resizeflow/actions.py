"""Instance actions and their events, by Nova's names, as operators read them in `server event list`.

Read from the event log: there is no second bookkeeping that a crash could leave without an end.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from resizeflow.errors import NotFound
from resizeflow.flows import TASKS
from resizeflow.persistence.models import Event, Job, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import Direction, JobState

SUCCESS, ERROR = "Success", "Error"


class Where(enum.Enum):
    """Whose name an event has as its host."""

    WORKER = enum.auto()
    SOURCE = enum.auto()
    DESTINATION = enum.auto()


@dataclass(frozen=True)
class Phase:
    """An event of Nova's, and the tasks that do here what it stands for, from the first to the last."""

    event: str
    where: Where
    first: str
    last: str


_CONFIRM = Phase("compute_confirm_resize", Where.SOURCE, "CheckDestination", "FinishConfirm")
PHASES: Mapping[str, tuple[Phase, ...]] = {
    "resize": (
        Phase("conductor_migrate_server", Where.WORKER, "OpenMigration", "SelectDestination"),
        Phase("cold_migrate", Where.WORKER, "OpenMigration", "SelectDestination"),
        Phase("compute_prep_resize", Where.DESTINATION, "PrepareDestination", "ReserveVolumes"),
        Phase("compute_resize_instance", Where.SOURCE, "PowerOffSource", "MoveInstance"),
        Phase("compute_finish_resize", Where.DESTINATION, "ResizeDisks", "FinishResize"),
    ),
    "confirm": (_CONFIRM,),
    "remove": (_CONFIRM, Phase("compute_terminate_instance", Where.DESTINATION, "ForgetInstance", "ForgetInstance")),
    "revert": (
        Phase("compute_revert_resize", Where.DESTINATION, "CheckSource", "DetachDestinationVolumes"),
        Phase("compute_finish_revert_resize", Where.SOURCE, "ConnectSourceVolumes", "FinishRevert"),
    ),
}
"""By the operation, which is the beginning of the flow's name."""
_NAMES = {"confirm": "confirmResize", "remove": "delete", "revert": "revertResize"}


@dataclass(frozen=True)
class Action:
    """What was asked for: one job."""

    job: Job
    migration: Migration

    @property
    def operation(self) -> str:
        return self.job.flow.partition("_v")[0]

    @property
    def name(self) -> str:
        """Nova's name of it."""
        if self.operation == "resize":
            return "resize" if self.migration.kind == "resize" else "migrate"
        return _NAMES[self.operation]

    @property
    def result(self) -> str | None:
        """None while it is not done."""
        if self.job.state is not JobState.DONE:
            return None
        return ERROR if self.job.direction is Direction.BACK else SUCCESS


@dataclass(frozen=True)
class ActionEvent:
    """A part of an action; without a finish it goes on, or waits."""

    event: str
    host: str | None
    start: datetime
    finish: datetime | None
    result: str | None
    details: str | None


def actions_of(tx: Transaction, instance: str) -> list[Action]:
    """Those of a machine, also of one that is managed no more, by name or UUID; the latest first. Raises NotFound."""
    found = tx.instances.find(instance)
    ours = sa.or_(Migration.instance_id == instance, Migration.instance_name == instance)
    rows = tx.session.execute(
        sa.select(Job, Migration)
        .join(Migration, Migration.id == Job.migration_id)
        .where(Job.instance_id == found.id if found else ours, sa.not_(Job.flow.startswith("settle")))
        .order_by(Job.created_at.desc())
    )
    actions = [Action(*row) for row in rows]
    if not actions:
        tx.instances.get(instance)
    return actions


def action_of(tx: Transaction, instance: str, request: str) -> Action:
    """One of a machine's, by its request id or the beginning of it. Raises NotFound."""
    found = [action for action in actions_of(tx, instance) if action.job.id.startswith(request)]
    if len(found) != 1:
        raise NotFound(
            f"{'Several requests' if found else 'No request'} of {instance} begin{'' if found else 's'} with "
            f"{request!r}; `resizeflow instance event list {instance}` shows them."
        )
    return found[0]


def events_of(tx: Transaction, action: Action) -> list[ActionEvent]:
    """What an action consisted of, in order, as far as it has come."""
    lines = _lines(tx, action)
    tasks = [task.__name__ for task in TASKS.get(action.job.flow, ())]
    phases = [phase for phase in PHASES[action.operation] if phase.first in tasks]
    parts = ((phase, tasks[tasks.index(phase.first) : tasks.index(phase.last) + 1]) for phase in phases)
    return [event for phase, own in parts for event in _event(action, phase, own, lines)]


def _lines(tx: Transaction, action: Action) -> Sequence[Event]:
    """Of the migration's log, what is the job's: up to the next job."""
    jobs = tx.jobs.of_migration(action.migration.id)
    later = [job.created_at for job in jobs if job.created_at > action.job.created_at]
    events = tx.events.of(action.migration.id)
    return [e for e in events if action.job.created_at <= e.at and not (later and e.at >= later[0])]


def _event(action: Action, phase: Phase, tasks: Sequence[str], lines: Sequence[Event]) -> Iterator[ActionEvent]:
    own = [line for line in lines if line.task in tasks and line.kind == "task"]
    if not own:
        return
    finish, result = _end(own, tasks)
    details = None
    if result == ERROR:
        failures = [line.text for line in lines if line.kind == "failure" and line.task in tasks]
        details = failures[-1] if failures else action.migration.error or "rolled back on request"
    yield ActionEvent(phase.event, _host(action, phase, own[0]), own[0].at, finish, result, details)


def _end(own: Sequence[Event], tasks: Sequence[str]) -> tuple[datetime | None, str | None]:
    """When all its tasks were done; or when the first of them failed, or began to be undone."""
    left = set(tasks)
    for line in own:
        word = line.text.removeprefix(f"{line.task} ")
        if word == "done":
            left.discard(line.task or "")
            if not left:
                return line.at, SUCCESS
        elif word != "started":
            return line.at, ERROR
    return None, None


def _host(action: Action, phase: Phase, first: Event) -> str | None:
    row = action.migration
    if phase.where is Where.WORKER:
        return (first.worker or "").partition(":")[0] or None
    host = row.source_host if phase.where is Where.SOURCE else row.dest_host
    return host.name if host else None
