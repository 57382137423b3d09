"""Deciding a finished resize, in one transaction. Who asks is a person, or the clock (auto_confirm.py)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from resizeflow import rules
from resizeflow.errors import Conflict
from resizeflow.persistence.models import Job
from resizeflow.persistence.transaction import Transaction
from resizeflow.rules.discarding import GIVING_UP
from resizeflow.states import MigrationStatus, OnCrash, TaskState
from resizeflow.tasks import notices
from resizeflow.tasks.instance import finish


@dataclass(frozen=True)
class Way:
    """A way to decide, and what it sets at once."""

    action: str
    """Its flow is of that name."""
    status: MigrationStatus
    task_state: TaskState | None


# As Nova sets them; a delete in VERIFY_RESIZE confirms before it deletes.
CONFIRM = Way("confirm", MigrationStatus.CONFIRMING, None)
REMOVE = Way("remove", MigrationStatus.CONFIRMING, TaskState.DELETING)
REVERT = Way("revert", MigrationStatus.REVERTING, TaskState.RESIZE_REVERTING)


def decidable(tx: Transaction, instance: str, way: Way, *, lock: bool = False) -> rules.Decision:
    """What the records say about a request that satisfies the rules. Raises the first rule's error."""
    row = tx.instances.get(instance, lock=lock)
    decision = rules.Decision(way.action, row, tx.jobs.busy(row.id), tx.migrations.open_for(row.id))
    rules.check(decision, rules.DECIDING)
    return decision


def decide(tx: Transaction, instance: str, way: Way, on_crash: OnCrash, *, why: str = "") -> Job:
    """Queues the way's flow, with the states that it begins with. `why` is told in the log if nobody asked for it.
    Raises the error of a rule that is against it, DBDuplicateEntry if another request was faster."""
    decision = decidable(tx, instance, way, lock=True)
    row, migration = decision.instance, decision.resize
    migration.status = way.status
    migration.error = None  # What kept an earlier decision from being carried out is no reason of this one.
    row.task_state = way.task_state
    tx.events.add(migration.id, "state", f"{why or way.action} accepted, status {way.status}")
    job = tx.jobs.create(str(uuid.uuid4()), migration.id, row.id, f"{way.action}_v1", on_crash, why=why)
    notices.begin_decision(tx, migration, job.id)
    return job


def undecidable(tx: Transaction, instance: str) -> rules.Decision:
    """What the records say about a resize that is past its pivot and does not finish. Raises the first rule's error."""
    row = tx.instances.get(instance)
    decision = rules.Decision("revert", row, tx.jobs.busy(row.id), tx.migrations.open_for(row.id))
    rules.check(decision, GIVING_UP)
    return decision


def give_up(tx: Transaction, instance: str) -> None:
    """Ends a resize past its pivot where it is: it counts as finished, so that it can be decided. Its job is done
    although its flow never came to an end; whoever held it before is fenced off. Raises Conflict while a worker does.
    """
    decision = undecidable(tx, instance)
    job = decision.job
    if job is None or not tx.jobs.give_up(job.id):
        raise Conflict(f"a worker holds the resize of {instance}; stop it, or wait until it puts the job down.")
    migration = decision.resize
    migration.discard_writes = True
    # Its CPUs were about to run: a fence from before that is no proof of off (tasks/machine.py).
    migration.resumed_at = migration.resumed_at or job.pivot_at
    finish(tx, migration)
    tx.events.add(
        migration.id,
        "command",
        "the resize is given up past its point of no return and counts as finished: what the machine wrote at its "
        "destination is to be discarded",
    )
