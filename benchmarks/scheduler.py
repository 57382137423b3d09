"""How long the choice of a host takes in a large fleet: the records read, filters and weighers, the decision.

    python -m benchmarks.scheduler [--hosts 1000] [--rounds 30] [--sqlite] [--json]

The fleet is in 20 aggregates of two zones; a tenth of it is disabled, half has the trait that the flavor asks for, and
a tenth has a move in flight. The machine is pinned to a zone and a member of an anti-affinity group of ten. Looks at
hosts are left out: they are three, however large the fleet is.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import bench
from benchmarks.engine import Place, places
from benchmarks.steps import MIGRATION
from lab.system import LabError
from resizeflow import config, fleet
from resizeflow.clock import Clock
from resizeflow.persistence import schema
from resizeflow.persistence.aggregates import ZONE
from resizeflow.persistence.database import Database
from resizeflow.persistence.hosts import Amount, instance_consumer
from resizeflow.persistence.models import Aggregate, AggregateHost, Flavor, Host, Instance, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.scheduler import HostState, Request, Selection, select
from resizeflow.states import MigrationStatus, VmState

AGGREGATES = 20
MEMBERS = 10
FITS = 3
"""The chosen host and its alternates."""


class Fleet:
    """A database with so many hosts, and a migration to be decided."""

    def __init__(self, url: str, hosts: int) -> None:
        self.settings = config.load(os.devnull)
        self.database = Database(url)
        schema.upgrade(self.database)
        with self.database.write() as tx:
            _add(tx, hosts)

    def read(self) -> tuple[list[HostState], Request]:
        """The records that filters and weighers need."""
        with self.database.read() as tx:
            machine, flavor = tx.instances.get("m0"), tx.flavors.get("large")
            return fleet.snapshot(tx), fleet.request_for(tx, machine, flavor, None, self.settings)

    def select(self, states: list[HostState], request: Request) -> Selection:
        """Every filter on every host, the weighers on those that pass."""
        return select(states, request, self.settings.scheduler, lambda _: None)

    def decide(self, selection: Selection) -> None:
        """The transaction of the decision, which is then rolled back."""
        with self.database.write() as tx:
            candidates = [host.id for host in (selection.host, *selection.alternates)]
            migration = tx.migrations.get("migration")
            taken = fleet.take_first(tx, migration, candidates, selection.verdicts, self.settings)
            tx.session.flush()
            tx.session.rollback()
        if taken is None or len(candidates) != FITS:
            raise bench.BenchError("no host was taken")


def _add(tx: Transaction, count: int) -> None:
    tx.groups.create("g", "anti-affinity", "default")
    tx.session.add(Flavor(id="small", name="small", vcpus=1, memory_mb=1024, root_gb=10))
    specs = {"trait:CUSTOM_SSD": "required"}
    tx.session.add(Flavor(id="large", name="large", vcpus=2, memory_mb=2048, root_gb=20, extra_specs=specs))
    hosts = [_host(number) for number in range(count)]
    tx.session.add_all(hosts)
    for number in range(AGGREGATES):
        members = [AggregateHost(host_id=host.id) for host in hosts[number::AGGREGATES]]
        zone = "east" if number % 2 == 0 else "west"
        tx.session.add(Aggregate(name=f"a{number}", properties={ZONE: zone, "rack": str(number)}, members=members))
    tx.session.flush()
    for number, host in enumerate(hosts[: max(count // 10, MEMBERS)]):
        _add_machine(tx, number, host)


def _host(number: int) -> Host:
    return Host(
        id=f"h{number}",
        name=f"host-{number:04}",
        uri=f"sim:///nowhere?host=h{number}",
        pool="default",
        enabled=number % 10 != 1,
        vcpus=64,
        memory_mb=262144,
        disk_gb=4000,
        traits=["CUSTOM_SSD"] if number // 2 % 2 == 0 else [],
        used_vcpus=number * 7 % 64,
        used_memory_mb=number * 977 % 131072,
        used_disk_gb=number * 13 % 2000,
    )


def _add_machine(tx: Transaction, number: int, host: Host) -> None:
    tx.session.add(
        Instance(
            id=f"i{number}",
            name=f"m{number}",
            project_id="default",
            host_id=host.id,
            flavor_id="small",
            vm_state=VmState.ACTIVE,
            availability_zone="east" if number == 0 else None,
            group_name="g" if number < MEMBERS else None,
            created_at=tx.now(),
        )
    )
    move = {**MIGRATION, "source_host_id": host.id, "dest_host_id": None, "old_flavor_id": "small"}
    tx.session.add(
        Migration(
            **{**move, "new_flavor_id": "large", "status": MigrationStatus.PRE_MIGRATING},
            id=f"migration{number or ''}",
            instance_id=f"i{number}",
            created_at=tx.now(),
        )
    )
    tx.hosts.allocate(host, instance_consumer(f"i{number}"), Amount(1, 1024, 10), force=True)


def _measure(place: Place, hosts: int, rounds: int) -> dict[str, Any]:
    bench.say(f"{place.name}: {hosts} hosts")
    found = Fleet(place.database(), hosts)
    took: dict[str, list[float]] = {"records": [], "filters and weighers": [], "decision": [], "together": []}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = Clock().boottime()
        answer = work()
        took[name].append((Clock().boottime() - began) * 1000)
        return answer

    def whole() -> None:
        states, request = timed("records", found.read)
        selection = timed("filters and weighers", lambda: found.select(states, request))
        timed("decision", lambda: found.decide(selection))

    for _ in range(rounds + 1):
        timed("together", whole)
    found.database.engine.dispose()
    return {
        name: {"min_ms": round(min(times[1:]), 1), "median_ms": round(bench.median(times[1:]), 1)}
        for name, times in took.items()
    }


def main() -> int:
    """Measures and prints."""
    options = _parser().parse_args()
    machine = {"cores": os.cpu_count(), "linux": platform.release(), "python": platform.python_version()}
    try:
        with places(sqlite_only=options.sqlite) as found:
            measured = {place.name: _measure(place, options.hosts, options.rounds) for place in found}
    except (bench.BenchError, LabError) as error:
        return bench.trouble(error)
    result = {"benchmark": "scheduler", "machine": machine, "hosts": options.hosts, "choice": measured}
    bench.show(result, report(result), as_json=options.json)
    return 0


def report(result: dict[str, Any]) -> str:
    """The result in words and a table."""
    choice = result["choice"]
    rows = [["ms, min (median)", *choice]]
    for name in next(iter(choice.values())):
        rows.append(
            [name, *(f"{found[name]['min_ms']:.1f} ({found[name]['median_ms']:.1f})" for found in choice.values())]
        )
    told = f"A host chosen among {result['hosts']}"
    return "\n".join([bench.machine_line(result["machine"]), "", told, bench.table(rows)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler", description="How long a choice takes.")
    parser.add_argument("--hosts", type=int, default=1000, metavar="N", help="in the fleet (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="how often (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="without PostgreSQL")
    parser.add_argument("--json", action="store_true", help="for a program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
