"""`resizeflow instance`: which machines are managed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Command, Lines, Lister, Maybe, Moment, ShortId, ShowOne, one, table

if TYPE_CHECKING:
    from resizeflow.persistence.models import Instance
    from resizeflow.persistence.transaction import Transaction

COLUMNS = ("name", "id", "project", "host", "flavor", "vm_state", "task_state", "locked")


def row_of(instance: Instance) -> dict[str, Any]:
    """An instance as it is listed."""
    return {
        "name": instance.name,
        "id": ShortId(instance.id),
        "project": instance.project_id,
        "host": instance.host.name,
        "flavor": instance.flavor.name,
        "vm_state": str(instance.vm_state),
        "task_state": Maybe(str(instance.task_state) if instance.task_state else None),
        "locked": instance.locked,
    }


def details_of(tx: Transaction, instance: Instance) -> dict[str, Any]:
    """All of it, with its disks, ports and open migration."""
    migration = tx.migrations.open_for(instance.id)
    return {
        **row_of(instance),
        "id": instance.id,
        "vcpus": instance.flavor.vcpus,
        "ram_mb": instance.flavor.memory_mb,
        "disks": Lines(
            [
                {"device": disk.device, "role": disk.role, "gb": round(disk.capacity / 2**30, 2), "path": disk.path}
                for disk in instance.disks
            ]
        ),
        "ports": Lines([{"mac": port.mac, "bridge": port.bridge} for port in instance.ports]),
        "migration": Maybe(migration.id if migration else None),
        "migration_status": Maybe(str(migration.status) if migration else None),
        "shutdown_timeout": Maybe(instance.shutdown_timeout),
        "created_at": Moment(instance.created_at),
        "launched_at": Moment(instance.launched_at),
    }


class InstanceAdopt(ShowOne):
    """Bring a libvirt domain under management.

    Nothing is changed on the host. The machine gets the flavor of exactly its size, which is made
    if there is none, and is charged to its project's quota. Refused is what could not be moved: a
    domain with snapshots, a managed save image, a host device, or a disk outside the host's pool.
    """

    example = "resizeflow instance adopt h1 web-1 --project web-shop"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="a managed host, by name or UUID")
        parser.add_argument("domain", help="a domain there, by name or UUID")
        parser.add_argument("--project", default="default", help="whose quota it counts for (default: %(default)s)")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        adopted = self.backend.inventory.adopt(parsed_args.host, parsed_args.domain, project=parsed_args.project)
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.instances.get(adopted.id)))


class InstanceList(Lister):
    """List the managed machines."""

    example = "resizeflow instance list --host h1 -c name -f value"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--project", help="only this project's")
        parser.add_argument("--host", help="only those on this host")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend.database.read() as tx:
            host = tx.hosts.get(parsed_args.host).id if parsed_args.host else None
            found = [row for row in tx.instances.list(parsed_args.project) if host in (None, row.host_id)]
            return table([row_of(row) for row in found], COLUMNS)


class InstanceShow(ShowOne):
    """Show a managed machine."""

    example = "resizeflow instance show web-1 -f json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.instances.get(parsed_args.instance)))


class InstanceLock(Command):
    """Lock a machine: it is neither resized, confirmed nor reverted until it is unlocked."""

    example = "resizeflow instance lock web-1"
    locked = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.backend.inventory.lock(parsed_args.instance, self.locked)
        word = "locked" if self.locked else "unlocked"
        self.app.stdout.write(f"Instance {parsed_args.instance} is {word}.\n")


class InstanceUnlock(InstanceLock):
    """Unlock a machine."""

    example = "resizeflow instance unlock web-1"
    locked = False


class InstanceRemove(Command):
    """Forget a machine.

    Its domain and disks stay as they are; its quota and its resources on the host's books
    are given back. Its past migrations stay in the log.
    """

    example = "resizeflow instance remove web-1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.backend.inventory.remove_instance(parsed_args.instance)
        self.app.stdout.write(f"Instance {parsed_args.instance} is no longer managed; its domain was not touched.\n")
