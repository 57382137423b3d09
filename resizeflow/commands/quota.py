"""`resizeflow quota`: what a project may use."""

from __future__ import annotations

import argparse
from typing import Any

from resizeflow.commands.base import Lister, Maybe, ShortId
from resizeflow.errors import UsageError

RESOURCES = {
    "instances": "machines",
    "cores": "virtual CPUs",
    "ram": "memory in MiB",
    "gigabytes": "local disk in GiB",
}


def _whose(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The project or quota class that limits are of."""
    whose = parser.add_mutually_exclusive_group(required=required)
    whose.add_argument(
        "project", nargs="?", default=None if required else "default", help=None if required else "default: %(default)s"
    )
    whose.add_argument(
        "--class",
        dest="quota_class",
        choices=["default"],
        help="instead of a project's: what holds for all projects without limits of their own",
    )


class QuotaShow(Lister):
    """Show a project's limits and what it uses of them.

    A limit of -1 is none. It is the project's own, else that of quota class "default", else the
    configured one; limit_from says which. "reserved" is what resizes under way may still need.
    """

    example = """
resizeflow quota show web-shop
resizeflow quota show --class default
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        _whose(parser, required=False)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        inventory = self.backend.inventory
        if parsed_args.quota_class:
            return ("resource", "limit", "limit_from"), [(name, *inventory.class_limits()[name]) for name in RESOURCES]
        return ("resource", "limit", "in_use", "reserved", "limit_from"), [
            (quota.resource, quota.limit, quota.in_use, quota.reserved, quota.limit_from)
            for quota in inventory.quotas(parsed_args.project)
        ]


class QuotaSet(QuotaShow):
    """Set limits of a project, or of all projects without limits of their own.

    -1 is no limit. A limit below what is in use stops growth and takes nothing away.
    """

    example = """
resizeflow quota set web-shop --cores 64 --ram 131072
resizeflow quota set --class default --instances 10
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        _whose(parser, required=True)
        for name, what in RESOURCES.items():
            parser.add_argument(f"--{name}", type=int, metavar="N", help=what)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        limits = {name: value for name in RESOURCES if (value := getattr(parsed_args, name)) is not None}
        if not limits:
            raise UsageError(f"Nothing to set: give at least one of --{', --'.join(RESOURCES)}.")
        self.backend.inventory.set_quota(parsed_args.project, limits)
        return super().take_action(parsed_args)


class QuotaDelete(QuotaShow):
    """Take limits away that were set for a project, or for quota class "default".

    All of them, or only those named. The next in line is in force again: see `quota show`.
    """

    example = """
resizeflow quota delete web-shop
resizeflow quota delete web-shop --cores
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        _whose(parser, required=True)
        for name, what in RESOURCES.items():
            parser.add_argument(f"--{name}", action="store_true", help=f"the limit of {what}")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        named = [name for name in RESOURCES if getattr(parsed_args, name)]
        self.backend.inventory.delete_quota(parsed_args.project, named or list(RESOURCES))
        return super().take_action(parsed_args)


class QuotaSync(Lister):
    """Recount what projects use and have reserved, and set the records right.

    Counts the machines and the resizes under way, lists what the records had drifted from, and sets
    that right in one transaction; a reservation that no resize needs is released. Workers may go on.
    """

    example = """
resizeflow quota sync --dry-run
resizeflow quota sync web-shop
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("project", nargs="?", help="default: every project")
        parser.add_argument("--dry-run", action="store_true", help="only list it")

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        if not self._drifts:
            self.app.stderr.write("Nothing has drifted.\n")
        return 0

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        self._drifts = self.backend.inventory.sync_quotas(parsed_args.project, dry_run=parsed_args.dry_run)
        return ("project", "resource", "counter", "migration", "recorded", "counted"), [
            (
                entry.project_id,
                entry.resource,
                entry.counter,
                ShortId(entry.migration_id) if entry.migration_id else Maybe(None),
                recorded,
                counted,
            )
            for entry, recorded, counted in self._drifts
        ]
