"""`resizeflow quota`: what a project may use."""

from __future__ import annotations

import argparse
from typing import Any

from resizeflow.commands.base import Lister
from resizeflow.errors import UsageError

RESOURCES = {
    "instances": "machines",
    "cores": "virtual CPUs",
    "ram": "memory in MiB",
    "gigabytes": "local disk in GiB",
}
COLUMNS = ("resource", "limit", "in_use", "reserved")


class QuotaShow(Lister):
    """Show a project's limits and what it uses of them.

    A limit of -1 is none. "reserved" is what resizes under way may still need.
    """

    example = "resizeflow quota show web-shop"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("project", nargs="?", default="default", help="default: %(default)s")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        found = self.backend.inventory.quotas(parsed_args.project)
        return COLUMNS, [(quota.resource, quota.limit, quota.in_use, quota.reserved) for quota in found]


class QuotaSet(QuotaShow):
    """Set a project's limits.

    They replace the defaults of the configuration for this project; -1 is no limit.
    A limit below what is in use stops growth and takes nothing away.
    """

    example = "resizeflow quota set web-shop --cores 64 --ram 131072"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("project")
        for name, what in RESOURCES.items():
            parser.add_argument(f"--{name}", type=int, metavar="N", help=what)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        limits = {name: value for name in RESOURCES if (value := getattr(parsed_args, name)) is not None}
        if not limits:
            raise UsageError(f"Nothing to set: give at least one of --{', --'.join(RESOURCES)}.")
        self.backend.inventory.set_quota(parsed_args.project, limits)
        return super().take_action(parsed_args)
