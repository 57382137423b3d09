"""The link to a host cut, for a while and for good: the way between the hosts alone, or the way of the worker too.

A worker reaches the lab's hosts through sockets in the file system, which no cable carries: with those, a cut link is
a cut between the hosts. For a host that is cut off from everybody the worker runs at the lab's switch, and knows the
hosts by their addresses.
"""

from __future__ import annotations

import itertools
import time

import pytest

from lab.system import wait_until
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.fleet import Fleet
from tests.lab import checks
from tests.lab.conftest import FleetMaker, WorkerMaker
from tests.lab.faults import IMPATIENT, RESIZE, by_address, settle, waits_or_ended
from tests.lab.worker_process import WorkerProcess

pytestmark = pytest.mark.lab

IN_MID_TRANSFER = RESIZE["transfer"]


def test_between_the_hosts_for_a_while(make_fleet: FleetMaker, make_worker: WorkerMaker) -> None:
    fleet = make_fleet(transfer="direct", bandwidth="100")
    before = fleet.guest.wait_report()
    job = fleet.service.resize("web", "big", host="h2")
    worker = stopped_at(fleet, make_worker, IN_MID_TRANSFER)
    fleet.lab.host("h2").cut_link()
    worker.go_on()
    time.sleep(5)  # libvirtd drops who is silent for three
    fleet.lab.host("h2").restore_link()
    ends(fleet, job)
    checks.is_resized(fleet, job, before, host="h2")
    checks.healthy(fleet)


@pytest.mark.certify
def test_between_the_hosts_for_good_in_mid_transfer(make_fleet: FleetMaker, make_worker: WorkerMaker) -> None:
    fleet = make_fleet(transfer="direct", bandwidth="100", stall_timeout="4")
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    worker = stopped_at(fleet, make_worker, IN_MID_TRANSFER)
    fleet.lab.host("h2").cut_link()
    worker.go_on()
    ends(fleet, job)
    assert fleet.migration(job).status is MigrationStatus.ERROR, fleet.story(job)
    checks.is_as_before(fleet, job, state, before)
    checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)


@pytest.mark.certify
def test_between_the_hosts_for_good_the_disks_go_through_the_worker(
    make_fleet: FleetMaker, make_worker: WorkerMaker
) -> None:  # fmt: skip
    fleet = make_fleet(stall_timeout="4")
    before = fleet.guest.wait_report()
    job = fleet.service.resize("web", "big", host="h2")
    worker = stopped_at(fleet, make_worker, "TransferDisks.RUNNING.after")
    fleet.lab.host("h2").cut_link()
    worker.go_on()
    ends(fleet, job)
    assert "the disks go through the worker instead" in fleet.story(job)
    fleet.lab.host("h2").restore_link()
    checks.is_resized(fleet, job, before, host="h2")
    checks.healthy(fleet)


@pytest.mark.certify
@pytest.mark.parametrize(("phase", "host"), list(itertools.product(RESIZE, ("h1", "h2"))))
def test_a_host_cut_off_from_everybody(
    make_fleet: FleetMaker, make_worker: WorkerMaker, phase: str, host: str
) -> None:  # fmt: skip
    """For good, as far as the worker can know: it has waited as long as it would. Then the link is back after all."""
    fleet = make_fleet(**IMPATIENT, transfer="direct", bandwidth="100")
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    by_address(fleet, True)
    with checks.never_two(fleet.lab, "web"):
        worker = stopped_at(fleet, make_worker, RESIZE[phase], within=fleet.lab.at_switch)
        fleet.lab.host(host).cut_link()
        worker.go_on()
        assert wait_until(lambda: waits_or_ended(fleet, job), timeout=120, interval=0.3), fleet.story(job)
        alone(fleet, job, phase, host)
        fleet.lab.host(host).restore_link()
        worker.kill()
        by_address(fleet, False)
        assert fleet.run(job, tries=5) is JobState.DONE, fleet.story(job)
        settle(fleet)
    checks.proof_before_start(fleet, job)
    if fleet.migration(job).status is MigrationStatus.ERROR:
        checks.is_as_before(fleet, job, state, before)
        checks.nothing_left_on(fleet, "h2")
    else:
        checks.is_resized(fleet, job, before, host="h2")
    checks.healthy(fleet)


def alone(fleet: Fleet, job: Submitted, phase: str, host: str) -> None:
    """What has come of the job while the host is cut off."""
    now, status = fleet.job(job), fleet.migration(job).status
    print(f"{host} cut off in {phase}: {status}, {now.state}: {now.reason}")
    if now.state is not JobState.DONE:
        assert now.reason is not None and host in now.reason, f"it waits and says for what\n{fleet.story(job)}"
        return
    if status is MigrationStatus.FINISHED:
        assert host == "h1", "nobody can have seen it run on h2"
        return
    assert (host, status) == ("h2", MigrationStatus.ERROR), fleet.story(job)
    assert checks.runs_only_on(fleet.guest, "h1") and fleet.guest.ping()
    with fleet.database.read() as tx:
        # Whatever TransferDisks may have made there is owed; a host that was only looked at owes nothing.
        assert bool(tx.debts.open()) == (phase != "before-power-off"), fleet.story(job)


def stopped_at(fleet: Fleet, make_worker: WorkerMaker, point: str, **how: object) -> WorkerProcess:
    worker = make_worker(fleet, arm=f"{point}=stop", **how)
    worker.wait_stopped()
    return worker


def ends(fleet: Fleet, job: Submitted) -> None:
    assert wait_until(lambda: fleet.job(job).state is JobState.DONE, 240, interval=0.3), fleet.story(job)
