"""A worker that is stopped where it is surest of itself, sleeps longer than its lease, and goes on when another worker
has finished: nothing changes any more, on any host, in any table, in the log of effects.

It sleeps by its clocks: its CLOCK_BOOTTIME is later by a million seconds when it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from resizeflow.chaos.case import Case
from resizeflow.chaos.laboratory import Laboratory

pytestmark = pytest.mark.slow

FEW = 5
SCENARIOS = ("resize", "resize-stream", "confirm-same-host", "revert")
LATER_NEWS = re.compile(r"segments#(?!1\b)|progress#")
"""How often a copy's progress is written down depends on the machine's speed: only a stream's first time is sure."""
AMOUNTS = [FEW, pytest.param(None, marks=pytest.mark.certify)]


@pytest.fixture(scope="module", params=SCENARIOS)
def laboratory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory(request.param, tmp_path_factory.mktemp("zombie") / request.param)
    yield made
    made.remove()


def spread(points: list[str], amount: int | None) -> list[str]:
    """So many of the points, from all over the flow."""
    return points if amount is None else points[:: max(1, len(points) // amount)]


def check(laboratory: Laboratory, points: list[str]) -> None:
    for point in points:
        result = laboratory.run(Case(laboratory.name, (f"stop@{point}",)))
        assert result.happened, point
        assert result.wrong == [], f"{result.case.name}\n{result.story}"


@pytest.mark.parametrize("amount", AMOUNTS, ids=["few", "all"])
def test_stopped_between_check_and_call(laboratory: Laboratory, amount: int | None) -> None:
    points = [point for point in laboratory.points if point.endswith(".checked")]
    assert len(points) > FEW
    check(laboratory, spread(points, amount))


@pytest.mark.parametrize("amount", AMOUNTS, ids=["few", "all"])
def test_stopped_before_a_commit(laboratory: Laboratory, amount: int | None) -> None:
    acts = {point.removesuffix(".checked") for point in laboratory.points if point.endswith(".checked")}
    points = [
        point
        for point in laboratory.points
        if point.endswith(".before") and point.removesuffix(".before") not in acts and not LATER_NEWS.search(point)
    ]
    assert len(points) > FEW
    check(laboratory, spread(points, amount))
