"""Moments of a cloud with a real service, kept, so that one machine serves for many cases.

Records and hosts come back by a copy of their files, and so does Cinder or Neutron, whose state is its database: on the
storage a resize changes nothing but who is connected.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from resizeflow.chaos.child import Child
from resizeflow.chaos.cloud import CHILD_SECONDS
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.lab.real_cloud import RealCloud

C = TypeVar("C", bound=RealCloud)
Judge = Callable[[C, Submitted], list[str]]
"""All that is wrong with a cloud once a job has ended, in sentences."""

DONE = {
    "resize": MigrationStatus.FINISHED,
    "confirm": MigrationStatus.CONFIRMED,
    "revert": MigrationStatus.REVERTED,
}
TURNED_BACK = {
    "resize": MigrationStatus.ERROR,
    "confirm": MigrationStatus.FINISHED,
    "revert": MigrationStatus.FINISHED,
}
RUNS = 4
"""In so many runs a job must be done, once nothing goes wrong any more."""
FILES = ("state.sqlite", "state.sqlite-wal", "world.sqlite", "world.sqlite-wal")


class Moment:
    """Records, hosts and the real service as they were once."""

    def __init__(self, cloud: RealCloud, folder: Path) -> None:
        self._cloud = cloud
        self._folder = folder
        folder.mkdir()
        with cloud.still():
            _copy(cloud.folder, folder)
            _copy_database(cloud.service_database, folder / "service.sqlite")

    def restore(self) -> None:
        """It is then again."""
        with self._cloud.still():
            _copy(self._folder, self._cloud.folder)
            _copy_database(self._folder / "service.sqlite", self._cloud.service_database)


class Stage(Generic[C]):
    """A machine at rest, or resized and not yet decided on, as often as it is wanted, and operations on it."""

    job: Submitted
    """The operation that was begun last."""

    def __init__(self, cloud: C, folder: Path, judge: Judge[C]) -> None:
        self.cloud = cloud
        self._judge = judge
        self.at_rest = Moment(cloud, folder / "at-rest")
        job = ask(cloud, "resize")
        if cloud.run(job) is not JobState.DONE:
            raise RuntimeError(f"the machine was not resized:\n{cloud.story(job)}")
        self.resized = Moment(cloud, folder / "resized")

    def begin(self, operation: str) -> Submitted:
        """The operation is asked for, in the state that it needs."""
        (self.at_rest if operation == "resize" else self.resized).restore()
        return self.ask(operation)

    def ask(self, operation: str) -> Submitted:
        """The operation is asked for, as things are."""
        self._operation = operation
        self.job = ask(self.cloud, operation)
        return self.job

    def check_waits(self, why: str) -> None:
        """The job waits, and says for what."""
        row = self.cloud.job(self.job)
        assert row.state is JobState.QUEUED, self.cloud.story(self.job)
        assert (row.reason or "").startswith(why), row.reason

    def check_done(self) -> None:
        """Workers end the job, and everything is as after an undisturbed one."""
        self._finish()
        assert self.cloud.migration(self.job).status is DONE[self._operation], self.cloud.story(self.job)
        assert self._judge(self.cloud, self.job) == [], self.cloud.story(self.job)

    def check_turned_back(self) -> None:
        """Workers turn the job back, and everything is as before it."""
        self._finish()
        assert self.cloud.migration(self.job).status is TURNED_BACK[self._operation], self.cloud.story(self.job)
        assert self._judge(self.cloud, self.job) == [], self.cloud.story(self.job)

    def _finish(self) -> None:
        self.cloud.run(self.job, tries=RUNS)


def paused_at(cloud: RealCloud, job: Submitted, point: str) -> Child:
    """A worker that runs a job and has stopped itself at a point."""
    cloud.expire(job)
    cloud.release()
    child = Child(lambda: cloud.run(job), f"{point}=stop")
    if not child.stops(CHILD_SECONDS):
        child.wait(0)
        raise LookupError(f"the worker did not come to {point}:\n{cloud.story(job)}")
    return child


def go_on(worker: Child) -> None:
    """Lets a stopped worker go on, to the end of its run."""
    worker.wake(0)
    if (status := worker.wait(CHILD_SECONDS)) != 0:
        raise RuntimeError(f"a worker ended with {status}")


def ask(cloud: RealCloud, operation: str) -> Submitted:
    """Asks for an operation."""
    if operation == "resize":
        return cloud.service.resize(cloud.machine, "big", host="h2")
    return cloud.service.confirm(cloud.machine) if operation == "confirm" else cloud.service.revert(cloud.machine)


def _copy(source: Path, target: Path) -> None:
    for name in (*FILES, "state.sqlite-shm", "world.sqlite-shm"):
        (target / name).unlink(missing_ok=True)
    for name in FILES:
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def _copy_database(source: Path, target: Path) -> None:
    """In one transaction: who has the target open, as the service has its own, sees it whole."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)
