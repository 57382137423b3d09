"""Hosts and Cinder that fail in the middle of a flow as real ones do: all is as if nothing had happened, or as before.

At an act the connection turns out to be gone, the call never arrives, its reply is lost, it dies half-way, or the host
hangs at it and has done it when it answers again; then the job goes on, or is rolled back by another worker.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resizeflow.chaos.case import Case
from resizeflow.chaos.laboratory import Laboratory
from resizeflow.drivers.simulator.faults import HALVES

SCENARIOS = ("resize", "resize-stream", "resize-same-host", "confirm-same-host", "revert")
FAULTS = ("drop", "miss", "half", "hang")
FEW = 50
"""Each so many-th case is in every run."""


@pytest.fixture(scope="module", params=SCENARIOS)
def laboratory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory(request.param, tmp_path_factory.mktemp("faulty") / request.param)
    yield made
    made.remove()


def cases(laboratory: Laboratory) -> list[Case]:
    """Each fault at each act, then the flow goes on, or its worker dies when the task is through and it is undone."""
    found = []
    for point in laboratory.points:
        act, _, moment = point.rpartition(".")
        task, _, method = act.partition(".")
        if moment != "checked":
            continue
        for fault in FAULTS:
            if fault == "half" and method.partition("#")[0] not in HALVES:
                continue
            if fault in ("drop", "hang") and task == "RemoveDestination":
                continue  # What cannot be removed now is owed: tests/unit/test_debts.py.
            case = Case(laboratory.name, (f"{fault}@{point}",))
            found += [case, case.then(f"kill@{task}.SUCCESS.before", "rollback")]
    return found


@pytest.mark.parametrize(
    "every", [pytest.param(FEW, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.certify)], ids=["few", "all"]
)
def test_a_fault_at_an_act(laboratory: Laboratory, every: int) -> None:
    tried = cases(laboratory)[::every]
    assert len(tried) * every > FEW
    for case in tried:
        result = laboratory.run(case)
        assert result.wrong == [], f"{case.name}\n{result.story}"


@pytest.mark.slow
def test_what_is_half_made_is_made_anew(laboratory: Laboratory) -> None:
    halves = [case for case in cases(laboratory) if case.words[0].startswith("half@") and len(case.words) == 1]
    for case in halves:
        result = laboratory.run(case)
        assert result.wrong == [], f"{case.name}\n{result.story}"
    assert bool(halves) == (laboratory.name != "confirm-same-host")
