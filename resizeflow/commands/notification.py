"""`resizeflow notification`: what others were told, or are still to be told."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lines, Lister, Maybe, Moment, ShortId, Shown, ShowOne, one, table
from resizeflow.runbook import NOT_SENT, command_for

if TYPE_CHECKING:
    from resizeflow.persistence.models import Notification
    from resizeflow.persistence.transaction import Transaction

COLUMNS = ("message_id", "instance", "sequence", "event_type", "state", "created_at", "sent_at")


def row_of(row: Notification, name: str) -> dict[str, Any]:
    """A notification as it is listed."""
    waiting = "unsent" if row.wanted else "recorded"
    return {
        "message_id": ShortId(row.message_id),
        "instance": name,
        "sequence": row.seq,
        "event_type": row.event_type,
        "state": "sent" if row.sent_at else waiting,
        "created_at": Moment(row.created_at),
        "sent_at": Moment(row.sent_at),
    }


def _name(tx: Transaction, instance_id: str) -> str:
    instance = tx.instances.find(instance_id)
    return instance.name if instance else instance_id


class NotificationList(Lister):
    """List notifications, the latest first.

    `unsent` are those that wait for the broker; `recorded` were written while there was no
    [notifications] transport_url, and are never sent. If nothing can be sent, the reason follows.
    """

    example = """
resizeflow notification list --instance web-1
resizeflow notification list --unsent
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--instance", help="only this machine's, by name or UUID")
        parser.add_argument("--unsent", action="store_true", help="only those that wait to be sent")
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="at most (default: %(default)s)")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend.database.read() as tx:
            instance = tx.instances.find(parsed_args.instance) if parsed_args.instance else None
            found = tx.outbox.list(
                instance.id if instance else parsed_args.instance, parsed_args.limit, unsent=parsed_args.unsent
            )
            names = {key: _name(tx, key) for key in {row.instance_id for row in found}}
            state = tx.delivery.state()
        if state is not None and state.failing_since is not None:
            since = f"{state.failing_since.astimezone():%Y-%m-%d %H:%M:%S}"
            hint = command_for(NOT_SENT)
            self.app.stderr.write(f"Nothing can be sent since {since}: {state.error}.\n  What to do: {hint}\n")
        return table([row_of(row, names[row.instance_id]) for row in found], COLUMNS)


class NotificationShow(ShowOne):
    """Show a notification with its payload."""

    example = "resizeflow notification show 5b7c -f json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("message", help="its message id, or the beginning of it")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.read() as tx:
            row = tx.outbox.get(parsed_args.message)
            return one(
                {
                    **row_of(row, _name(tx, row.instance_id)),
                    "message_id": row.message_id,
                    "instance_id": row.instance_id,
                    "migration": Maybe(row.migration_id),
                    "priority": row.priority,
                    "payload": Lines(row.payload),
                }
            )
