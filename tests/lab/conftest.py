"""One lab for the flows' tests; each test gets its own machine in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.fleet import Fleet

FleetMaker = Callable[..., Fleet]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two real hosts. RESIZEFLOW_TEST_LAB names another lab for a second run beside this one."""
    lab = Lab(os.environ.get("RESIZEFLOW_TEST_LAB", "rf-flows"))
    lab.down()
    lab.up(hosts=2)
    yield lab
    lab.down()


@pytest.fixture
def make_fleet(lab: Lab, tmp_path: Path) -> Iterator[FleetMaker]:
    """Makes the machine and its database, and removes what is left of the machine afterwards."""
    made: list[Fleet] = []

    def make(*, running: bool = True, **settings: str) -> Fleet:
        fleet = Fleet(tmp_path, lab, **settings)
        made.append(fleet)
        return fleet.build_on_lab(running=running)

    yield make
    for fleet in made:
        fleet.clean()


@pytest.fixture
def fleet(make_fleet: FleetMaker) -> Fleet:
    """A running machine with a qcow2 and a raw disk on h1."""
    return make_fleet()
