"""`resizeflow group`: machines that are to be on one host, or on different ones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lines, Lister, Shown, ShowOne, Telling, one, table

if TYPE_CHECKING:
    from resizeflow.persistence.models import ServerGroup
    from resizeflow.persistence.transaction import Transaction

COLUMNS = ("name", "policy", "project")


def row_of(group: ServerGroup) -> dict[str, Any]:
    """A server group as it is listed."""
    return {"name": group.name, "policy": group.policy, "project": group.project_id}


def details_of(tx: Transaction, group: ServerGroup) -> dict[str, Any]:
    """All of it, with its members and the host of each."""
    return {
        **row_of(group),
        "members": Lines({member.name: member.host.name for member in tx.groups.members(group.name)}),
    }


class GroupCreate(ShowOne):
    """Make a server group.

    Its members, machines of one project, are kept on one host (affinity) or on different ones
    (anti-affinity) by every resize and migration. `instance set --group` makes a machine a member.
    """

    example = """
resizeflow group create db --policy anti-affinity --project shop
resizeflow instance set db-1 --group db
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--policy", required=True, choices=["affinity", "anti-affinity"])
        parser.add_argument("--project", default="default", metavar="P", help="default: %(default)s")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.write() as tx:
            return one(row_of(tx.groups.create(parsed_args.name, parsed_args.policy, parsed_args.project)))


class GroupList(Lister):
    """List the server groups."""

    example = "resizeflow group list"

    def take_action(self, parsed_args: argparse.Namespace) -> Any:  # noqa: ARG002
        with self.backend.database.read() as tx:
            return table([row_of(group) for group in tx.groups.list()], COLUMNS)


class GroupShow(ShowOne):
    """Show a server group, its members and their hosts."""

    example = "resizeflow group show db"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.groups.get(parsed_args.name)))


class GroupDelete(Telling):
    """Delete a server group that has no members."""

    example = "resizeflow group delete db"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.write() as tx:
            tx.groups.delete(parsed_args.name)
        return self.told(f"Server group {parsed_args.name} is deleted.", name=parsed_args.name, result="deleted")
