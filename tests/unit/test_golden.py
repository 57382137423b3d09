"""Jobs that died in flight under an older version: upgraded, resumed, and rolled back where that is possible still.

The sets are made by `tests/golden/make.py`; each is named by the schema that it was made with. What a case must come to
is what its flow comes to if it is upgraded while it is queued and nothing ever happens to it.
"""

from __future__ import annotations

import json
import lzma
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.chaos.runner import work_folder
from resizeflow.errors import Conflict
from resizeflow.persistence import schema
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState
from tests.golden import make

SETS = sorted((Path(__file__).parents[1] / "golden").glob("*.json.xz"))
FEW, SOME = 44, 11
"""Each so many-th case is in every quick run, and in every run; certification runs all."""


@cache
def pictures(file: Path) -> dict[str, Any]:
    return dict(json.loads(lzma.decompress(file.read_bytes())))


def cases() -> list[Any]:
    names = [(file, name) for file in SETS for name in pictures(file)]
    return [
        pytest.param(file, name, id=f"{file.name.split('.')[0]}/{name}", marks=marks_of(number))
        for number, (file, name) in enumerate(names)
    ]


def marks_of(number: int) -> list[pytest.MarkDecorator]:
    if number % SOME:
        return [pytest.mark.certify]
    return [pytest.mark.slow] if number % FEW else []


def upgraded(file: Path, name: str, folder: Path) -> tuple[Cloud, Submitted]:
    folder.mkdir()
    cloud, job = make.restore(pictures(file)[name], folder)
    schema.upgrade(cloud.database)
    return cloud, job


def comparable(cloud: Cloud, job: Submitted) -> str:
    """All that is, without the folder and the ids that differ from flow to flow."""
    return repr(cloud.state(job)).replace(str(cloud.folder), "FOLDER")


@cache
def outcome(file: Path, flow: str, back: bool) -> str:
    """What a flow comes to from its queue, straight or rolled back at once."""
    folder = work_folder()
    try:
        cloud, job = upgraded(file, f"{flow}/queued", folder / "undisturbed")
        if back:
            cloud.service.rollback(job.migration_id)
        assert cloud.run(job, tries=2) is JobState.DONE, cloud.story(job)
        return comparable(cloud, job)
    finally:
        shutil.rmtree(folder)


def finish(cloud: Cloud, job: Submitted, expected: str) -> None:
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    assert comparable(cloud, job) == expected, cloud.story(job)
    assert len(cloud.world.running(cloud.migration(job).instance_id)) == 1
    with cloud.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None


@pytest.mark.parametrize(("file", "name"), cases())
def test_a_job_in_flight_is_resumed(file: Path, name: str, memory_path: Path) -> None:
    cloud, job = upgraded(file, name, memory_path / "case")
    back = cloud.job(job).direction is Direction.BACK
    finish(cloud, job, outcome(file, name.partition("/")[0], back))


@pytest.mark.parametrize(("file", "name"), cases())
def test_a_job_in_flight_is_rolled_back(file: Path, name: str, memory_path: Path) -> None:
    cloud, job = upgraded(file, name, memory_path / "case")
    with cloud.database.read() as tx:
        only_forward = tx.jobs.get(job.job_id).pivot_at is not None or tx.jobs.get(job.job_id).flow == "confirm_v1"
    if only_forward:
        with pytest.raises(Conflict):
            cloud.service.rollback(job.migration_id)
        return
    cloud.service.rollback(job.migration_id)
    finish(cloud, job, outcome(file, name.partition("/")[0], True))


@pytest.mark.parametrize(("file", "schema"), [(SETS[0], "0001"), (SETS[1], "0002")])
def test_a_set_is_of_its_schema_and_has_every_flow(file: Path, schema: str) -> None:
    cases = pictures(file)
    assert {name.partition("/")[0] for name in cases} == set(make.FLOWS)
    assert {make.revision(picture) for picture in cases.values()} == {schema}
    for flow in make.FLOWS:
        assert sum(name.startswith(f"{flow}/") for name in cases) > 5


def test_every_run_has_each_flow_of_each_set() -> None:
    chosen = {
        (case.values[0], case.values[1].partition("/")[0]) for case in cases() if pytest.mark.certify not in case.marks
    }
    assert len(chosen) == len(SETS) * len(make.FLOWS)
