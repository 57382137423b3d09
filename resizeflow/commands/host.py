"""`resizeflow host`: the libvirt hosts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Lines, Lister, Maybe, Moment, ShortId, Shown, ShowOne, Telling, one, table
from resizeflow.errors import Conflict

if TYPE_CHECKING:
    from resizeflow.persistence.models import Host
    from resizeflow.persistence.transaction import Transaction

COLUMNS = ("name", "state", "vcpus", "ram_mb", "disk_gb", "uri")
LIMITS = {
    "cpu_ratio": "virtual CPUs per CPU of the host",
    "ram_ratio": "memory of guests per memory of the host",
    "disk_ratio": "disks of guests per size of the pool",
}


def row_of(host: Host) -> dict[str, Any]:
    """A host as it is listed."""
    return {
        "name": host.name,
        "state": _state(host),
        "vcpus": f"{host.used_vcpus}/{host.vcpus * host.cpu_ratio:g}",
        "ram_mb": f"{host.used_memory_mb}/{host.memory_mb * host.ram_ratio - host.reserved_memory_mb:g}",
        "disk_gb": f"{host.used_disk_gb}/{host.disk_gb * host.disk_ratio:g}",
        "uri": host.uri,
    }


def _state(host: Host) -> str:
    if host.fenced_at:
        return "fenced"
    return "enabled" if host.enabled else "disabled"


def details_of(tx: Transaction, host: Host) -> dict[str, Any]:
    """All of it, with what is on it by our records."""
    return {
        "name": host.name,
        "id": host.id,
        "state": _state(host),
        "disabled_reason": Maybe(host.disabled_reason),
        "fenced_at": Moment(host.fenced_at),
        "uri": host.uri,
        "peer_uri": Maybe(host.peer_uri),
        "data_uri": Maybe(host.data_uri),
        "shell": Maybe(host.shell),
        "pool": host.pool,
        "availability_zone": Maybe(tx.aggregates.zones().get(host.id)),
        "aggregates": Lines([row.name for row in tx.aggregates.list() if host.id in {m.host_id for m in row.members}]),
        "traits": Lines(host.traits),
        "max_moves": host.max_moves,
        "vcpus": host.vcpus,
        "used_vcpus": host.used_vcpus,
        "cpu_ratio": host.cpu_ratio,
        "ram_mb": host.memory_mb,
        "used_ram_mb": host.used_memory_mb,
        "ram_ratio": host.ram_ratio,
        "reserved_memory_mb": host.reserved_memory_mb,
        "disk_gb": host.disk_gb,
        "used_disk_gb": host.used_disk_gb,
        "disk_ratio": host.disk_ratio,
        "instances": Lines([row.name for row in tx.instances.list() if row.host_id == host.id]),
        "debts": Lines(
            [
                {"kind": debt.kind, "object": debt.object, "migration": debt.migration_id}
                for debt in tx.debts.open(host.id)
            ]
        ),
    }


def _limits(parser: argparse.ArgumentParser) -> None:
    for name, what in LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="X", help=what)
    parser.add_argument("--reserved-memory-mb", type=int, metavar="MB", help="memory kept for the host itself")
    parser.add_argument("--max-moves", type=int, metavar="N", help="transfers from or to it at the same time")


def _shell(parser: argparse.ArgumentParser) -> None:
    text = "words before a command that run it there, for VLANs of bridges, as 'ssh root@h1'"
    parser.add_argument("--shell", metavar="WORDS", help=text)


def _given(parsed_args: argparse.Namespace, *names: str) -> dict[str, Any]:
    found = {name: getattr(parsed_args, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


class HostAdd(ShowOne):
    """Bring a libvirt host under management.

    It must answer: its UUID, CPUs, memory and pool are read from it. The peer URI is how other
    hosts reach its libvirtd for host-to-host transfers; without one, disks go through the worker.
    """

    example = """
resizeflow host add h1 qemu+tls://h1.example.org/system --peer-uri qemu+tls://h1.example.org/system
resizeflow host add h2 qemu+ssh://root@h2.example.org/system --pool images --cpu-ratio 8
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("uri", help="libvirt URI by which workers reach it")
        parser.add_argument(
            "--pool", default="default", help="storage pool of its guests' disks (default: %(default)s)"
        )
        parser.add_argument("--peer-uri", metavar="URI", help="libvirt URI by which other hosts reach it")
        parser.add_argument("--data-uri", metavar="URI", help="where it takes a transfer's data, as tcp://10.0.0.2")
        _shell(parser)
        parser.add_argument("--trait", action="append", default=[], metavar="T", help="that it has (repeatable)")
        _limits(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        host = self.backend.inventory.add_host(
            parsed_args.name,
            parsed_args.uri,
            pool=parsed_args.pool,
            peer_uri=parsed_args.peer_uri,
            data_uri=parsed_args.data_uri,
            shell=parsed_args.shell,
            traits=parsed_args.trait,
            **_given(parsed_args, *LIMITS, "reserved_memory_mb", "max_moves"),
        )
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.hosts.get(host.id)))


class HostList(Lister):
    """List the hosts, with what is used of what they offer."""

    example = "resizeflow host list"

    def take_action(self, parsed_args: argparse.Namespace) -> Any:  # noqa: ARG002
        with self.backend.database.read() as tx:
            return table([row_of(host) for host in tx.hosts.list()], COLUMNS)


class HostShow(ShowOne):
    """Show a host, and whether it answers now."""

    example = "resizeflow host show h1 -f json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="its name or UUID")

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        from resizeflow.connections import HostAway  # noqa: PLC0415 - not needed for help

        with self.backend.database.read() as tx:
            host = tx.hosts.get(parsed_args.host)
            shown = details_of(tx, host)
        try:
            self.backend.inventory.looks.host(host, patience=0).facts()
        except HostAway as error:
            return one({**shown, "answers": False, "silence": str(error)})
        return one({**shown, "answers": True, "silence": Maybe(None)})


class HostSet(ShowOne):
    """Change a host's settings.

    A disabled host takes nothing new; what is on it stays. --fenced says that a person made sure
    that nothing runs there any more (its power is off): a resize that waits for that proof goes on.
    Say it only when it is true: two hosts running the same machine destroy its disks.
    """

    example = """
resizeflow host set h1 --disable --reason "new disks on Tuesday"
resizeflow host set h1 --fenced
resizeflow host set h1 --trait CUSTOM_SSD
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="its name or UUID")
        switch = parser.add_mutually_exclusive_group()
        switch.add_argument("--enable", dest="enabled", action="store_true", default=None)
        switch.add_argument("--disable", dest="enabled", action="store_false", default=None)
        parser.add_argument("--reason", dest="disabled_reason", metavar="TEXT", help="why it is disabled")
        fence = parser.add_mutually_exclusive_group()
        fence.add_argument("--fenced", dest="fenced", action="store_true", default=None, help="nothing runs there")
        fence.add_argument("--not-fenced", dest="fenced", action="store_false", default=None)
        parser.add_argument("--peer-uri", metavar="URI", help="libvirt URI by which other hosts reach it")
        parser.add_argument("--data-uri", metavar="URI", help="where it takes a transfer's data")
        _shell(parser)
        parser.add_argument("--trait", action="append", default=[], metavar="T", help="that it has (repeatable)")
        parser.add_argument("--no-trait", action="append", default=[], metavar="T", help="that it has no more")
        _limits(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        names = ("enabled", "disabled_reason", "peer_uri", "data_uri", "shell", "reserved_memory_mb", "max_moves")
        host = self.backend.inventory.set_host(
            parsed_args.host,
            fenced=parsed_args.fenced,
            traits=parsed_args.trait,
            no_traits=parsed_args.no_trait,
            **_given(parsed_args, *names, *LIMITS),
        )
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.hosts.get(host.id)))


class HostDrain(Lister):
    """Move every machine off a host.

    The host is disabled, and a cold migration of each machine on it is submitted; workers carry them
    out. Machines that are moving away already are listed, and not submitted again: an interrupted drain
    is simply begun again. What is refused (a locked machine, no room elsewhere) is shown with its reason
    and stays: the command then ends with exit code 4. Confirm the migrations to free the host's disks.
    """

    example = """
resizeflow host drain h1
resizeflow migration list --open
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="its name or UUID")
        parser.add_argument("--reason", metavar="TEXT", help="why (default: as it is disabled for, or draining)")

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        stay = sum(fate.stays for fate in self._fates)
        if stay:
            raise Conflict(f"{stay} of {len(self._fates)} machines stay on host {parsed_args.host}.")
        return 0

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from resizeflow.drain import drain  # noqa: PLC0415 - not needed for help

        self._fates = drain(self.backend.inventory, self.backend.service, parsed_args.host, parsed_args.reason)
        with self.backend.database.read() as tx:
            if any(fate.result == "submitted" for fate in self._fates) and not tx.workers.up():
                self.app.stderr.write("No worker is up: `resizeflow worker` carries them out.\n")
        return ("instance", "migration", "result"), [
            (fate.instance, ShortId(fate.migration_id) if fate.migration_id else Maybe(None), fate.result)
            for fate in self._fates
        ]


class HostRemove(Telling):
    """Stop managing a host.

    Refused while managed machines, open migrations or leftovers of ours are on it.
    """

    example = "resizeflow host remove h1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="its name or UUID")
        parser.add_argument(
            "--forgive-debts", action="store_true", help="give up what could not be removed there (it was scrapped)"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        self.backend.inventory.remove_host(parsed_args.host, forgive_debts=parsed_args.forgive_debts)
        return self.told(f"Host {parsed_args.host} is no longer managed.", name=parsed_args.host, result="removed")
