"""What a machine must be after each outcome: asked of the guest itself, of both hosts, and of the database."""

from __future__ import annotations

import time
from typing import Any

from lab.guest import Guest
from lab.serial import Report
from resizeflow.persistence.events import broken_link
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


def is_resized(fleet: Fleet, job: Submitted, before: Report, *, host: str) -> None:
    """The guest runs once, on `host`, with its new size and its old data; the record agrees."""
    report = fleet.guest.wait_report(boots=before["boots"] + 1, timeout=90)
    same_machine(before, report)
    assert (report["vcpus"], report["memory_mb"]) == (2, 384)
    assert (report["disks"]["vda"], report["disks"]["vdb"]) == (2 * GIB, GIB)
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
    assert fleet.state(job) == state, fleet.story(job)
    # The machine booted once more on its source if it was ever powered off.
    boots = before["boots"] + (1 if fleet.migration(job).powered_off_at else 0)
    report = report_on(fleet, "h1", boots, vcpus=before["vcpus"])
    same_machine(before, report)
    assert (report["vcpus"], report["memory_mb"]) == (before["vcpus"], before["memory_mb"])
    assert runs_only_on(fleet.guest, "h1")
    assert fleet.guest.ping()
    chain_verifies(fleet, job)


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
    """No domain, no file, no process."""
    where = fleet.lab.host(host)
    assert fleet.guest.state(where) is None
    assert list(where.pool_path.iterdir()) == []
    assert where.qemu_pids() == []


def runs_only_on(guest: Guest, host: str) -> bool:
    return [name for name, state in guest.states().items() if state == "running"] == [host]


def chain_verifies(fleet: Fleet, job: Submitted) -> None:
    with fleet.database.read() as tx:
        assert broken_link(tx.events.of(job.migration_id)) is None
