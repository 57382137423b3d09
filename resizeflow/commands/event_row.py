"""A line of the event log as lists show it, whichever of its columns they want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Maybe, Moment, ShortId

if TYPE_CHECKING:
    from resizeflow.persistence.models import Event


def row_of(event: Event) -> dict[str, Any]:
    """All of its columns, by their names on the command line."""
    return {
        "seq": event.seq,
        "time": Moment(event.at),
        "instance": Maybe(event.instance),
        "instance_id": Maybe(event.instance_id),
        "migration": ShortId(event.migration_id),
        "project": Maybe(event.project_id),
        "epoch": event.epoch,
        "worker": Maybe(event.worker),
        "task": Maybe(event.task),
        "kind": event.kind,
        "text": event.text,
        "transition": Maybe(event.transition),
        "seconds": Maybe(event.seconds),
        "outcome": Maybe(event.outcome),
        "host": Maybe(event.host),
        "error": Maybe(event.error),
        "next_action": Maybe(event.next_action),
        "asked_by": Maybe(event.asked_by),
        "asked_from": Maybe(event.asked_from),
        "request_id": Maybe(event.request_id),
        "data": event.data,
        "chain": event.chain,
    }
