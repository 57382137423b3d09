"""How long a guest does not answer while it is resized to another host, by the size of its disk.

    python -m benchmarks.downtime [--disk-gb 1 4 10] [--data-percent 20] [--json]

A real guest is pinged from the lab's switch several times a second around a resize in the foreground. The downtime
is the longest time between two answers; its parts, by the event log, follow one another without a gap.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import bench
from lab.domain import DiskSpec
from lab.guest import Guest
from lab.lab import Lab
from lab.system import TIED, LabError
from resizeflow.persistence.models import Event
from resizeflow.states import MigrationStatus

FLAVOR = "larger"
EVERY = 0.2
"""Seconds between two pings."""
BOOT_TIMEOUT = 180.0
ENDS = {
    "shut down": "PowerOffSource done",
    "proof of off": "RetireSource done",
    "transfer": "TransferDisks done",
    "define and start": "StartDestination done",
}
"""The parts of a downtime up to the guest's own boot, each with the line of the log that ends it."""


class Pinger:
    """A ping that runs on; when the answers came."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def answers(self) -> list[float]:
        """The moments of all answers so far, in seconds since the epoch."""
        return [float(at) for at in re.findall(r"^\[(\d+\.\d+)\] \d+ bytes from", self._log.read_text(), re.MULTILINE)]

    def wait(self, since: float) -> None:
        """Until the guest has answered after a moment, and then some more times."""
        deadline = time.monotonic() + BOOT_TIMEOUT
        while sum(answer > since for answer in self.answers()) < 5:
            if time.monotonic() > deadline:
                raise bench.BenchError(f"the guest did not answer within {BOOT_TIMEOUT:.0f} s")
            time.sleep(EVERY)


@contextmanager
def pinging(lab: Lab, address: str, folder: Path) -> Iterator[Pinger]:
    """Pings from the switch meanwhile."""
    log = folder / "ping.log"
    netns = ["ip", "netns", "exec", lab.paths.switch_netns]
    with log.open("wb") as output:
        command = [*TIED, *netns, "ping", "-n", "-D", "-i", str(EVERY), address]
        with subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL) as ping:
            try:
                yield Pinger(log)
            finally:
                ping.terminate()


def main() -> int:
    """Measures and prints."""
    options = _parser().parse_args()
    try:
        with bench.two_hosts() as lab:
            rows = [measure(lab, size, options.data_percent) for size in options.disk_gb]
            result = {
                "benchmark": "downtime",
                "machine": bench.machine(lab),
                "data_percent": options.data_percent,
                "ping_every_seconds": EVERY,
                "disks": rows,
            }
    except (bench.BenchError, LabError) as error:
        return bench.trouble(error)
    bench.show(result, report(result), as_json=options.json)
    return 0


def measure(lab: Lab, disk_gb: int, percent: int) -> dict[str, Any]:
    """One guest with one disk, resized once."""
    data_mib = disk_gb * 1024 * percent // 100
    bench.say(f"a guest with {disk_gb} GiB of disk, {data_mib} MiB of it data")
    guest = Guest(lab, bench.GUEST)
    source = lab.host(bench.SOURCE)
    guest.create(source, vcpus=1, memory_mb=256, disks=[DiskSpec(disk_gb, "qcow2")], start=False)
    try:
        bench.fill(guest, data_mib, disk_gb)
        guest.start(source)
        guest.wait_report(boots=1, timeout=BOOT_TIMEOUT)
        with tempfile.TemporaryDirectory(prefix="resizeflow-bench-") as folder:
            row = _resize(lab, guest, Path(folder), disk_gb)
        report = guest.wait_report(boots=2, timeout=BOOT_TIMEOUT)
        if report["host"] != bench.DESTINATION or not report["checksum_ok"]:
            raise bench.BenchError(f"the guest did not come through: {report}")
    finally:
        _remove(lab, guest)
    bench.say(f"no answer for {row['downtime_seconds']:.1f} s")
    return {"virtual_gib": disk_gb, "data_mib": data_mib, **row}


def _resize(lab: Lab, guest: Guest, folder: Path, disk_gb: int) -> dict[str, Any]:
    product = bench.Product(folder, lab)
    product.adopt(FLAVOR, disk_gb)
    bench.drop_caches()
    with pinging(lab, guest.ip, folder) as pinger:
        pinger.wait(since=0.0)
        job = product.service.resize(bench.GUEST, FLAVOR, host=bench.DESTINATION)
        events = product.finish(job, MigrationStatus.FINISHED)
        pinger.wait(since=bench.moment(events, ENDS["define and start"]))
        answers = pinger.answers()
    product.close()
    last, first = max(pairwise(answers), key=lambda pair: pair[1] - pair[0])
    return {"downtime_seconds": round(first - last, 2), "parts": _parts(events, last, first)}


def _parts(events: Sequence[Event], last: float, first: float) -> dict[str, float]:
    """From the last answer before to the first one after."""
    parts, at = {}, last
    for part, text in ENDS.items():
        end = bench.moment(events, text)
        parts[part] = round(end - at, 2)
        at = end
    parts["boot"] = round(first - at, 2)
    return parts


def _remove(lab: Lab, guest: Guest) -> None:
    """The next guest finds the hosts empty."""
    guest.delete()
    for host in lab.hosts:
        for path in host.pool_path.iterdir():
            path.unlink()
        host.virsh("pool-refresh", host.pool)
        host.serial_log(guest.name).unlink(missing_ok=True)


def report(result: dict[str, Any]) -> str:
    """The result in words and a table."""
    rows = [["disk", "data MiB", "downtime", *ENDS, "boot"]]
    for disk in result["disks"]:
        figures = [disk["downtime_seconds"], *disk["parts"].values()]
        rows.append([f"{disk['virtual_gib']} GiB", str(disk["data_mib"]), *(f"{seconds:.1f}" for seconds in figures)])
    return "\n".join(
        [
            f"Seconds without an answer to ping, every {result['ping_every_seconds']} s, in a resize to another host.",
            f"One qcow2 disk, {result['data_percent']} % of it random data. Boot: from running CPUs to an answer.",
            bench.machine_line(result["machine"]),
            "",
            bench.table(rows),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.downtime", description="How long a guest is away.")
    parser.add_argument("--disk-gb", type=int, nargs="+", default=[1, 4, 10], metavar="N", help="default: 1 4 10")
    parser.add_argument("--data-percent", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="for a program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
