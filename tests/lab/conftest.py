"""One lab for the flows' tests; each test gets its own machine in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.guest import DiskSpec, VolumeSpec
from lab.lab import Lab
from lab.neutron import Neutron
from lab.volumes import Volumes
from resizeflow.chaos.runner import work_folder
from resizeflow.tasks import bindings
from tests.fleet import DISKS, Fleet
from tests.lab import neutron_judge
from tests.lab.cinder_cloud import CinderCloud, CinderStage
from tests.lab.cinder_judge import wrong
from tests.lab.neutron_cloud import NeutronCloud, NeutronStage
from tests.lab.stage import Stage
from tests.lab.worker_process import WorkerProcess

FleetMaker = Callable[..., Fleet]
WorkerMaker = Callable[..., WorkerProcess]
CinderMaker = Callable[..., CinderCloud]
StageMaker = Callable[..., CinderStage]
NeutronMaker = Callable[..., NeutronCloud]
NeutronStageMaker = Callable[..., NeutronStage]


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

    def make(*kinds: str, **settings: str) -> CinderStage:
        place = Path(tempfile.mkdtemp(dir=folder))
        made.append(CinderCloud(place, storage, **settings).build_machine(*kinds))
        return Stage(made[-1], tmp_path_factory.mktemp("stage"), wrong)

    yield make
    for cloud in made:
        cloud.clean()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def neutron() -> Iterator[Neutron]:
    """A real Neutron that knows agents on the hosts of a small cloud. They plug a port in within a tenth of a second:
    whoever waits for that looks as often."""
    with Neutron() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bindings, "LOOK_EVERY", 0.1)
        server.add_agents("h1", "h2")
        yield server


@pytest.fixture
def make_neutron_cloud(neutron: Neutron, memory_path: Path) -> Iterator[NeutronMaker]:
    """Makes a cloud of simulated hosts with that Neutron, and ends its agents afterwards."""
    made: list[NeutronCloud] = []

    def make(**settings: Any) -> NeutronCloud:
        made.append(NeutronCloud(memory_path, neutron, **settings))
        return made[-1]

    yield make
    for cloud in made:
        cloud.clean()


@pytest.fixture(scope="module")
def make_neutron_stage(neutron: Neutron, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeutronStageMaker]:
    """Makes such a cloud with a machine that has so many ports, to be used again and again."""
    folder = work_folder()
    made: list[NeutronCloud] = []

    def make(ports: int = 1, **settings: Any) -> NeutronStage:
        place = Path(tempfile.mkdtemp(dir=folder))
        made.append(NeutronCloud(place, neutron, **settings).build_machine(ports))
        return Stage(made[-1], tmp_path_factory.mktemp("stage"), neutron_judge.wrong)

    yield make
    for cloud in made:
        cloud.clean()
    shutil.rmtree(folder)
