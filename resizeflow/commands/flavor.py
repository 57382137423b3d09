"""`resizeflow flavor`: the sizes a machine can have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lines, Lister, Shown, ShowOne, Telling, one, table
from resizeflow.errors import UsageError

if TYPE_CHECKING:
    from resizeflow.persistence.models import Flavor

COLUMNS = ("name", "vcpus", "ram_mb", "disk_gb", "ephemeral_gb", "swap_mb", "public", "disabled")


def row_of(flavor: Flavor) -> dict[str, Any]:
    """A flavor as a list shows it."""
    return {
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram_mb": flavor.memory_mb,
        "disk_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "swap_mb": flavor.swap_mb,
        "public": flavor.is_public,
        "disabled": flavor.disabled,
    }


def details_of(flavor: Flavor) -> dict[str, Any]:
    """All of a flavor."""
    from resizeflow.persistence.flavors import projects_of  # noqa: PLC0415 - not needed for help

    return {
        **row_of(flavor),
        "properties": Lines(dict(flavor.extra_specs)),
        "projects": Lines(projects_of(flavor)),
        "id": flavor.id,
    }


def property_of(text: str) -> tuple[str, str]:
    """`KEY=VALUE`; the key may contain colons. Raises UsageError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"Property {text!r} is not of the form KEY=VALUE.")
    return key, value


class FlavorCreate(ShowOne):
    """Make a flavor.

    A flavor is a size: virtual CPUs, memory, root disk, and optionally an ephemeral disk and swap. It
    never changes; to change a size, make another flavor. Properties say what a host must be like:
    trait:NAME=required or forbidden, aggregate:PROPERTY=VALUE. A private flavor is for the projects
    that it is granted to.
    """

    example = """
resizeflow flavor create m1.large --vcpus 4 --ram 8192 --disk 40
resizeflow flavor create db.large --vcpus 8 --ram 32768 --disk 100 --swap 4096 --property trait:CUSTOM_SSD=required
resizeflow flavor create shop.large --vcpus 4 --ram 8192 --disk 40 --private
resizeflow flavor set shop.large --project shop
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--vcpus", type=int, required=True, metavar="N")
        parser.add_argument("--ram", type=int, required=True, metavar="MB", help="memory in MiB")
        parser.add_argument("--disk", type=int, required=True, metavar="GB", help="root disk in GiB")
        parser.add_argument("--ephemeral", type=int, default=0, metavar="GB", help="ephemeral disk in GiB (default: 0)")
        parser.add_argument("--swap", type=int, default=0, metavar="MB", help="swap disk in MiB (default: 0)")
        parser.add_argument(
            "--property",
            dest="properties",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="what a host must be like; may be repeated",
        )
        parser.add_argument("--private", action="store_true", help="only for projects that it is granted to")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        flavor = self.backend.inventory.create_flavor(
            parsed_args.name,
            vcpus=parsed_args.vcpus,
            memory_mb=parsed_args.ram,
            root_gb=parsed_args.disk,
            ephemeral_gb=parsed_args.ephemeral,
            swap_mb=parsed_args.swap,
            extra_specs=dict(property_of(text) for text in parsed_args.properties),
            is_public=not parsed_args.private,
        )
        return one(details_of(flavor))


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

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.read() as tx:
            return one(details_of(tx.flavors.get(parsed_args.name)))


class FlavorSet(ShowOne):
    """Change who may ask for a flavor.

    A private flavor is granted to projects, or withdrawn from them. A disabled flavor cannot be resized
    to; machines that have it keep it, and may be migrated.
    """

    example = """
resizeflow flavor set shop.large --project shop --no-project default
resizeflow flavor set m1.huge --disable
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="its name or id")
        switch = parser.add_mutually_exclusive_group()
        switch.add_argument("--enable", dest="disabled", action="store_false", default=None)
        switch.add_argument("--disable", dest="disabled", action="store_true", default=None)
        parser.add_argument(
            "--project", dest="grant", action="append", default=[], metavar="P", help="may use it; may be repeated"
        )
        parser.add_argument(
            "--no-project", dest="withdraw", action="append", default=[], metavar="P", help="may no longer use it"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        if parsed_args.disabled is None and not parsed_args.grant and not parsed_args.withdraw:
            raise UsageError("Nothing to set: give --enable, --disable, --project or --no-project.")
        flavor = self.backend.inventory.set_flavor(
            parsed_args.name,
            disabled=parsed_args.disabled,
            grant=parsed_args.grant,
            withdraw=parsed_args.withdraw,
        )
        return one(details_of(flavor))


class FlavorDelete(Telling):
    """Delete a flavor.

    It can no longer be asked for. Machines that have it keep it, and a resize that
    is under way goes on.
    """

    example = "resizeflow flavor delete m1.large"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="its name or id")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        self.backend.inventory.delete_flavor(parsed_args.name)
        return self.told(f"Flavor {parsed_args.name} is deleted.", name=parsed_args.name, result="deleted")
