"""What the resize tells others at its turns, in Nova's order (nova/tests/functional/notification_sample_tests)."""

from __future__ import annotations

from resizeflow.persistence.models import Migration
from resizeflow.persistence.outbox import MIGRATE_SERVER
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import MigrationStatus

PREP = "instance.resize_prep"
SELECT = "scheduler.select_destinations"
TURNED_BACK = "rolled back on request"
DECISION = {
    MigrationStatus.CONFIRMING: "instance.resize_confirm",
    MigrationStatus.REVERTING: "instance.resize_revert",
}


def begin_prep(tx: Transaction, migration: Migration, task: str) -> None:
    """A host is to be prepared."""
    tx.notify("instance.exists", migration, task=task)
    tx.notify(f"{PREP}.start", migration, task=task)


def give_up_prep(tx: Transaction, migration: Migration, task: str, fault: str) -> None:
    """The host that was being prepared is given up: Nova's `finally` sends the end after the error."""
    tx.notify("instance.resize.error", migration, task=task, fault=fault)
    tx.notify(f"{PREP}.end", migration, task=task)


def rolled_back(tx: Transaction, migration: Migration, task: str) -> None:
    """The phase that was open has failed; before the source was touched so has, as in Nova, the conductor's task."""
    fault = migration.error or TURNED_BACK
    phase = tx.outbox.open_phase(migration.id)
    if phase == PREP:
        give_up_prep(tx, migration, task, fault)
    elif phase is not None:
        tx.notify(f"{phase}.error", migration, task=task, fault=fault)
    if phase in (None, SELECT, PREP):
        tx.notify(f"{MIGRATE_SERVER}.error", migration, task=task, fault=fault)


def begin_decision(tx: Transaction, migration: Migration, request_id: str) -> None:
    """A confirm or revert is accepted."""
    if migration.status is MigrationStatus.REVERTING:
        tx.notify("instance.exists", migration, request_id=request_id)
    tx.notify(f"{DECISION[migration.status]}.start", migration, request_id=request_id)


def not_decided(tx: Transaction, migration: Migration, tried: MigrationStatus, task: str) -> None:
    """A confirm or revert that could not begin, or was turned back."""
    tx.notify(f"{DECISION[tried]}.error", migration, task=task, fault=migration.error or TURNED_BACK)
