"""`resizeflow aggregate`: hosts with properties in common, and availability zones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lines, Lister, Shown, ShowOne, Telling, one, table
from resizeflow.commands.flavor import property_of

if TYPE_CHECKING:
    from resizeflow.persistence.models import Aggregate
    from resizeflow.persistence.transaction import Transaction

COLUMNS = ("name", "properties", "hosts")


def rows_of(tx: Transaction, *aggregates: Aggregate) -> list[dict[str, Any]]:
    """Aggregates as they are shown."""
    names = {host.id: host.name for host in tx.hosts.list()}
    return [
        {
            "name": aggregate.name,
            "properties": Lines(aggregate.properties),
            "hosts": Lines(sorted(names[member.host_id] for member in aggregate.members)),
        }
        for aggregate in aggregates
    ]


def _property(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--property",
        dest="properties",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="repeatable; availability_zone=Z makes it the zone Z, or a part of it",
    )


class AggregateCreate(ShowOne):
    """Make a host aggregate.

    A flavor with the property aggregate:KEY=VALUE goes only to hosts that are in an aggregate with
    that property. The property availability_zone makes its hosts a zone, to which machines can be
    pinned (`instance set --availability-zone`); a host is in one zone at most.
    """

    example = """
resizeflow aggregate create fast --property ssd=true
resizeflow aggregate create rack-1 --property availability_zone=east
resizeflow aggregate set rack-1 --host h1 --host h2
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        _property(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        properties = dict(property_of(text) for text in parsed_args.properties)
        with self.backend.database.write() as tx:
            return one(rows_of(tx, tx.aggregates.create(parsed_args.name, properties))[0])


class AggregateList(Lister):
    """List the host aggregates."""

    example = "resizeflow aggregate list -f json"

    def take_action(self, parsed_args: argparse.Namespace) -> Any:  # noqa: ARG002
        with self.backend.database.read() as tx:
            return table(rows_of(tx, *tx.aggregates.list()), COLUMNS)


class AggregateShow(ShowOne):
    """Show a host aggregate."""

    example = "resizeflow aggregate show rack-1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.read() as tx:
            return one(rows_of(tx, tx.aggregates.get(parsed_args.name))[0])


class AggregateSet(ShowOne):
    """Change a host aggregate's properties and hosts.

    Refused if a host would be in two availability zones, or a machine outside the one it is pinned to.
    """

    example = """
resizeflow aggregate set rack-1 --host h3 --no-host h1
resizeflow aggregate set fast --property ssd=nvme --no-property tested
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        _property(parser)
        for option, metavar, what in (
            ("--no-property", "KEY", "remove it"),
            ("--host", "H", "take it in"),
            ("--no-host", "H", "take it out"),
        ):
            parser.add_argument(option, action="append", default=[], metavar=metavar, help=f"{what} (repeatable)")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.write() as tx:
            aggregate = tx.aggregates.change(
                parsed_args.name,
                properties=dict(property_of(text) for text in parsed_args.properties),
                no_properties=parsed_args.no_property,
                hosts=[tx.hosts.get(name) for name in parsed_args.host],
                no_hosts=[tx.hosts.get(name) for name in parsed_args.no_host],
            )
            return one(rows_of(tx, aggregate)[0])


class AggregateDelete(Telling):
    """Delete a host aggregate; its hosts stay.

    Refused while a machine on one of its hosts is pinned to its availability zone.
    """

    example = "resizeflow aggregate delete fast"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.write() as tx:
            tx.aggregates.delete(parsed_args.name)
        return self.told(f"Aggregate {parsed_args.name} is deleted.", name=parsed_args.name, result="deleted")
