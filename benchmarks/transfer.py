"""How fast a disk gets from one host to another: ours against the ways an operator knows.

    python -m benchmarks.transfer [--size-mb 2000] [--disk-gb 10] [--rounds 2] [--json]

The same disk between the same two lab hosts, each way with cold caches and until the copy is on the disk, each copy
compared with its source. The order changes from round to round. Both hosts are on one machine and share its cores
and its disk: the ratios of one run tell more than its seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import bench
from benchmarks.ways import FLAVOR, ByHand, ByProduct, Copied, Way
from lab.domain import DiskSpec
from lab.guest import Guest
from lab.lab import Lab
from lab.system import LabError, require_programs, run

OURS = "resizeflow, host to host"
PROGRAMS = {"qemu-nbd": "qemu-utils", "sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync"}


def main() -> int:
    """Measures and prints."""
    options = _parser().parse_args()
    try:
        require_programs(PROGRAMS)
        with bench.two_hosts() as lab, tempfile.TemporaryDirectory(prefix="resizeflow-bench-") as folder:
            result = measure(lab, Path(folder), options.size_mb, options.disk_gb, options.rounds)
    except (bench.BenchError, LabError) as error:
        return bench.trouble(error)
    bench.show(result, report(result), as_json=options.json)
    return 0


def measure(lab: Lab, folder: Path, size_mb: int, disk_gb: int, rounds: int) -> dict[str, Any]:
    """All ways, in each round."""
    bench.say(f"making a disk of {disk_gb} GiB with {size_mb} MiB of data")
    guest = Guest(lab, bench.GUEST)
    guest.create(lab.host(bench.SOURCE), disks=[DiskSpec(disk_gb, "qcow2")], start=False)
    disk = bench.fill(guest, size_mb, disk_gb)
    product = bench.Product(folder, lab)
    product.adopt(FLAVOR, disk_gb)
    runs = _run(_ways(product, ByHand(lab, disk, folder)), disk, rounds)
    product.close()
    base = bench.median([copied.seconds for copied in runs[OURS]])
    return {
        "benchmark": "transfer",
        "machine": bench.machine(lab),
        "disk": {"format": "qcow2", "virtual_gib": disk_gb, "data_mib": size_mb},
        "ways": {name: _summary(done, size_mb, base) for name, done in runs.items()},
    }


def _ways(product: bench.Product, by_hand: ByHand) -> dict[str, Way]:
    return {
        OURS: ByProduct(product, "direct"),
        "resizeflow, through the worker": ByProduct(product, "stream"),
        "qemu-nbd + qemu-img convert": by_hand.nbd,
        "rsync --sparse over ssh": by_hand.rsync,
        "cp --sparse=always, local": by_hand.local_copy,
    }


def _run(ways: dict[str, Way], disk: Path, rounds: int) -> dict[str, list[Copied]]:
    runs: dict[str, list[Copied]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number * len(names) // rounds
        for name in names[first:] + names[:first]:
            bench.drop_caches()
            with ways[name]() as copied:
                compare = ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2"]
                run([*compare, str(disk), str(copied.path)], timeout=600)
            bench.say(f"round {number + 1}: {name}: {copied.seconds:.1f} s, identical")
            runs[name].append(copied)
    return runs


def _summary(done: list[Copied], size_mb: int, base: float) -> dict[str, Any]:
    seconds = bench.median([copied.seconds for copied in done])
    return {
        "seconds": [round(copied.seconds, 2) for copied in done],
        "median_seconds": round(seconds, 2),
        "mib_per_second": round(size_mb / seconds),
        "ratio": round(seconds / base, 2),
        "parts": [{part: round(took, 2) for part, took in copied.parts.items()} for copied in done],
    }


def report(result: dict[str, Any]) -> str:
    """The result in words and a table."""
    disk, ways = result["disk"], result["ways"]
    rounds = len(ways[OURS]["seconds"])
    heads = [f"round {number + 1}" for number in range(rounds)]
    rows = [["seconds", *heads, "median", "MiB/s", "ratio to ours"]]
    for name, way in ways.items():
        figures = [f"{seconds:.1f}" for seconds in [*way["seconds"], way["median_seconds"]]]
        rows.append([name, *figures, str(way["mib_per_second"]), f"{way['ratio']:.2f}"])
    lines = [
        f"Transfer of a {disk['format']} disk of {disk['virtual_gib']} GiB with {disk['data_mib']} MiB of random data",
        "between two hosts on this machine; caches dropped before each copy, each copy synced and found identical.",
        "A ratio above 1 is slower than ours.",
        bench.machine_line(result["machine"]),
        "",
        bench.table(rows),
        "",
    ]
    for name, way in ways.items():
        for number, parts in enumerate(way["parts"]):
            if parts:
                told = ", ".join(f"{part} {took:.1f} s" for part, took in parts.items())
                lines.append(f"{name}, round {number + 1}: {told}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description="How fast a disk moves.")
    parser.add_argument("--size-mb", type=int, default=2000, metavar="N", help="MiB of data (default: %(default)s)")
    parser.add_argument("--disk-gb", type=int, default=10, metavar="N", help="virtual GiB (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="how often each way (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="for a program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
