"""The command line: python -m lab."""

import argparse
import json
import sys
from typing import Any

from lab.accelerator import accelerator
from lab.attachment import VolumeSpec
from lab.cinder import TYPES
from lab.domain import DiskSpec
from lab.guest import Guest, guest_names
from lab.image import build_image
from lab.lab import Lab, remove_images
from lab.paths import ROOT, lab_names
from lab.system import LabError, locked, require_root

DESCRIPTION = "A fleet of real libvirt hosts on this one machine, with guests that can say what they are."

EXAMPLES = """\
examples:
  python -m lab up --hosts 2                 two hosts, h1 and h2
  python -m lab guest create h1 web --start  a guest on h1
  python -m lab guest report web --wait 30   ask the guest what it is
  python -m lab up --volumes                 the same with storage for volumes
  virsh -c "$(python -m lab uri h1)" list    look at a host with virsh
  python -m lab down                         leave nothing behind
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; trouble that can be foreseen is one sentence and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        require_root()
        options.run(options)
    except LabError as trouble:
        print(f"lab: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; 'up' again repairs, 'down' removes", file=sys.stderr)
        return 130
    return 0


def up(options: argparse.Namespace) -> None:
    """Build or repair a lab and show it."""
    Lab(options.name).up(
        hosts=options.hosts, pool_size=options.pool_size, volumes=options.volumes, vlans=options.vlans
    )  # fmt: skip
    status(options)


def status(options: argparse.Namespace) -> None:
    """Show the hosts of a lab."""
    lab = Lab(options.name)
    found = lab.status()
    if options.format == "json":
        print(json.dumps(found, indent=2))
        return
    if not lab.exists():
        print(f"lab '{lab.name}' is not up")
        return
    print(f"lab '{lab.name}', guests run on {found['accelerator']}")
    _table(found["hosts"], ["name", "state", "link", "address", "machines", "uri"])
    if found["volumes"]:
        print(f"Cinder answers at {found['volumes']}")


def down(options: argparse.Namespace) -> None:
    """Take down one lab, or all of them, and say what could not be removed."""
    if options.images and not options.all:
        raise LabError("--images removes what all labs share: give --all with it")
    troubles = []
    for name in lab_names() if options.all else [options.name]:
        try:
            Lab(name).down()
        except LabError as trouble:
            troubles.append(str(trouble))
    if troubles:
        raise LabError("; ".join(troubles))
    if options.images:
        remove_images()


def prepare(_: argparse.Namespace) -> None:
    """Build the image and probe the accelerator, so that the first `up` is quick and needs no network."""
    with locked(ROOT):
        built = build_image()
        print(f"kernel {built.kernel}\ninitrd {built.initrd}\naccelerator {accelerator(built)}")


def uri(options: argparse.Namespace) -> None:
    """Print where a host's libvirtd is reached."""
    print(Lab(options.name).host(options.host).uri)


def volumes(options: argparse.Namespace) -> None:
    """Print where Cinder is reached, and what a client of Ceph needs."""
    storage = Lab(options.name).volumes
    told = {
        "endpoint": storage.cinder.endpoint,
        "endpoint within the lab": storage.cinder.lab_endpoint,
        "types": ", ".join(TYPES),
        "Ceph's configuration": storage.ceph.conf,
        "iSCSI portal": storage.targets.portal,
        "NFS share": storage.exports.share,
    }
    if options.format == "json":
        print(json.dumps({name: str(value) for name, value in told.items()}, indent=2))
    else:
        _table([{"name": name, "value": value} for name, value in told.items()], ["name", "value"])


def guest_create(options: argparse.Namespace) -> None:
    """Make a guest on a host."""
    lab = Lab(options.name)
    disks = [DiskSpec.parse(text) for text in options.disk or ["1G:qcow2"] if text != "none"]
    made = [VolumeSpec.parse(text) for text in options.volume]
    guest = Guest(lab, options.guest).create(
        lab.host(options.host), vcpus=options.vcpus, memory_mb=options.memory_mb, disks=disks,
        volumes=made, start=options.start, ip=options.ip,
    )  # fmt: skip
    print(f"{guest.name} {guest.uuid} {guest.ip} {guest.mac}")


def guest_report(options: argparse.Namespace) -> None:
    """Print the newest boot report of a guest."""
    guest = Guest(Lab(options.name), options.guest)
    _ = guest.facts  # an unknown guest is told apart from a silent one
    print(json.dumps(guest.wait_report(boots=options.boots, timeout=options.wait), indent=2))


def guest_list(options: argparse.Namespace) -> None:
    """List the guests and where they are defined."""
    lab = Lab(options.name)
    rows = []
    for name in guest_names(lab):
        guest = Guest(lab, name)
        where = ", ".join(f"{host}: {state}" for host, state in guest.states().items())
        rows.append({"name": name, "ip": guest.ip, "mac": guest.mac, "uuid": guest.uuid, "hosts": where})
    if options.format == "json":
        print(json.dumps(rows, indent=2))
    else:
        _table(rows, ["name", "ip", "mac", "uuid", "hosts"])


def _table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    lines = [columns, *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab", description=DESCRIPTION, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--name", default="default", help="the lab's name (default: %(default)s)")
    shown = argparse.ArgumentParser(add_help=False, parents=[shared])
    shown.add_argument("-f", "--format", choices=["table", "json"], default="table")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", parents=[shown], help="build a lab, or repair it")
    command.add_argument("--hosts", type=int, default=2, help="how many hosts (default: %(default)s)")
    command.add_argument("--pool-size", metavar="SIZE", help="limit each host's pool, such as 3G (in memory)")
    command.add_argument("--volumes", action="store_true", help="and storage: Cinder with RBD, iSCSI and NFS volumes")
    command.add_argument("--vlans", action="store_true", help="and bridges that filter VLANs")
    command.set_defaults(run=up)

    command = commands.add_parser("status", parents=[shown], help="show a lab's hosts")
    command.set_defaults(run=status)

    command = commands.add_parser("down", parents=[shared], help="remove a lab and all it made")
    command.add_argument("--all", action="store_true", help="every lab on this machine")
    command.add_argument("--images", action="store_true", help="with --all: the guest's image as well")
    command.set_defaults(run=down)

    command = commands.add_parser("prepare", help="build the guest's image and probe the accelerator")
    command.set_defaults(run=prepare)

    command = commands.add_parser("uri", parents=[shared], help="print a host's libvirt URI")
    command.add_argument("host")
    command.set_defaults(run=uri)

    command = commands.add_parser("volumes", parents=[shown], help="print where Cinder is reached")
    command.set_defaults(run=volumes)

    _add_guest_commands(commands.add_parser("guest", help="make guests and ask them"), shared, shown)
    return parser


def _add_guest_commands(
    parser: argparse.ArgumentParser, shared: argparse.ArgumentParser, shown: argparse.ArgumentParser
) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("create", parents=[shared], help="make a guest on a host")
    command.add_argument("host")
    command.add_argument("guest")
    command.add_argument("--vcpus", type=int, default=1)
    command.add_argument("--memory-mb", type=int, default=256)
    command.add_argument(
        "--disk", action="append", metavar="SIZE:FORMAT", help="such as 1G:raw; repeatable; none: no disk"
    )
    command.add_argument(
        "--volume", action="append", default=[], metavar="TYPE:SIZE", help="such as rbd:1G, made in Cinder; repeatable"
    )
    command.add_argument("--ip", help="its address (default: the next free one)")
    command.add_argument("--start", action="store_true", help="start it as well")
    command.set_defaults(run=guest_create)

    command = commands.add_parser("report", parents=[shared], help="print a guest's newest boot report")
    command.add_argument("guest")
    command.add_argument("--boots", type=int, default=1, help="wait for this boot (default: %(default)s)")
    command.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="how long to wait for it")
    command.set_defaults(run=guest_report)

    command = commands.add_parser("list", parents=[shown], help="list guests and where they are defined")
    command.set_defaults(run=guest_list)


if __name__ == "__main__":
    sys.exit(main())
