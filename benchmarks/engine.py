"""What durability costs: a resize beside flows of empty steps, take-overs, throughput, and lists that grow long.

    python -m benchmarks.engine [--rounds 20] [--migrations 100000] [--machines 24] [--sqlite] [--json]

SQLite with WAL and synchronous=FULL for all, in a folder on the disk that holds temporary files; PostgreSQL a server of
its own, as it comes. What is compared runs in turns, in processes of its own: the ratios of one run tell more than its
milliseconds, and minima more than medians where others use the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import bench
from benchmarks.past import Past
from benchmarks.steps import ENGINES, STEPS, Cost, runners
from benchmarks.workers import LEASE, cloud_on, per_second, takeover
from lab.postgresql import PostgreSQL
from lab.system import LabError

MEMORY = Path("/dev/shm")  # noqa: S108 - for the simulated hosts, which are not what is measured
DBOS = "dbos, empty steps"
FEW = 1000
"""Past migrations of the database that the long one is compared with."""
TAKEOVERS = 3
WORKERS = (1, 2, 4)


class Place:
    """Makes empty databases of one kind."""

    def __init__(self, name: str, make: Callable[[str], str], memory: Path) -> None:
        self.name = name
        self._make = make
        self._memory = memory
        self._made = 0

    def database(self) -> str:
        """The URL of a new one."""
        self._made += 1
        return self._make(f"bench{self._made}")

    def memory(self) -> Path:
        """A new folder for simulated hosts."""
        return Path(tempfile.mkdtemp(dir=self._memory))


@contextlib.contextmanager
def places(*, sqlite_only: bool) -> Iterator[list[Place]]:
    """SQLite and PostgreSQL; all of it gone in the end, also after SIGTERM."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        memory = Path(tempfile.mkdtemp(prefix="resizeflow-bench-", dir=MEMORY if MEMORY.is_dir() else None))
        stack.callback(shutil.rmtree, memory, ignore_errors=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resizeflow-bench-")))
        found = [Place("SQLite", lambda name: f"sqlite:///{folder / name}.sqlite", memory)]
        if not sqlite_only:
            server = stack.enter_context(PostgreSQL())

            def create(name: str) -> str:
                server.create_database(name)
                return server.url(name)

            found.append(Place("PostgreSQL", create, memory))
        yield found


def main() -> int:
    """Measures and prints."""
    options = _parser().parse_args()
    try:
        with places(sqlite_only=options.sqlite) as found:
            result = {
                "benchmark": "engine",
                "machine": _machine(),
                "steps": {place.name: _steps(place, options.rounds) for place in found},
                "takeover": {place.name: _takeovers(place) for place in found},
                "resizes": {place.name: _throughput(place, options.machines) for place in found},
                "lists": {place.name: _lists(place, options.migrations, options.rounds) for place in found},
            }
    except (bench.BenchError, LabError) as error:
        return bench.trouble(error)
    bench.show(result, report(result), as_json=options.json)
    return 0


def _steps(place: Place, rounds: int) -> dict[str, Any]:
    bench.say(f"{place.name}: flows of {STEPS} steps")
    costs: dict[str, list[Cost]] = {name: [] for name in ENGINES}
    with runners({name: place.database() for name in ENGINES}, place.memory()) as running:
        for number in range(rounds):
            names = list(ENGINES)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                costs[name].append(running[name].once())
    return {name: _summary(found) for name, found in costs.items()}


def _summary(costs: Sequence[Cost]) -> dict[str, Any]:
    return {
        **_times([cost.seconds for cost in costs]),
        "cpu_ms": round(min(cost.cpu_seconds for cost in costs) * 1000, 1),
        "statements": round(bench.median([cost.statements for cost in costs])),
        "commits": round(bench.median([cost.commits for cost in costs])),
    }


def _takeovers(place: Place) -> dict[str, Any]:
    bench.say(f"{place.name}: take-overs")
    seconds = [takeover(cloud_on(place.database(), place.memory())) for _ in range(TAKEOVERS)]
    return {"lease_seconds": LEASE, "seconds": [round(took, 2) for took in seconds]}


def _throughput(place: Place, machines: int) -> dict[int, float]:
    found = {}
    for workers in WORKERS:
        bench.say(f"{place.name}: {machines} resizes by {workers} workers")
        found[workers] = round(per_second(cloud_on(place.database(), place.memory()), workers, machines), 2)
    return found


def _lists(place: Place, migrations: int, rounds: int) -> dict[str, dict[int, Any]]:
    bench.say(f"{place.name}: {migrations} past migrations")
    pasts = {count: Past(place.database(), count) for count in (FEW, migrations)}
    asked: dict[int, list[dict[str, float]]] = {count: [] for count in pasts}
    for _ in range(rounds + 1):
        for count, past in pasts.items():
            asked[count].append(past.ask())
    for past in pasts.values():
        past.database.engine.dispose()
    return {
        question: {count: _times([times[question] for times in found[1:]]) for count, found in asked.items()}
        for question in asked[FEW][0]
    }


def _times(seconds: Sequence[float]) -> dict[str, float]:
    return {"min_ms": round(min(seconds) * 1000, 1), "median_ms": round(bench.median(seconds) * 1000, 1)}


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "linux": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("SQLAlchemy", "taskflow", "dbos")},
    }


def report(result: dict[str, Any]) -> str:
    """The result in words and tables."""
    lines = [bench.machine_line(result["machine"])]
    for place, engines in result["steps"].items():
        rows = [["", "ms, min", "ms, median", "CPU ms", "statements", "commits", "min to dbos", "CPU to dbos"]]
        for name, cost in engines.items():
            times = [f"{cost[time]:.1f}" for time in ("min_ms", "median_ms", "cpu_ms")]
            ratios = [f"{cost[time] / engines[DBOS][time]:.1f}" for time in ("min_ms", "cpu_ms")]
            rows.append([name, *times, str(cost["statements"]), str(cost["commits"]), *ratios])
        lines += ["", f"One flow of {STEPS} steps on {place}", bench.table(rows)]
    for place, found in result["takeover"].items():
        seconds = ", ".join(f"{took:.1f}" for took in found["seconds"])
        lines += ["", f"SIGKILL to take-over on {place}: {seconds} s, with a lease of {found['lease_seconds']:g} s"]
    for place, found in result["resizes"].items():
        told = ", ".join(f"{rate:.1f} with {workers}" for workers, rate in found.items())
        lines += ["", f"Resizes a second on {place}, by number of workers: {told}"]
    for place, questions in result["lists"].items():
        counts = list(next(iter(questions.values())))
        rows = [["ms, min (median)", *(f"{count} migrations" for count in counts)]]
        for question, found in questions.items():
            rows.append([question, *(f"{found[c]['min_ms']:.1f} ({found[c]['median_ms']:.1f})" for c in counts)])
        lines += ["", f"Past migrations on {place}", bench.table(rows)]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description="What durability costs.")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="how often each (default: %(default)s)")
    parser.add_argument("--migrations", type=int, default=100_000, metavar="N", help="past ones (default: %(default)s)")
    parser.add_argument(
        "--machines", type=int, default=24, metavar="N", help="to resize at once (default: %(default)s)"
    )
    parser.add_argument("--sqlite", action="store_true", help="without PostgreSQL")
    parser.add_argument("--json", action="store_true", help="for a program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
