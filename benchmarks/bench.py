"""What the benchmarks share: two lab hosts, a disk with data and holes, the product with a database of its own."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from lab.guest import Guest
from lab.lab import Lab
from lab.system import LabError, run
from resizeflow import config
from resizeflow.connections import Connections
from resizeflow.inventory import Inventory
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Event
from resizeflow.service import Service, Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker

LAB = "rf-bench"
SOURCE, DESTINATION = "h1", "h2"
GUEST = "bench"
MIB, GIB = 2**20, 2**30
PIECE = 8
"""MiB of data between two holes."""


class BenchError(Exception):
    """What was to be measured did not happen."""


@contextmanager
def two_hosts() -> Iterator[Lab]:
    """A lab of two hosts; all of it gone in the end, also after SIGINT and SIGTERM."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    lab = Lab(LAB)
    lab.down()
    try:
        lab.up(hosts=2)
        yield lab
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        lab.down()
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Product:
    """resizeflow with its defaults and a state database in a folder, which knows both hosts of the lab."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        conf = folder / "resizeflow.conf"
        conf.write_text(f"[DEFAULT]\nstate_path = {folder}\n")
        self.settings = config.load(str(conf))
        self.database = Database.of(self.settings)
        schema.require_current(self.database)
        self._connections = Connections()
        self.inventory = Inventory(self.database, self.settings, connections=self._connections)
        self.service = Service(self.database, self.settings, connections=self._connections)
        for host in lab.hosts:
            data_uri = f"tcp://{host.address}"
            self.inventory.add_host(host.name, host.uri, pool=host.pool, peer_uri=host.peer_uri, data_uri=data_uri)

    def adopt(self, flavor: str, disk_gb: int) -> None:
        """Takes the guest under management; makes a larger flavor to resize it to, with the same disk."""
        self.inventory.adopt(SOURCE, GUEST)
        self.inventory.create_flavor(flavor, vcpus=2, memory_mb=384, root_gb=disk_gb)

    def finish(self, job: Submitted, status: MigrationStatus, transfer: str = "auto") -> Sequence[Event]:
        """Carries a job out in the foreground and returns its log. `transfer` is the setting of that name."""
        settings = replace(self.settings, transfer=transfer)
        with Worker(self.database, settings, announced=False) as worker:
            state = worker.finish(job.job_id)
        with self.database.read() as tx:
            events = list(tx.events.of(job.migration_id))
            reached = tx.migrations.get(job.migration_id).status
        if state is not JobState.DONE or reached is not status:
            story = "\n".join(f"  {event.kind} {event.task or ''} {event.text}" for event in events[-12:])
            raise BenchError(f"the job is {state}, the migration {reached} instead of {status}:\n{story}")
        return events

    def close(self) -> None:
        """Ends the connections to the hosts."""
        self._connections.close()
        self.database.engine.dispose()


def moment(events: Sequence[Event], text: str) -> float:
    """When an event with that text was written, in seconds since the epoch."""
    for event in events:
        if event.text == text:
            return event.at.timestamp()
    raise BenchError(f"the log does not say '{text}'")


def fill(guest: Guest, data_mib: int, disk_gb: int) -> Path:
    """Gives a guest's blank first disk random data, in pieces with holes between them; the first MiB stays blank."""
    disk = next(guest.lab.host(SOURCE).pool_path.glob(f"{guest.name}-vda.*"))
    pieces = -(-data_mib // PIECE)
    stride = disk_gb * GIB // MIB // pieces
    if stride <= PIECE:
        raise BenchError(f"{data_mib} MiB of data and holes between it do not fit on {disk_gb} GiB")
    raw = guest.lab.paths.directory / "content.raw"
    try:
        with raw.open("wb") as file:
            for piece in range(pieces):
                file.seek((piece * stride + stride - PIECE) * MIB)
                file.write(os.urandom(min(PIECE, data_mib - piece * PIECE) * MIB))
            file.truncate(disk_gb * GIB)
        convert = ["qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", "-O", "qcow2"]
        run([*convert, str(raw), str(disk)], timeout=600)
    finally:
        raw.unlink(missing_ok=True)
    return disk


def drop_caches() -> None:
    """Everything is on the disk and nothing of it in memory."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def machine(lab: Lab) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB),
        "accelerator": lab.accelerator,
        "linux": platform.release(),
        "libvirt": run(["libvirtd", "--version"]).split()[-1],
        "qemu": run(["qemu-img", "--version"]).split()[2],
        "python": platform.python_version(),
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The machine in one line."""
    return "machine: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )  # fmt: skip


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def say(text: str) -> None:
    """What goes on, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def show(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """The result, for a program or for a person."""
    print(json.dumps(result, indent=2) if as_json else text)


def trouble(error: BenchError | LabError) -> int:
    """One sentence and an exit status for what can go wrong."""
    print(f"benchmark: {error}", file=sys.stderr)
    return 1
