"""What a volume adds to a resize, a confirm and a revert: calls of a real Cinder, seconds, commits. The hosts are
simulated.

The counts are exact; the seconds are printed and hold for a machine that has nothing else to do.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import astuple, dataclass

import pytest
import sqlalchemy as sa

from resizeflow.connections import Connections
from resizeflow.drivers.interface import Effect
from resizeflow.drivers.volume import EFFECTS
from resizeflow.states import JobState
from resizeflow.worker import Worker
from tests.lab.cinder_cloud import CinderStage
from tests.lab.conftest import StageMaker
from tests.searched import Calls

pytestmark = pytest.mark.lab

ROUNDS = 3
MORE_COMMITS = {"resize": 2, "confirm": 0, "revert": 1}
"""One for each attachment whose id is stored: the destination's and the way back; the way forth again."""


@dataclass(frozen=True)
class Cost:
    """Of one operation, from when a worker takes it up."""

    looks: int
    acts: int
    commits: int
    seconds: float


@pytest.mark.certify
@pytest.mark.parametrize("kind", ["rbd", "iscsi", "nfs"])
def test_a_volume_costs_a_commit_for_each_attachment(make_stage: StageMaker, kind: str) -> None:
    without, one = make_stage(), make_stage(kind)
    print("| operation | volume | looks | acts | commits | seconds |")
    for operation, commits in MORE_COMMITS.items():
        base, more = least(without, operation), least(one, operation)
        assert base.looks == base.acts == 0
        seconds = more.seconds - base.seconds
        print(
            f"| {operation:9} | {kind:6} | {more.looks:5} | {more.acts:4} | {more.commits - base.commits:7} "
            f"| {seconds:7.2f} |"
        )
        assert more.commits - base.commits == commits


def least(stage: CinderStage, operation: str) -> Cost:
    """The least of a few rounds: one that takes long saves its progress more often."""
    costs = [measured(stage, operation) for _ in range(ROUNDS)]
    return Cost(*map(min, zip(*map(astuple, costs), strict=True)))


def measured(stage: CinderStage, operation: str) -> Cost:
    cloud, job, calls, counts = stage.cloud, stage.begin(operation), Calls(), Counter[str]()

    def committed(_connection: object) -> None:
        counts["commits"] += 1

    sa.event.listen(cloud.database.engine, "commit", committed)
    began = time.monotonic()
    with Worker(
        cloud.database, cloud.settings, connections=Connections(calls.connect), clock=cloud.clock, announced=False
    ) as worker:
        worker.take_and_run(job.job_id)
    seconds = time.monotonic() - began
    sa.event.remove(cloud.database.engine, "commit", committed)
    assert cloud.job(job).state is JobState.DONE, cloud.story(job)
    counts.update(EFFECTS[method].value for line in calls.lines if (method := line.partition("(")[0]) in EFFECTS)
    return Cost(counts[Effect.LOOK.value], counts[Effect.ACT.value], counts["commits"], seconds)
