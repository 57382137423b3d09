"""`resizeflow instance`: which machines are managed."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lines, Lister, Maybe, Moment, ShortId, Shown, ShowOne, Telling, one, table
from resizeflow.commands.moving import RESULT, Acting
from resizeflow.drivers.bridge import VLANS

if TYPE_CHECKING:
    from resizeflow.persistence.models import Instance
    from resizeflow.persistence.transaction import Transaction

COLUMNS = ("name", "id", "project", "host", "flavor", "vm_state", "task_state", "locked")
VLAN = re.compile(r"((?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2})=([0-9]{1,4})")
SETTABLE = frozenset({"shutdown_timeout", "group_name", "availability_zone"})


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
    """All of it, with its disks, volumes, ports and open migration."""
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
        "volumes": Lines(
            [
                {
                    "device": volume.device,
                    "volume": volume.volume_id,
                    "gb": volume.size_gb,
                    "attachment": volume.attachment_id,
                }
                for volume in instance.volumes
            ]
        ),
        "volume_backed": instance.volume_backed,
        "ports": Lines(
            [
                {"mac": port.mac, "bridge": port.bridge, "vlan": port.vlan, "port": port.port_id}
                for port in instance.ports
            ]
        ),
        "migration": Maybe(migration.id if migration else None),
        "migration_status": Maybe(str(migration.status) if migration else None),
        "shutdown_timeout": Maybe(instance.shutdown_timeout),
        "availability_zone": Maybe(instance.availability_zone),
        "group": Maybe(instance.group_name),
        "created_at": Moment(instance.created_at),
        "launched_at": Moment(instance.launched_at),
    }


def _vlan(text: str) -> tuple[str, int]:
    """A MAC and a VLAN, of an option."""
    found = VLAN.fullmatch(text)
    if found is None or int(found[2]) not in VLANS:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no MAC=VID, as 52:54:00:12:34:56=10 (VLANs are 1 to {VLANS[-1]})"
        )
    return found[1].lower(), int(found[2])


class InstanceAdopt(ShowOne):
    """Bring a libvirt domain under management.

    Nothing is changed on the host. The machine gets the flavor of exactly its size, which is made
    if there is none, and is charged to its project's quota. Refused is what could not be moved: a
    domain with snapshots, a managed save image, a host device, a disk outside the host's pool that
    is no Cinder volume either, a volume that is not simply in use, a NIC that is on no bridge, or a
    port of Neutron's that is bound elsewhere.
    """

    example = "resizeflow instance adopt h1 web-1 --project web-shop"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="a managed host, by name or UUID")
        parser.add_argument("domain", help="a domain there, by name or UUID")
        parser.add_argument("--project", default="default", help="whose quota it counts for (default: %(default)s)")
        parser.add_argument("--swap", metavar="DEVICE", help="the disk that is swap space (vdb): never copied")
        vlan = "the VLAN of a NIC on a bridge that filters them (repeatable); of a machine that runs it is read"
        parser.add_argument("--vlan", action="append", default=[], metavar="MAC=VID", type=_vlan, help=vlan)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        adopted = self.backend.inventory.adopt(
            parsed_args.host,
            parsed_args.domain,
            project=parsed_args.project,
            swap=parsed_args.swap,
            vlans=dict(parsed_args.vlan),
        )
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

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.instances.get(parsed_args.instance)))

    def run(self, parsed_args: argparse.Namespace) -> int:
        code: int = super().run(parsed_args)
        if parsed_args.formatter == "table":
            words = shlex.join(["resizeflow", "migration", "list", "--instance", parsed_args.instance])
            self.app.stdout.write(f"`{words}` lists its migrations, and how they ended.\n")
        return code


class InstanceSet(ShowOne):
    """Change what a machine's moves depend on.

    Its own shutdown timeout holds wherever it is shut down: by a resize, and on the destination by a
    revert. Group and zone are obeyed by the scheduler; they can be changed between two moves.
    """

    example = """
resizeflow instance set db-1 --shutdown-timeout 300
resizeflow instance set web-2 --group web --no-availability-zone
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")
        timeout = "how long it may take to shut down cleanly, else it is powered off"
        _either(parser, "shutdown-timeout", timeout, dest="shutdown_timeout", metavar="SECONDS", type=float)
        _either(parser, "group", "the server group that it is a member of", dest="group_name", metavar="G")
        _either(parser, "availability-zone", "the zone that it stays in", dest="availability_zone", metavar="Z")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        changes = {name: value for name, value in vars(parsed_args).items() if name in SETTABLE}
        changed = self.backend.inventory.set_instance(parsed_args.instance, **changes)
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.instances.get(changed.id)))


def _either(parser: argparse.ArgumentParser, option: str, text: str, *, dest: str, **how: Any) -> None:
    """An option that gives a column a value, and its opposite; what is not asked for is not in the result."""
    pair = parser.add_mutually_exclusive_group()
    pair.add_argument(f"--{option}", dest=dest, default=argparse.SUPPRESS, help=text, **how)
    pair.add_argument(f"--no-{option}", dest=dest, default=argparse.SUPPRESS, action="store_const", const=None)


class InstanceLock(Telling):
    """Lock a machine: it is neither resized, confirmed, reverted nor removed until it is unlocked."""

    example = "resizeflow instance lock web-1"
    locked = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        name = parsed_args.instance
        self.backend.inventory.lock(name, self.locked)
        word = "locked" if self.locked else "unlocked"
        return self.told(f"Instance {name} is {word}.", name=name, locked=self.locked)


class InstanceUnlock(InstanceLock):
    """Unlock a machine."""

    example = "resizeflow instance unlock web-1"
    locked = False


class InstanceRemove(Acting):
    """Forget a machine.

    Its domain and disks stay as they are; its quota and its resources on the host's books
    are given back. Its past migrations stay in the log. A machine that is resized is confirmed
    first, which removes the way back; a resize in flight has to end or to be rolled back before.
    """

    example = "resizeflow instance remove web-1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")
        super().arguments(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        submitted, name = self.backend.service.remove(parsed_args.instance), parsed_args.instance
        if submitted is not None:
            return self.see_through(submitted, parsed_args)
        sentence = f"Instance {name} is no longer managed; its domain was not touched."
        nothing = dict.fromkeys(RESULT)
        return self.told(sentence, **nothing | {"instance": name, "message": sentence, "exit_code": 0})
