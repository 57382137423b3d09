"""`resizeflow flavor`: the sizes a machine can have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Command, Lister, ShowOne, one, table

if TYPE_CHECKING:
    from resizeflow.persistence.models import Flavor

COLUMNS = ("name", "vcpus", "ram_mb", "disk_gb", "ephemeral_gb")


def row_of(flavor: Flavor) -> dict[str, Any]:
    """A flavor as it is shown."""
    return {
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram_mb": flavor.memory_mb,
        "disk_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "id": flavor.id,
    }


class FlavorCreate(ShowOne):
    """Make a flavor.

    A flavor is a size: virtual CPUs, memory, root disk, and optionally an ephemeral
    disk. It never changes; to change a size, make another flavor.
    """

    example = "resizeflow flavor create m1.large --vcpus 4 --ram 8192 --disk 40"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--vcpus", type=int, required=True, metavar="N")
        parser.add_argument("--ram", type=int, required=True, metavar="MB", help="memory in MiB")
        parser.add_argument("--disk", type=int, required=True, metavar="GB", help="root disk in GiB")
        parser.add_argument("--ephemeral", type=int, default=0, metavar="GB", help="ephemeral disk in GiB (default: 0)")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        flavor = self.backend.inventory.create_flavor(
            parsed_args.name,
            vcpus=parsed_args.vcpus,
            memory_mb=parsed_args.ram,
            root_gb=parsed_args.disk,
            ephemeral_gb=parsed_args.ephemeral,
        )
        return one(row_of(flavor))


class FlavorList(Lister):
    """List the flavors, the smallest first."""

    example = "resizeflow flavor list -f json"

    def take_action(self, parsed_args: argparse.Namespace) -> Any:  # noqa: ARG002
        with self.backend.database.read() as tx:
            return table([row_of(flavor) for flavor in tx.flavors.list()], COLUMNS)


class FlavorShow(ShowOne):
    """Show a flavor."""

    example = "resizeflow flavor show m1.large"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="its name or id")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        with self.backend.database.read() as tx:
            return one(row_of(tx.flavors.get(parsed_args.name)))


class FlavorDelete(Command):
    """Delete a flavor.

    It can no longer be asked for. Machines that have it keep it, and a resize that
    is under way goes on.
    """

    example = "resizeflow flavor delete m1.large"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="its name or id")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.backend.inventory.delete_flavor(parsed_args.name)
        self.app.stdout.write(f"Flavor {parsed_args.name} is deleted.\n")
