"""The doctor on real hosts: it finds nothing where nothing is wrong, and what somebody did by hand."""

from __future__ import annotations

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.doctor import Doctor, Report
from resizeflow.states import JobState
from tests.fleet import Fleet

pytestmark = pytest.mark.lab


def examine(fleet: Fleet) -> Report:
    return Doctor(fleet.database, fleet.settings, connections=fleet.connections).examine()


def check_clean(fleet: Fleet) -> None:
    report = examine(fleet)
    assert report.breaches == ()
    assert report.complete


def test_nothing_is_wrong_with_what_we_did(fleet: Fleet) -> None:
    check_clean(fleet)
    job = fleet.service.resize("web", "big", host="h2")
    for point in ("TransferDisks.transfer.running", "DefineDestination.define#1.after"):
        assert fleet.run_in_child(job, point) == KILLED
        check_clean(fleet)
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    check_clean(fleet)
    assert fleet.run(fleet.service.confirm("web")) is JobState.DONE, fleet.story(job)
    check_clean(fleet)
    same = fleet.service.migrate("web", host="h1")
    assert fleet.run(same) is JobState.DONE, fleet.story(same)
    assert fleet.run(fleet.service.revert("web")) is JobState.DONE, fleet.story(same)
    check_clean(fleet)


def test_what_was_done_by_hand_is_found(fleet: Fleet) -> None:
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    source, destination = fleet.lab.host("h1"), fleet.lab.host("h2")
    source.virsh("undefine", "web")
    destination.virsh("setvcpus", "web", "1", "--config", "--maximum")
    assert [(breach.invariant, breach.subject) for breach in examine(fleet).breaches] == [
        (7, "instance web"),
        (7, f"migration {job.migration_id}"),
    ]
