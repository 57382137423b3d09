"""The destination's disk is full in the middle of a transfer: the machine is as before, and the reason is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lab import Lab
from lab.system import wait_until
from resizeflow.states import JobState, MigrationStatus
from tests.lab import checks
from tests.lab.conftest import FleetMaker, WorkerMaker

pytestmark = pytest.mark.lab

MIB = 1024**2
ROOM = 48 * MIB
"""What is left of the pool; the disks hold more than twice as much."""


@pytest.fixture(scope="module")
def lab(lab_name: str) -> Iterator[Lab]:
    """Hosts of its own, whose pools are small."""
    lab = Lab(f"{lab_name}-small")
    lab.down()
    lab.up(hosts=2, pool_size="320M")
    yield lab
    lab.down()


@pytest.mark.parametrize("transfer", ["direct", pytest.param("stream", marks=pytest.mark.certify)])
def test_full_in_mid_transfer(make_fleet: FleetMaker, make_worker: WorkerMaker, transfer: str) -> None:
    fleet = make_fleet(transfer=transfer)
    for host in fleet.lab.hosts:
        fleet.inventory.set_host(host.name, disk_gb=100)  # so much may be promised; the pool is what there is
    with (fleet.lab.host("h1").pool_path / "web-vdb.raw").open("r+b") as disk:
        disk.seek(600 * MIB)
        disk.write(os.urandom(96 * MIB))
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    method = "transfer" if transfer == "direct" else "stream"
    worker = make_worker(fleet, arm=f"TransferDisks.{method}#1.checked=stop")
    worker.wait_stopped()
    filler = fleet.lab.host("h2").pool_path / "filler"
    fill(filler)
    worker.go_on()
    assert wait_until(lambda: fleet.job(job).state is JobState.DONE, 240, interval=0.3), fleet.story(job)
    filler.unlink()
    assert fleet.migration(job).status is MigrationStatus.ERROR, fleet.story(job)
    assert f"{method} started on h1" in fleet.story(job)
    assert "space" in fleet.story(job) or "full" in fleet.story(job), fleet.story(job)
    checks.is_as_before(fleet, job, state, before)
    checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)


def fill(filler: Path) -> None:
    """Takes what there is but for ROOM: the last byte is missing in the middle of the copy."""
    free = shutil.disk_usage(filler.parent).free
    with filler.open("wb") as file:
        for _ in range((free - ROOM) // MIB):
            file.write(bytes(MIB))
