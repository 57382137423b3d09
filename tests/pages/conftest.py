"""A small fleet with a past, served to a real browser. Made once: the pages only read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, expect

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.chaos.runner import work_folder
from resizeflow.persistence.models import Flavor, Host, Instance, Job, Migration
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.browser import Watched, chromium, served
from tests.console import Console
from tests.killed import killed_in_transfer

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)>' {{ 7 * 7 }} {% raw %}",
    "</title></style></svg><svg onload=alert(3)>",
    "\u202egnp.exe\u202c & javascript:alert(4)",
    "w" * 255,
)
WatchedMaker = Callable[..., Watched]
PATIENCE = 60_000
"""Milliseconds that a busy machine gets for what takes a few."""
expect.set_options(timeout=PATIENCE)


class Past(Cloud):
    """`web` with two crashes and a retry, finished; `undone`, rolled back after an error; `moving`, in the middle of
    its transfer in the hands of a dead worker; `queued`; and machines with hostile names, each rolled back."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.build()
        for name in ("undone", "moving", "queued", *(f"hostile-{n}" for n in range(len(HOSTILE)))):
            self.world.create_guest("h1", name, 1, 128, {"vda": 1}, running=True)
            self.inventory.adopt("h1", name)
        self.finished = self.service.resize("web", "big", host="h2")
        assert self.run_in_child(self.finished, "PowerOffSource.RUNNING.after") == KILLED
        self.expire(self.finished)
        killed_in_transfer(self, self.finished)
        self.expire(self.finished)
        assert self.run_in_child(self.finished, "DefineDestination.define#1.after", "lose-reply") == 0
        assert self.job(self.finished).state is JobState.DONE
        self.undone = self._undo("undone")
        self.hostile = [self._undo(f"hostile-{number}") for number in range(len(HOSTILE))]
        for job, name in zip(self.hostile, HOSTILE, strict=True):
            self._rename(job, name)
        self.moving = self.service.resize("moving", "big", host="h2")
        killed_in_transfer(self, self.moving)
        self.queued = self.service.migrate("queued", host="h2")

    def _undo(self, name: str) -> Submitted:
        job = self.service.resize(name, "big", host="h2")
        assert self.run_in_child(job, "DefineDestination.define#1.checked", "raise") == 0
        assert self.migration(job).status is MigrationStatus.ERROR
        return job

    def _rename(self, job: Submitted, name: str) -> None:
        with self.database.write() as tx:
            key = tx.migrations.get(job.migration_id).instance_id
            tx.session.execute(sa.update(Instance).where(Instance.id == key).values(name=name))
            renamed = sa.update(Migration).where(Migration.id == job.migration_id)
            tx.session.execute(renamed.values(instance_name=name, error=f"it is called {name}"))

    @contextmanager
    def all_hostile(self) -> Iterator[None]:
        """A host, a flavor, a worker's name and a reason are hostile as well, for a while."""
        names = {
            Host.name: (Host.name == "h2", HOSTILE[0]),
            Host.disabled_reason: (Host.name == "h1", HOSTILE[1]),
            Flavor.name: (Flavor.name == "big", HOSTILE[2]),
            Job.reason: (Job.id == self.queued.job_id, HOSTILE[0]),
            Job.owner: (Job.id == self.moving.job_id, HOSTILE[3]),
        }
        before = {column: self._set(column, *how) for column, how in names.items()}
        try:
            yield
        finally:
            for column, (keys, old) in before.items():
                self._set(column, column.class_.id.in_(keys), old)

    def _set(self, column: Any, which: Any, value: Any) -> tuple[list[str], Any]:
        """The ids of what was changed, and what it was before."""
        with self.database.write() as tx:
            rows = tx.session.execute(sa.select(column.class_.id, column).where(which)).all()
            tx.session.execute(sa.update(column.class_).where(which).values({column.key: value}))
        return [row[0] for row in rows], rows[0][1]


@pytest.fixture(scope="session")
def past() -> Iterator[Past]:
    folder = work_folder()
    past = Past(folder)
    yield past
    past.release()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def address(past: Past) -> Iterator[str]:
    """Where its dashboard is."""
    with served(Console(past.folder / "resizeflow.conf")) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watch(browser: Browser) -> Iterator[WatchedMaker]:
    """Opens a window of its own; what it is told is Playwright's (`color_scheme`, `viewport`, `offline`)."""
    contexts = []

    def make(**how: Any) -> Watched:
        contexts.append(browser.new_context(**how))
        contexts[-1].set_default_timeout(PATIENCE)
        return Watched(contexts[-1])

    yield make
    for context in contexts:
        context.close()
