"""The 19 moments at which Nova was killed and did not recover: at each, only a new worker runs, and all is clean."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.states import JobState
from tests import nova_crash_points as crash
from tests.nova_crash_points import MOMENTS, Moment
from tests.seen import look
from tests.spread import spread

pytestmark = pytest.mark.slow

NAME = attrgetter("name")


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build(volumes=crash.VOLUMES)


def test_there_are_nineteen() -> None:
    names = "a1 a2 b1 b2 c d1 d2 e1 e2 f0 f1 f2 f3 f4 g1 g2 g3 g4 g5"
    assert [moment.name for moment in MOMENTS] == names.split()


@pytest.mark.parametrize("moment", MOMENTS, ids=NAME)
def test_only_a_new_worker_runs(cloud: Cloud, moment: Moment) -> None:
    job = crash.die(cloud, moment)
    assert cloud.job(job).state is not JobState.DONE
    left = look(cloud, job)
    crash.let_a_worker_run(cloud)
    found = crash.wrong(cloud, job, crash.DONE[moment.operation])
    assert found == [], cloud.story(job)
    page = crash.PAGE.read_text()
    assert crash.moment_row(moment, left) in page, "run python -m tests.nova_crash_points"
    assert crash.outcome_row(moment, look(cloud, job), found, expected_of_a_rollback(moment)) in page


@pytest.mark.parametrize("moment", spread(MOMENTS, 3), ids=NAME)
def test_a_rollback_is_asked_for(cloud: Cloud, moment: Moment) -> None:
    """It is as before; where it is refused, a new worker ends what was begun."""
    job = crash.die(cloud, moment)
    assert crash.rolled_back(cloud, moment, job) == expected_of_a_rollback(moment), cloud.story(job)


def expected_of_a_rollback(moment: Moment) -> str:
    return crash.AS_BEFORE[moment.operation] if moment.turns_back else crash.REFUSED


def test_what_is_wrong_is_seen(cloud: Cloud) -> None:
    job = crash.die(cloud, MOMENTS[2])
    found = crash.wrong(cloud, job, crash.FINISHED)
    assert "migrating instead of finished" in found
    assert any("the job is running" in sentence for sentence in found)
