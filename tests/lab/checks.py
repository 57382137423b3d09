"""What a machine must be after each outcome: asked of the guest itself, of both hosts, and of the database."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.guest import Guest
from lab.host import Host
from lab.lab import Lab
from lab.serial import Report
from lab.system import LabError
from resizeflow.connections import Connections
from resizeflow.doctor import Doctor
from resizeflow.service import Submitted
from resizeflow.states import MigrationStatus
from tests.fleet import Fleet

GIB = 1024**3


def same_machine(before: Report, after: Report) -> None:
    """The same data and address: content checked by the guest, no disk found blank, no acknowledged record lost."""
    for key in ("checksum", "contents", "ip", "mac", "hostname"):
        assert after[key] == before[key], key
    assert after["checksum_ok"] and after["records_ok"]
    assert after["fresh"] == [] or after["boots"] == 1, f"disks came up blank: {after['fresh']}"


def is_resized(fleet: Fleet, job: Submitted, before: Report, *, host: str, root_gb: int = 2) -> None:
    """The guest runs once, on `host`, with its new size and its old data; the record agrees."""
    report = fleet.guest.wait_report(boots=before["boots"] + 1)
    same_machine(before, report)
    assert (report["vcpus"], report["memory_mb"]) == (2, 384)
    assert (report["disks"]["vda"], report["disks"]["vdb"]) == (root_gb * GIB, GIB)
    assert report["host"] == host
    assert runs_only_on(fleet.guest, host)
    assert fleet.guest.ping()
    with fleet.database.read() as tx:
        instance = tx.instances.get("web")
        assert (instance.host.name, instance.flavor.name) == (host, "big")
    assert fleet.migration(job).status in (MigrationStatus.FINISHED, MigrationStatus.CONFIRMED)
    chain_verifies(fleet, job)


def is_as_before(fleet: Fleet, job: Submitted, state: dict[str, Any], before: Report) -> None:
    """Hosts, definitions, disks and tables as they were, and the guest runs again with its data."""
    assert without_debts(fleet.state(job)) == without_debts(state), fleet.story(job)
    with fleet.database.read() as tx:
        assert not tx.debts.open()
    # The machine booted once more on its source if it was ever powered off.
    boots = before["boots"] + (1 if fleet.migration(job).powered_off_at else 0)
    report = report_on(fleet, "h1", boots, vcpus=before["vcpus"])
    same_machine(before, report)
    assert (report["vcpus"], report["memory_mb"]) == (before["vcpus"], before["memory_mb"])
    assert runs_only_on(fleet.guest, "h1")
    assert fleet.guest.ping()
    chain_verifies(fleet, job)


def without_debts(state: dict[str, Any]) -> dict[str, Any]:
    """A state but for debts, which are kept as a record once they are settled."""
    return {**state, "tables": {name: rows for name, rows in state["tables"].items() if name != "debts"}}


def report_on(fleet: Fleet, host: str, boots: int, *, vcpus: int) -> Report:
    """The newest report of the guest on a host, once it has counted so many boots there with so many vCPUs."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        reports = [report for report in fleet.guest.reports() if report["host"] == host]
        if reports and reports[-1]["boots"] >= boots and reports[-1]["vcpus"] == vcpus:
            return reports[-1]
        time.sleep(0.3)
    raise AssertionError(f"no report of boot {boots} on {host}: {fleet.guest.reports()}")


def nothing_left_on(fleet: Fleet, host: str) -> None:
    """No domain, no file, no process, no libvirt secret that resizeflow made."""
    where = fleet.lab.host(host)
    assert fleet.guest.state(where) is None
    assert list(where.pool_path.iterdir()) == []
    assert where.qemu_pids() == []
    assert "resizeflow" not in where.virsh("secret-list")


def machine_pids(host: Host, guest: str) -> list[int]:
    """The processes of a host that are this guest itself, with its kernel: a carrier has none. libvirtd may be gone."""
    words = {pid: _words(pid) for pid in host.qemu_pids()}
    return [pid for pid, said in words.items() if f"guest={guest}," in said and "-kernel" in said]


def _may_run(host: Host, guest: str) -> bool:
    """Whether a machine's CPUs may run, by what its host says; True where it says nothing."""
    try:
        return host.virsh("domstate", guest, timeout=5).strip() not in ("paused", "shut off")
    except LabError:
        return True


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@contextlib.contextmanager
def never_two(lab: Lab, *guests: str) -> Iterator[None]:
    """Looks at the processes of all hosts all the time: no guest ever runs twice.

    A second one that is paused may be there for a moment, where a host that hung wakes up and finds an old request to
    start it; it is owed, and ended.
    """
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            for guest in guests:
                where = [host for host in lab.hosts for _ in machine_pids(host, guest)]
                if len(where) > 1 and sum(_may_run(host, guest) for host in where) > 1:
                    seen.append(f"{guest} on {' and '.join(host.name for host in where)}")

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield
    finally:
        done.set()
        looker.join()
    assert not seen, seen


def proof_before_start(fleet: Fleet, job: Submitted) -> None:
    """The log has the proof that the one host is off before the machine is about to run on the other."""
    with fleet.database.read() as tx:
        texts = [event.text for event in tx.events.of(job.migration_id) if event.kind in ("note", "pivot")]
    proven = False
    for text in texts:
        proven = proven or text.startswith("proof of off") or "that is proof of off" in text
        assert proven or not text.startswith("point of no return"), fleet.story(job)


def runs_only_on(guest: Guest, host: str) -> bool:
    return [name for name, state in guest.states().items() if state == "running"] == [host]


def healthy(fleet: Fleet) -> None:
    """The doctor finds no breach of any invariant, in the records and on the hosts."""
    connections = Connections()
    try:
        report = Doctor(fleet.database, fleet.settings, connections=connections).examine()
    finally:
        connections.close()
    assert not report.breaches, "\n".join(map(str, report.breaches))


def chain_verifies(fleet: Fleet, job: Submitted) -> None:
    with fleet.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None
