"""Hosts that fail in each phase of a resize, a confirm and a revert: libvirtd killed, hung or restarted.

A real worker is stopped as it enters a phase, the host is made to fail, and the worker goes on. What must come of it:
the machine is resized or as before, whole, with its data; or the job waits and says for what. Never two of it, never a
start without proof of off, and nothing left over once the host is back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lab.host import Host
from lab.system import wait_until
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.fleet import Fleet
from tests.lab import checks
from tests.lab.conftest import FleetMaker, WorkerMaker
from tests.lab.faults import IMPATIENT, RESIZE, settle, waits_or_ended
from tests.lab.worker_process import WorkerProcess

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Fault:
    """A way for a host to fail, and back."""

    name: str
    begin: Callable[[Host], None]
    end: Callable[[Host], None]
    lasts: bool
    """Whether the host stays as it is until the worker has met it."""


def restart(host: Host) -> None:
    host.kill_libvirtd()
    host.start_libvirtd()


FAULTS = (
    Fault("killed", Host.kill_libvirtd, Host.start_libvirtd, lasts=True),
    Fault("hung", Host.hang_libvirtd, Host.unhang_libvirtd, lasts=True),
    Fault("restarted", restart, Host.start_libvirtd, lasts=False),
)
CONFIRM = {
    "check": "CheckDestination.RUNNING.after",
    "remove-domain": "RemoveSourceDomain.undefine#1.before",
    "remove-disks": "RemoveSourceDisks.delete_volume#2.before",
}
REVERT = {
    "power-off-again": "PowerOffDestination.shutdown#1.before",
    "retire-again": "RetireDestination.define#1.before",
    "restore": "RestoreSource.define#1.before",
    "start-again": "StartSource.start_paused#1.before",
    "pivot-back": "StartSource.commit.pivot#1.after",
    "remove-again": "RemoveDestination.undefine#1.before",
}
EACH_RUN = {("power-off", "h1", "hung"), ("transfer", "h2", "killed"), ("pivot", "h2", "hung")}


def cases(phases: dict[str, str]) -> list[object]:
    """Each phase, host and fault; all but a few only for certification."""
    return [
        pytest.param(
            point, host, fault, id=f"{phase}-{host}-{fault.name}",
            marks=[] if (phase, host, fault.name) in EACH_RUN else pytest.mark.certify,
        )
        for (phase, point), host, fault in itertools.product(phases.items(), ("h1", "h2"), FAULTS)
    ]  # fmt: skip


@pytest.mark.parametrize(("point", "host", "fault"), cases(RESIZE))
def test_resize(make_fleet: FleetMaker, make_worker: WorkerMaker, point: str, host: str, fault: Fault) -> None:
    fleet = make_fleet(**IMPATIENT, **({"bandwidth": "100"} if "progress" in point else {}))
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    status = moved_under(fleet, job, make_worker, point, host=host, fault=fault)
    if status is MigrationStatus.FINISHED:
        checks.is_resized(fleet, job, before, host="h2")
    else:
        assert status is MigrationStatus.ERROR, fleet.story(job)
        assert host == "h2", f"a source that comes back is waited for\n{fleet.story(job)}"
        checks.is_as_before(fleet, job, state, before)
        checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)


@pytest.mark.parametrize(("point", "host", "fault"), cases(CONFIRM))
def test_confirm(make_fleet: FleetMaker, make_worker: WorkerMaker, point: str, host: str, fault: Fault) -> None:
    fleet = make_fleet(**IMPATIENT)
    before = fleet.guest.wait_report()
    resized(fleet)
    job = fleet.service.confirm("web")
    suffer(fleet, job, make_worker(fleet, arm=f"{point}=stop"), host, fault)
    if fleet.migration(job).status is MigrationStatus.FINISHED:
        # The check did not find what it needed and nothing was deleted: confirmed again.
        assert "CheckDestination" in point, fleet.story(job)
        assert fleet.run(fleet.service.confirm("web")) is JobState.DONE, fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.CONFIRMED, fleet.story(job)
    checks.nothing_left_on(fleet, "h1")
    checks.is_resized(fleet, job, before, host="h2")
    checks.healthy(fleet)


@pytest.mark.parametrize(("point", "host", "fault"), cases(REVERT))
def test_revert(make_fleet: FleetMaker, make_worker: WorkerMaker, point: str, host: str, fault: Fault) -> None:
    fleet = make_fleet(**IMPATIENT)
    before, state = fleet.guest.wait_report(), fleet.state()
    resized(fleet)
    then = fleet.state()
    job = fleet.service.revert("web")
    status = moved_under(fleet, job, make_worker, point, host=host, fault=fault)
    if status is MigrationStatus.FINISHED:
        assert fleet.state() == then, fleet.story(job)
        checks.same_machine(before, checks.report_on(fleet, "h2", 2, vcpus=2))
        assert checks.runs_only_on(fleet.guest, "h2")
    else:
        assert status is MigrationStatus.REVERTED, fleet.story(job)
        checks.is_as_before(fleet, job, state, before)
        checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)


def resized(fleet: Fleet) -> None:
    """The machine is resized on h2, to be decided on."""
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    fleet.guest.wait_report(boots=2)


def moved_under(
    fleet: Fleet, job: Submitted, make_worker: WorkerMaker, point: str, *, host: str, fault: Fault
) -> MigrationStatus:
    """What a move comes to that meets a fault; two copies never run, nothing starts without proof of off."""
    with checks.never_two(fleet.lab, "web"):
        suffer(fleet, job, make_worker(fleet, arm=f"{point}=stop"), host, fault)
    checks.proof_before_start(fleet, job)
    status = fleet.migration(job).status
    print(f"{fault.name} {host} at {point}: {status}")
    return status


def suffer(fleet: Fleet, job: Submitted, worker: WorkerProcess, host_name: str, fault: Fault) -> None:
    """Has an armed worker meet a fault, ends the fault, and sees the job and its debts to their end."""
    host = fleet.lab.host(host_name)
    worker.wait_stopped()
    fault.begin(host)
    worker.go_on()
    assert wait_until(lambda: waits_or_ended(fleet, job), timeout=120, interval=0.3), fleet.story(job)
    now = fleet.job(job)
    if fault.lasts and now.state is not JobState.DONE:
        # It may wait for the other host, whose libvirtd waits for this one.
        assert re.search(r"\bh[12]\b", now.reason or ""), f"it waits and says for what\n{fleet.story(job)}"
    fault.end(host)
    worker.kill()  # armed as it is, it would stop there again
    assert fleet.run(job, tries=5) is JobState.DONE, f"{fleet.job(job).reason}\n{fleet.story(job)}"
    settle(fleet)
