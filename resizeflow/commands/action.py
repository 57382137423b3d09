"""`resizeflow instance event`: what was asked for a machine and how it went, as Nova's `server event` shows it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lines, Lister, Maybe, Moment, ShortId, Shown, ShowOne, one, table

if TYPE_CHECKING:
    from resizeflow.actions import Action, ActionEvent

COLUMNS = ("request_id", "action", "start_time", "result", "message")


def row_of(action: Action) -> dict[str, Any]:
    """An action as it is listed."""
    return {
        "request_id": ShortId(action.job.id),
        "action": action.name,
        "start_time": Moment(action.job.created_at),
        "result": Maybe(action.result),
        "message": Maybe(action.migration.error if action.result == "Error" else action.job.reason),
    }


def _told(event: ActionEvent) -> dict[str, Any]:
    return {
        "event": event.event,
        "start_time": event.start.isoformat(),
        "finish_time": event.finish.isoformat() if event.finish else None,
        "result": event.result,
        "host": event.host,
        "details": event.details,
    }


class InstanceEventList(Lister):
    """List what was asked for a machine: its resizes, migrations, confirms and reverts, the latest first."""

    example = "resizeflow instance event list web-1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID; also of one that is managed no more")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from resizeflow.actions import actions_of  # noqa: PLC0415 - TaskFlow is not needed for help

        with self.backend.database.read() as tx:
            return table([row_of(action) for action in actions_of(tx, parsed_args.instance)], COLUMNS)


class InstanceEventShow(ShowOne):
    """Show one request for a machine with its events, by Nova's names.

    Every event of a request that is done has a finish time, also if workers died meanwhile. There are none
    once its log has gone into an archive (`audit prune`).
    """

    example = "resizeflow instance event show web-1 5b7c -f json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID; also of one that is managed no more")
        parser.add_argument("request", help="the request's id, or the beginning of it")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        from resizeflow.actions import action_of, events_of  # noqa: PLC0415 - as above

        with self.backend.database.read() as tx:
            action = action_of(tx, parsed_args.instance, parsed_args.request)
            return one(
                {
                    **row_of(action),
                    "request_id": action.job.id,
                    "instance": action.migration.instance_name,
                    "instance_id": action.migration.instance_id,
                    "project": action.migration.project_id,
                    "migration": action.migration.id,
                    "events": Lines([_told(event) for event in events_of(tx, action)]),
                }
            )
