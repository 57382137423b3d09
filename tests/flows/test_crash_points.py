"""Every point of every flow: killed there, then resumed, or rolled back. The points are discovered, not listed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resizeflow.errors import Conflict
from resizeflow.persistence.events import broken_link
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.chaos.cloud import KILLED, Cloud

Submit = Callable[[Cloud], Submitted]


def resize(host: str) -> Submit:
    return lambda cloud: cloud.service.resize("web", "big", host=host)


def decide(action: str, host: str) -> Submit:
    def submit(cloud: Cloud) -> Submitted:
        job = cloud.service.resize("web", "big", host=host)
        assert cloud.run(job) is JobState.DONE
        return cloud.service.confirm("web") if action == "confirm" else cloud.service.revert("web")

    return submit


SCENARIOS: dict[str, tuple[Submit, bool, str]] = {
    "resize": (resize("h2"), True, "auto"),
    "resize-stream": (resize("h2"), True, "stream"),
    "resize-stopped": (resize("h2"), False, "auto"),
    "resize-same-host": (resize("h1"), True, "auto"),
    "confirm": (decide("confirm", "h2"), True, "auto"),
    "confirm-same-host": (decide("confirm", "h1"), True, "auto"),
    "confirm-same-host-stopped": (decide("confirm", "h1"), False, "auto"),
    "revert": (decide("revert", "h2"), True, "auto"),
    "revert-same-host": (decide("revert", "h1"), True, "auto"),
}


class Case:
    """A scenario at the moment its job is queued, copied for each point."""

    def __init__(self, name: str, folder: Path) -> None:
        submit, running, self.transfer = SCENARIOS[name]
        self.folder = folder
        template = folder / "template"
        template.mkdir()
        cloud = Cloud(template, transfer=self.transfer).build(running=running, disks=("vda", "vdb"))
        self.uuid = cloud.uuid
        self.before_submit = cloud.state()
        self.job = submit(cloud)
        self.before = cloud.state(self.job)
        self.count = 0

    def copy(self) -> Cloud:
        """A fresh copy of the template, with the world's file in the same place for the hosts' URIs."""
        self.count += 1
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        template = Cloud(self.folder / "template", transfer=self.transfer)
        cloud = Cloud(folder, transfer=self.transfer)
        for name in ("state.sqlite", "world.sqlite"):
            for suffix in ("", "-wal", "-shm"):
                source = template.folder / f"{name}{suffix}"
                if source.exists():
                    shutil.copy(source, folder / f"{name}{suffix}")
        _move_uris(cloud, template)
        cloud.uuid = self.uuid
        return cloud


def _move_uris(cloud: Cloud, template: Cloud) -> None:
    with cloud.database.write() as tx:
        for host in tx.hosts.list():
            host.uri = host.peer_uri = cloud.world.uri(host.name)
    assert template.folder != cloud.folder


def points_of(case: Case) -> list[str]:
    """The points that a clean run passes, in order, each once."""
    cloud = case.copy()
    log = cloud.folder / "points"
    assert cloud.run_in_child(case.job, log=log) == 0
    return list(dict.fromkeys(log.read_text().split()))


def check_log(cloud: Cloud, job: Submitted) -> None:
    with cloud.database.read() as tx:
        assert broken_link(tx.events.of(job.migration_id)) is None
    assert len(cloud.world.running(cloud.uuid)) <= 1


def sampled(points: list[str], every: int) -> list[str]:
    """Every `every`th point: neighbours in the order of the flow are alike."""
    return points[::every]


LEVELS = [40, pytest.param(6, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.certify)]


@pytest.fixture(params=LEVELS, ids=["few", "sample", "all"])
def every(request: pytest.FixtureRequest) -> int:
    """All points take minutes per scenario: they are for `scripts/certify`."""
    return int(request.param)


@pytest.fixture(params=SCENARIOS)
def case(request: pytest.FixtureRequest, memory_path: Path) -> Iterator[Case]:
    yield Case(request.param, memory_path)


def test_killed_anywhere_then_resumed_ends_as_if_never_killed(case: Case, every: int) -> None:
    clean = case.copy()
    assert clean.run(case.job) is JobState.DONE, clean.story(case.job)
    expected = clean.state(case.job)
    points = sampled(points_of(case), every)
    for point in points:
        cloud = case.copy()
        status = cloud.run_in_child(case.job, point)
        assert status in (KILLED, 0), f"{point}: {cloud.story(case.job)}"
        assert cloud.run(case.job, tries=3) is JobState.DONE, f"{point}: {cloud.story(case.job)}"
        assert without_uris(cloud.state(case.job)) == without_uris(expected), f"{point}: {cloud.story(case.job)}"
        check_log(cloud, case.job)
    print(f"{len(points)} points killed and resumed")
    assert len(points) * every >= 20


def test_killed_anywhere_then_rolled_back_is_as_before(case: Case, every: int) -> None:
    points, rolled_back, too_late = sampled(points_of(case), every), 0, 0
    for point in points:
        cloud = case.copy()
        cloud.run_in_child(case.job, point)
        if cloud.job(case.job).state is JobState.DONE:
            continue
        try:
            cloud.service.rollback(case.job.migration_id)
        except Conflict:
            too_late += 1
            continue
        assert cloud.run(case.job, tries=3) is JobState.DONE, f"{point}: {cloud.story(case.job)}"
        before = case.before_submit if cloud.job(case.job).flow == "resize_v1" else None
        check_as_before(cloud, case, before, point)
        rolled_back += 1
    print(f"{len(points)} points killed, {rolled_back} rolled back, {too_late} only go forward")
    assert (rolled_back + too_late) * every > 20


def check_as_before(cloud: Cloud, case: Case, before: dict[str, object] | None, point: str) -> None:
    migration = cloud.migration(case.job)
    story = f"{point}: {cloud.story(case.job)}"
    if before is not None:
        assert migration.status is MigrationStatus.ERROR, story
        assert without_uris(cloud.state(case.job)) == without_uris(before), story
    else:
        assert migration.status is MigrationStatus.FINISHED, story
        assert without_states(cloud.state(case.job)) == without_states(case.before), story
    check_log(cloud, case.job)


def without_uris(state: dict[str, object]) -> dict[str, object]:
    """Each run's world is another file."""
    tables = dict(state["tables"])  # type: ignore[call-overload]
    tables["hosts"] = [[cell for cell in row if "sim:" not in str(cell)] for row in tables["hosts"]]
    return {**state, "tables": tables}


def without_states(state: dict[str, object]) -> dict[str, object]:
    """A decision that was taken back leaves the task state None where its submit had set it."""
    cleaned = without_uris(state)
    tables = dict(cleaned["tables"])  # type: ignore[call-overload]
    tables["instances"] = [[c for c in row if c not in ("resize_reverting", None)] for row in tables["instances"]]
    return {**cleaned, "tables": tables}
