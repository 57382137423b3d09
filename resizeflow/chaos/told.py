"""What others were told of an operation: every phase begun once, ended once, in order, whatever happened."""

from __future__ import annotations

import re
from collections.abc import Mapping

import sqlalchemy as sa

from resizeflow.persistence.models import Notification
from resizeflow.persistence.transaction import Transaction

_SELECT = "scheduler.select_destinations"
_FAILED = "compute_task.migrate_server.error"
_PREP = "instance.exists instance.resize_prep.start"
_GIVEN_UP = "instance.resize.error instance.resize_prep.end"
_HOSTS = rf"{_SELECT}.start {_SELECT}.end {_PREP}( {_GIVEN_UP} {_PREP})*"
_TRANSFER = "instance.resize_prep.end instance.resize.start"
_CONFIRM, _REVERT, _FINISH = "instance.resize_confirm", "instance.resize_revert", "instance.resize_finish"

ALIKE: Mapping[str, str] = {"migrate": "resize", "remove": "confirm"}
"""Operations that tell what another one tells."""
FORWARD: Mapping[str, str] = {
    "resize": f"{_HOSTS} {_TRANSFER} instance.resize.end {_FINISH}.start {_FINISH}.end",
    "confirm": f"{_CONFIRM}.start {_CONFIRM}.end",
    "revert": f"instance.exists {_REVERT}.start {_REVERT}.end",
}
"""By the operation, what is told of one that comes to its end."""
BACK: Mapping[str, str] = {
    "resize": "|".join(
        (
            _FAILED,
            f"{_SELECT}.start {_SELECT}.error {_FAILED}",
            f"{_HOSTS} {_GIVEN_UP} {_FAILED}",
            f"{_HOSTS} {_TRANSFER} instance.resize.error",
            f"{_HOSTS} {_TRANSFER} instance.resize.end( {_FINISH}.start)? {_FINISH}.error",
        )
    ),
    "confirm": f"{_CONFIRM}.start {_CONFIRM}.error",
    "revert": f"instance.exists {_REVERT}.start {_REVERT}.error",
}
"""What is told of one that is undone."""
_AS = {"migrate": "resize", "remove": "confirm"}


def is_told_right(operation: str, told: str, *, went_back: bool) -> bool:
    """Whether event types, in their order, are what an operation tells that has ended so."""
    wanted = (BACK if went_back else FORWARD)[ALIKE.get(operation, operation)]
    return re.fullmatch(wanted.replace(".", r"\."), told) is not None


def told_of(tx: Transaction, migration_id: str, job_id: str) -> str:
    """The event types that a job told, in order."""
    query = sa.select(Notification).where(Notification.migration_id == migration_id).order_by(Notification.seq)
    rows = tx.session.scalars(query).all()
    return " ".join(row.event_type for row in rows if row.payload["nova_object.data"]["request_id"] == job_id)


def numbers_of(tx: Transaction, instance_id: str) -> list[tuple[int, int]]:
    """Of an instance's notifications, as they were written, the number of each and the one in its payload."""
    query = sa.select(Notification).where(Notification.instance_id == instance_id).order_by(Notification.id)
    return [(row.seq, row.payload["nova_object.data"]["sequence"]) for row in tx.session.scalars(query)]
