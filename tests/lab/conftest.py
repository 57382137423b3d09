"""One lab for the flows' tests; each test gets its own machine in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.guest import DiskSpec, VolumeSpec
from lab.lab import Lab
from lab.volumes import Volumes
from resizeflow.chaos.runner import work_folder
from tests.fleet import DISKS, Fleet
from tests.lab.cinder_cloud import CinderCloud
from tests.lab.cinder_stage import Stage
from tests.lab.worker_process import WorkerProcess

FleetMaker = Callable[..., Fleet]
WorkerMaker = Callable[..., WorkerProcess]
CinderMaker = Callable[..., CinderCloud]
StageMaker = Callable[..., Stage]


@pytest.fixture(scope="session")
def lab_name() -> str:
    """RESIZEFLOW_TEST_LAB names another lab for a second run beside this one."""
    return os.environ.get("RESIZEFLOW_TEST_LAB", "rf-flows")


@pytest.fixture(scope="session")
def lab(lab_name: str) -> Iterator[Lab]:
    """Two real hosts."""
    lab = Lab(lab_name)
    lab.down()
    lab.up(hosts=2)
    yield lab
    lab.down()


@pytest.fixture
def make_fleet(lab: Lab, tmp_path: Path) -> Iterator[FleetMaker]:
    """Makes the machine and its database, and removes what is left of the machine afterwards."""
    made: list[Fleet] = []

    def make(
        *,
        running: bool = True,
        autostart: bool = False,
        disks: tuple[DiskSpec, ...] = DISKS,
        volumes: tuple[VolumeSpec, ...] = (),
        **settings: str,
    ) -> Fleet:
        fleet = Fleet(tmp_path, lab, **settings)
        made.append(fleet)
        return fleet.build_on_lab(running=running, autostart=autostart, disks=disks, volumes=volumes)

    yield make
    for fleet in made:
        fleet.clean()


@pytest.fixture
def make_worker(make_fleet: FleetMaker) -> Iterator[WorkerMaker]:
    """Starts `resizeflow worker` as a process. All are gone before the machine is removed."""
    made: list[WorkerProcess] = []

    def make(fleet: Fleet, **how: Any) -> WorkerProcess:
        made.append(WorkerProcess(fleet, **how))
        return made[-1]

    yield make
    for worker in made:
        worker.kill()


@pytest.fixture
def fleet(make_fleet: FleetMaker) -> Fleet:
    """A running machine with a qcow2 and a raw disk on h1."""
    return make_fleet()


@pytest.fixture(scope="session")
def storage(lab_name: str) -> Iterator[Volumes]:
    """A real Cinder on Ceph, iSCSI and NFS, without hosts."""
    lab = Lab(f"{lab_name}-cinder")
    lab.down()
    lab.volumes.up()
    yield lab.volumes
    lab.down()


@pytest.fixture
def make_cinder_cloud(storage: Volumes, memory_path: Path) -> Iterator[CinderMaker]:
    """Makes a cloud of simulated hosts with that Cinder, and removes its volumes afterwards."""
    made: list[CinderCloud] = []

    def make(**settings: str) -> CinderCloud:
        made.append(CinderCloud(memory_path, storage, **settings))
        return made[-1]

    yield make
    for cloud in made:
        cloud.clean()


@pytest.fixture(scope="module")
def make_stage(storage: Volumes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StageMaker]:
    """Makes such a cloud with a machine that has volumes of some kinds, to be used again and again."""
    folder = work_folder()
    made: list[CinderCloud] = []

    def make(*kinds: str, **settings: str) -> Stage:
        place = Path(tempfile.mkdtemp(dir=folder))
        made.append(CinderCloud(place, storage, **settings).build_machine(*kinds))
        return Stage(made[-1], tmp_path_factory.mktemp("stage"))

    yield make
    for cloud in made:
        cloud.clean()
    shutil.rmtree(folder)
