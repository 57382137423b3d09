"""A real host is drained of its guests: a few at a time, none twice, and at last it is no host of ours any more."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.guest import DiskSpec, Guest
from lab.lab import Lab
from lab.system import wait_until
from resizeflow.states import MigrationStatus
from tests.console import Console
from tests.fleet import Fleet
from tests.lab import checks
from tests.lab.worker_process import WorkerProcess

pytestmark = pytest.mark.lab

GUESTS = ("one", "two", "three", "four")
AT_ONCE = 2
DRAINED_WITHIN = 300
BOOT_WITHIN = 120


@pytest.fixture
def fleet(lab: Lab, tmp_path: Path) -> Iterator[Fleet]:
    """Two hosts that take part in two moves at a time."""
    fleet = Fleet(tmp_path, lab)
    fleet.know_hosts()
    for host in lab.hosts:
        fleet.inventory.set_host(host.name, max_moves=AT_ONCE)
    yield fleet
    fleet.clean()


@pytest.fixture
def worker(fleet: Fleet) -> Iterator[WorkerProcess]:
    """One that would carry out all jobs at once."""
    worker = WorkerProcess(fleet, jobs=len(GUESTS))
    yield worker
    worker.kill()


@contextmanager
def at_most(fleet: Fleet, limit: int) -> Iterator[None]:
    """Counts the moves in flight all the time."""
    most, done = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(0.05):
            with fleet.database.read() as tx:
                statuses = Counter(migration.status for migration in tx.migrations.open())
            most = max(most, statuses[MigrationStatus.MIGRATING])

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield
    finally:
        done.set()
        looker.join()
    assert 0 < most <= limit


def all_are(fleet: Fleet, status: MigrationStatus, within: float) -> None:
    def found() -> list[MigrationStatus]:
        with fleet.database.read() as tx:
            return [migration.status for migration in tx.migrations.list()]

    assert wait_until(lambda: set(found()) == {status}, within, interval=0.5), found()


def test_a_host_is_drained(lab: Lab, fleet: Fleet, worker: WorkerProcess) -> None:
    console = Console(fleet.folder / "resizeflow.conf")
    h1, h2 = lab.hosts
    guests = [Guest(lab, name).create(h1, memory_mb=160, disks=[DiskSpec(1)]) for name in GUESTS]
    before = {}
    for guest in guests:
        before[guest.name] = guest.wait_report(boots=1, timeout=BOOT_WITHIN)
        fleet.inventory.adopt(h1.name, guest.name)

    with checks.never_two(lab, *GUESTS), at_most(fleet, AT_ONCE):
        assert {row["result"] for row in console.ask("host", "drain", h1.name)} == {"submitted"}
        assert {row["result"] for row in console.ask("host", "drain", h1.name)} == {"moving already"}
        console.type("host", "remove", h1.name).refused(4, "has managed instances")
        all_are(fleet, MigrationStatus.FINISHED, DRAINED_WITHIN)
        for guest in guests:
            report = guest.wait_report(boots=2, timeout=BOOT_WITHIN)
            checks.same_machine(before[guest.name], report)
            assert checks.runs_only_on(guest, h2.name)
            assert guest.ping()
        console.type("host", "remove", h1.name).refused(4, "is needed by open migrations")
        results = {row["result"] for row in console.ask("host", "drain", h1.name)}
        assert results == {"moved, to be confirmed or reverted"}
        for name in GUESTS:
            assert console.type("confirm", name, "--detach").code == 0
        all_are(fleet, MigrationStatus.CONFIRMED, DRAINED_WITHIN)

    assert console.ask("host", "drain", h1.name) == []
    assert [domain for guest in guests for domain in guest.states() if domain == h1.name] == []
    assert list(h1.pool_path.iterdir()) == []
    assert h1.qemu_pids() == []
    checks.healthy(fleet)
    assert console.type("host", "remove", h1.name).code == 0
    assert [row["name"] for row in console.ask("host", "list")] == [h2.name]
