"""The rest of the operation on real hosts: a guest's own time to shut down, and a resized machine that is removed."""

from __future__ import annotations

import pytest

from resizeflow.states import JobState, MigrationStatus, VmState
from tests.fleet import Fleet
from tests.lab import checks

CLEANLY, HARD = "web shut down cleanly", "web did not shut down within 0 s, it is powered off hard"

pytestmark = pytest.mark.lab


def test_a_guest_s_own_time_to_shut_down(fleet: Fleet) -> None:
    before = fleet.guest.wait_report()
    fleet.inventory.set_instance("web", shutdown_timeout=0.0)
    resize = fleet.service.resize("web", "big", host="h2")
    assert fleet.run(resize) is JobState.DONE, fleet.story(resize)
    assert HARD in fleet.story(resize)
    assert CLEANLY not in fleet.story(resize)
    fleet.guest.wait_report(boots=2)
    # Its own time holds on the destination as well.
    fleet.inventory.set_instance("web", shutdown_timeout=90.0)
    revert = fleet.service.revert("web")
    assert fleet.run(revert) is JobState.DONE, fleet.story(revert)
    assert fleet.story(revert).count(CLEANLY) == 1
    checks.same_machine(before, fleet.guest.wait_report(boots=2))
    assert checks.runs_only_on(fleet.guest, "h1")


def test_a_resized_machine_is_removed(fleet: Fleet) -> None:
    fleet.guest.wait_report()
    resize = fleet.service.resize("web", "big", host="h2")
    assert fleet.run(resize) is JobState.DONE, fleet.story(resize)
    report = fleet.guest.wait_report(boots=2)
    job = fleet.service.remove("web")
    assert job is not None
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.CONFIRMED
    with fleet.database.read() as tx:
        assert tx.instances.list() == []
        assert tx.hosts.allocations() == []
    # The guest runs on where it is, of the way back nothing is left.
    assert checks.runs_only_on(fleet.guest, "h2")
    assert fleet.guest.wait_report(boots=2) == report
    checks.nothing_left_on(fleet, "h1")
    fleet.inventory.adopt("h2", "web")
    with fleet.database.read() as tx:
        assert tx.instances.get("web").vm_state is VmState.ACTIVE
