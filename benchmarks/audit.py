"""How fast the audit log answers with a million lines in it, and what it costs a resize to write it.

    python -m benchmarks.audit [--migrations 20000] [--rounds 7] [--sqlite] [--json]

On SQLite and PostgreSQL, as `benchmarks.engine`. The cost of a resize is measured beside earlier commits, in turns:
ratios of one run tell more than its milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from benchmarks import bench
from benchmarks.cost import Tree, trees
from benchmarks.engine import Place, places
from benchmarks.million import BEGINNING, FAILED_EACH, LINES, MACHINES, RARE, Million
from lab.system import LabError
from resizeflow.audit.search import Filters, search
from resizeflow.audit.verify import verify
from resizeflow.clock import Clock
from resizeflow.commands.migration import rows_of
from resizeflow.pages.dashboard import application
from resizeflow.persistence.models import FLEET
from resizeflow.persistence.seals import seal_logs
from resizeflow.states import Outcome

LIMIT = 100
COMMITS = {"plain hashes, before schema 0006": "22c1264", "the chain under a key, nothing else": "6dcdb79"}
LOOPBACK = "http://127.0.0.1:8780"


def main() -> int:
    """Measures and prints."""
    options = _parser().parse_args()
    try:
        with places(sqlite_only=options.sqlite) as found:
            result = {
                "benchmark": "audit",
                "lines": options.migrations * LINES,
                "asked": {place.name: _asked(place, options.migrations, options.rounds) for place in found},
                "cost": {place.name: _cost(place, options.rounds) for place in found},
            }
    except (bench.BenchError, LabError) as error:
        return bench.trouble(error)
    bench.show(result, report(result), as_json=options.json)
    return 0


# --- reading ---------------------------------------------------------------------------------------------


def _asked(place: Place, migrations: int, rounds: int) -> dict[str, Any]:
    bench.say(f"{place.name}: {migrations * LINES} lines of {migrations} migrations")
    million = Million(place.database(), migrations)
    once = {"making it": million.seconds}
    for name, ask in _long(million).items():
        bench.say(f"{place.name}: {name}")
        once[name] = _timed(ask)
    taken: dict[str, list[float]] = {}
    for name, ask in _questions(million).items():
        bench.say(f"{place.name}: {name}")
        taken[name] = [_timed(ask) for _ in range(rounds + 1)][1:]
    million.close()
    return {
        "once": {name: round(seconds, 1) for name, seconds in once.items()},
        "ms": {name: [round(fold(times) * 1000, 1) for fold in (min, bench.median)] for name, times in taken.items()},
    }


def _timed(ask: Callable[[], object]) -> float:
    began = Clock().boottime()
    ask()
    return Clock().boottime() - began


def _long(million: Million) -> dict[str, Callable[[], object]]:
    """What is done once."""

    def seal() -> None:
        if seal_logs(million.database) != million.migrations:
            raise bench.BenchError("not every log was sealed")

    def whole() -> None:
        report = verify(million.database)
        if report.findings or report.lines != million.migrations * LINES:
            raise bench.BenchError(f"the log is not what was written: {report.findings[:1]}")

    return {"sealing all": seal, "audit verify": whole}


def _questions(million: Million) -> dict[str, Callable[[], object]]:
    """What is asked, which must not take long."""
    database, middle = million.database, BEGINNING + timedelta(minutes=15 * (million.migrations // 2))
    with database.read() as tx:
        asked = tx.migrations.list(limit=1)[0].id

    def log(expected: int, **filters: Any) -> Callable[[], None]:
        def ask() -> None:
            with database.read() as tx:
                found = len(search(tx, Filters(**filters), LIMIT))
            if found != expected:
                raise bench.BenchError(f"{found} lines fit {filters}, where {expected} should")

        return ask

    def listed() -> None:
        with database.read() as tx:
            rows_of(tx, tx.migrations.list())

    def history() -> None:
        with database.read() as tx:
            if len(tx.events.of(asked)) != LINES or tx.events.flaw(asked) is not None:
                raise bench.BenchError("the history is not what was written")

    client = application(database).test_client()

    def page(address: str) -> Callable[[], None]:
        def ask() -> None:
            code = client.get(address, base_url=LOOPBACK).status_code
            if code != 200:
                raise bench.BenchError(f"{address} answers {code}")

        return ask

    return {
        "migration list": listed,
        "migration history of one": history,
        "audit log": log(LIMIT),
        "audit log --instance": log(LIMIT, instance=f"vm-{MACHINES // 2}"),
        "audit log --instance UUID": log(LIMIT, instance="00000000-0000-0000-0000-000000000007"),
        "audit log --host": log(LIMIT, host="host-7"),
        "audit log --project": log(LIMIT, project="project-7"),
        "audit log --user": log(LIMIT, user="user-7"),
        "audit log --user, who is nobody": log(0, user="nobody"),
        "audit log --since --until, in the middle": log(LIMIT, since=middle, until=middle + timedelta(days=1)),
        "audit log --outcome failed": log(min(LIMIT, million.migrations // FAILED_EACH), outcome=Outcome.FAILED),
        f"audit log --kind {million.rare_kind}": log(LIMIT, kind=million.rare_kind),
        "audit log --kind task": log(LIMIT, kind="task"),
        "audit log --migration": log(LINES, migration=asked),
        "audit log --migration fleet": log(0, migration=FLEET),
        "audit log --text, a word of one line": log(1, text=RARE),
        "audit log --text, that is nowhere": log(0, text="nothing of the kind"),
        "audit log --instance --text": log(0, instance="vm-7", text="nothing of the kind"),
        "where all is sealed, a look for logs to seal": lambda: seal_logs(database),
        "dashboard": page("/"),
        "dashboard, search over history": page("/history?instance=vm-7"),
        "dashboard, search for words of many lines": page("/history?text=started"),
        "dashboard, search for words that are nowhere": page("/history?text=nothing+of+the+kind"),
        "dashboard, a migration": page(f"/migrations/{asked}"),
    }


# --- writing ---------------------------------------------------------------------------------------------


def _cost(place: Place, rounds: int) -> dict[str, Any]:
    bench.say(f"{place.name}: resizes")
    costs: dict[str, list[dict[str, float]]] = {}
    with trees(COMMITS) as found, contextlib.ExitStack() as stack:
        running = {}
        for name, tree in found.items():
            running[name] = Tree(tree, place.database(), place.memory())
            stack.callback(running[name].close)
        for _ in range(rounds * 2):
            for name, one in running.items():
                costs.setdefault(name, []).append(one.once())
    return {name: _summary(taken) for name, taken in costs.items()}


def _summary(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    counts = {name: round(bench.median([cost[name] for cost in costs])) for name in ("statements", "commits", "lines")}
    return {"cpu_ms": round(min(cost["cpu_seconds"] for cost in costs) * 1000, 1), **counts}


# --- telling ---------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """The result in tables."""
    asked = result["asked"]
    lines = [f"{result['lines']:,} lines", ""]
    first = next(iter(asked.values()))
    rows = [["ms, min (median)", *asked]]
    for question in first["ms"]:
        rows.append([question, *("{:.1f} ({:.1f})".format(*asked[place]["ms"][question]) for place in asked)])
    lines += [bench.table(rows), ""]
    rows = [["s", *asked], *([name, *(f"{asked[p]['once'][name]:.1f}" for p in asked)] for name in first["once"])]
    lines += [bench.table(rows)]
    for place, costs in result["cost"].items():
        before = next(iter(costs.values()))
        rows = [["", "CPU ms", "to before", "statements", "commits", "lines", "CPU us a line"]]
        for name, cost in costs.items():
            ratio, each = cost["cpu_ms"] / before["cpu_ms"], cost["cpu_ms"] / cost["lines"] * 1000
            counts = [f"{cost[count]:.0f}" for count in ("statements", "commits", "lines")]
            rows.append([name, f"{cost['cpu_ms']:.1f}", f"{ratio:.2f}", *counts, f"{each:.0f}"])
        lines += ["", f"A whole resize on {place}", bench.table(rows)]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description="A million lines of the audit log.")
    parser.add_argument(
        "--migrations", type=int, default=20_000, metavar="N", help="of 50 lines (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="how often each (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="without PostgreSQL")
    parser.add_argument("--json", action="store_true", help="for a program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
