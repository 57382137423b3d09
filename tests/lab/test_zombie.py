"""A worker that is stopped between check and call, for longer than its lease, and goes on when another has finished.

For each kind of effect: nothing on the hosts, in their definitions and disks, or in any table changes any more. Every
second one is stopped with the processes that hold its connections, as on a machine that freezes.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.guest import VolumeSpec
from lab.lab import Lab
from lab.system import wait_until
from resizeflow.drivers.hypervisor import EFFECTS
from resizeflow.drivers.interface import Effect
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker
from tests.console import everything
from tests.fleet import Fleet
from tests.lab import checks
from tests.lab.conftest import FleetMaker, WorkerMaker
from tests.lab.worker_process import WorkerProcess

pytestmark = pytest.mark.lab

SHORT_LEASE = {"act_timeout": "8", "fence_window": "4", "lease_seconds": "19"}
"""The lab's libvirtd drops a silent client after three seconds."""
MIB = 1024**2
KINDS = {
    "shutdown": ("resize", "PowerOffSource.shutdown#1"),
    "set_autostart": ("resize", "RetireSource.set_autostart#1"),
    "define": ("resize", "RetireSource.define#1"),
    "create_volume": ("resize", "TransferDisks.create_volume#2"),
    "start_carrier": ("resize", "TransferDisks.start_carrier#1"),
    "make_swap": ("swap", "TransferDisks.make_swap#1"),
    "transfer": ("resize", "TransferDisks.transfer#1"),
    "stream": ("stream", "TransferDisks.stream#1"),
    "destroy": ("resize", "TransferDisks.destroy#1"),
    "grow_volume": ("resize", "ResizeDisks.grow_volume#1"),
    "start_paused": ("resize", "StartDestination.start_paused#1"),
    "resume": ("revert", "StartSource.resume#1"),
    "announce": ("resize", "StartDestination.announce#1"),
    "undefine": ("revert", "RemoveDestination.undefine#1"),
    "delete_volume": ("confirm", "RemoveSourceDisks.delete_volume#2"),
    "start_merge": ("merge", "MergeOverlays.start_merge#1"),
    "suspend": ("merge", "MergeOverlays.suspend#1"),
    "pivot_merge": ("merge", "MergeOverlays.pivot_merge#2"),
    "define_secret": ("volumes", "DefineDestination.define_secret#1"),
    "undefine_secret": ("volumes, revert", "RemoveDestination.undefine_secret#1"),
}
EACH_RUN = {"start_paused"}


def test_every_kind_of_effect_is_stopped_once() -> None:
    assert set(KINDS) == {method for method, effect in EFFECTS.items() if effect is not Effect.LOOK}


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        pytest.param(kind, number % 2 == 1, id=kind, marks=[] if kind in EACH_RUN else pytest.mark.certify)
        for number, kind in enumerate(KINDS)
    ],
)
def test_stopped_between_check_and_call(
    lab: Lab, make_fleet: FleetMaker, make_worker: WorkerMaker, kind: str, family: bool
) -> None:
    flow, point = KINDS[kind]
    volumes: tuple[VolumeSpec, ...] = ()
    if flow.startswith("volumes"):
        lab.up(hosts=2, volumes=True)
        volumes = (VolumeSpec("rbd"),)
    transfer = "stream" if flow == "stream" else "direct"
    fleet = make_fleet(**SHORT_LEASE, autostart=True, volumes=volumes, transfer=transfer)
    with checks.never_two(fleet.lab, "web"):
        job = submitted(fleet, flow)
        zombie = make_worker(fleet, arm=f"{point}.checked=stop")
        zombie.wait_stopped()
        if family:
            zombie.stop(family=True)
        taken_over_and_finished(fleet, job, boots=2)
        seen = world(fleet)
        zombie.go_on()
        gives_up(zombie)
        assert world(fleet) == seen, fleet.story(job)
    assert zombie.end() == 0
    assert fleet.guest.ping()
    checks.healthy(fleet)


@pytest.mark.parametrize("family", [pytest.param(False, id="worker"), pytest.param(True, id="worker-and-its-copy")])
@pytest.mark.certify
def test_stopped_in_the_middle_of_a_stream(make_fleet: FleetMaker, make_worker: WorkerMaker, family: bool) -> None:
    """The copy is another process. What the machine writes on its new disk must not be overwritten by an old copy."""
    fleet = make_fleet(**SHORT_LEASE, transfer="stream", bandwidth="2")
    offset, length = 100 * MIB, 96 * MIB
    write(fleet.lab.host("h1").pool_path / "web-vdb.raw", offset, os.urandom(length))
    job = submitted(fleet, "stream")
    zombie = make_worker(fleet, arm="TransferDisks.commit.segments#2.after=stop")
    zombie.wait_stopped()
    if family:
        zombie.stop(family=True)
    taken_over_and_finished(fleet, job, boots=2, bandwidth=0)
    new = next(path for path in fleet.lab.host("h2").pool_path.iterdir() if path.suffix == ".raw")
    written = os.urandom(length)
    write(new, offset, written)
    seen = world(fleet)
    zombie.go_on()
    gives_up(zombie)
    assert world(fleet) == seen, fleet.story(job)
    assert zombie.end() == 0
    with new.open("rb") as disk:
        disk.seek(offset)
        assert disk.read(length) == written, "an old copy has overwritten what the machine wrote"


def submitted(fleet: Fleet, flow: str) -> Submitted:
    """The job of which one effect is stopped, after what must come before it."""
    if flow in ("resize", "stream", "volumes"):
        return fleet.service.resize("web", "big", host="h2")
    if flow == "swap":
        fleet.inventory.create_flavor("swapping", vcpus=2, memory_mb=384, root_gb=2, ephemeral_gb=1, swap_mb=64)
        return fleet.service.resize("web", "swapping", host="h2")
    before = fleet.service.resize("web", "big", host="h1" if flow == "merge" else "h2")
    assert fleet.run(before) is JobState.DONE, fleet.story(before)
    fleet.guest.wait_report(boots=2)
    return fleet.service.revert("web") if flow.endswith("revert") else fleet.service.confirm("web")


def taken_over_and_finished(fleet: Fleet, job: Submitted, *, boots: int, **settings: Any) -> None:
    """Another worker waits for the end of the lease, takes the job over and sees it to its end."""
    with Worker(fleet.database, replace(fleet.settings, **settings)) as successor:
        assert successor.finish(job.job_id) is JobState.DONE, fleet.story(job)
    assert fleet.job(job).epoch == 2, fleet.story(job)
    fleet.guest.wait_report(boots=boots)


def gives_up(zombie: WorkerProcess) -> None:
    """It finds out by itself that the job is another's."""

    def told() -> bool:
        return "another worker has taken this job over" in zombie.log.read_text()

    assert wait_until(told, timeout=60), zombie.log.read_text()


def world(fleet: Fleet) -> dict[str, Any]:
    """All that a zombie could change: definitions, disks, processes, boots, and every row but those of workers, and of
    the seals: any worker that is awake seals what is in the log, whose lines are compared."""
    rows = everything(fleet)
    for table in ("workers", "event_logs", "seals"):
        rows.pop(table)
    return {
        "rows": rows,
        "hosts": fleet.state()["hosts"],
        "files": {host.name: sorted(path.name for path in host.pool_path.iterdir()) for host in fleet.lab.hosts},
        "machines": {host.name: sorted(host.qemu_pids()) for host in fleet.lab.hosts},
        "boots": [(report["host"], report["boots"]) for report in fleet.guest.reports()],
    }


def write(disk: Path, offset: int, content: bytes) -> None:
    """Puts bytes where the guest does not look."""
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(content)
