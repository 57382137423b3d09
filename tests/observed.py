"""What observers of a worker are shown: a resize that is taken over, a confirm, a migration that fails, and one that
gets no answer once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from resizeflow import failpoints
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.observer import Observer
from resizeflow.persistence.models import Event
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState
from resizeflow.worker import Worker

REFUSAL = "the machine type is not known here"


@dataclass(frozen=True)
class Story:
    """Its jobs, all of one machine, and the worker that was observed."""

    worker: str
    taken_over: Submitted
    confirm: Submitted
    rolled_back: Submitted
    unanswered: Submitted

    @property
    def jobs(self) -> tuple[Submitted, ...]:
        return self.taken_over, self.confirm, self.rolled_back, self.unanswered


@contextlib.contextmanager
def observed(cloud: Cloud, *observers: Observer) -> Iterator[Story]:
    """Lives through it; the worker that dies is not observed, the other one is still up."""
    taken_over = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(taken_over, "TransferDisks.create_volume#1.after") == KILLED
    with Worker(cloud.database, cloud.settings, clock=cloud.clock, observers=observers) as worker:
        run(cloud, worker, taken_over)
        confirm = cloud.service.confirm("web")
        run(cloud, worker, confirm)
        rolled_back = cloud.service.migrate("web")
        cloud.world.fail("h1", "define", REFUSAL)
        run(cloud, worker, rolled_back)
        assert cloud.job(rolled_back).direction is Direction.BACK
        unanswered = cloud.service.migrate("web")
        with armed("DefineDestination.define#1.after=lose-reply"):
            run(cloud, worker, unanswered)
        yield Story(worker.name, taken_over, confirm, rolled_back, unanswered)


def run(cloud: Cloud, worker: Worker, job: Submitted) -> None:
    """Takes a job up, without waiting for a lease or a wait to end, until it is done."""
    while cloud.job(job).state is not JobState.DONE:
        cloud.expire(job)
        assert worker.take_and_run(job.job_id)


@contextlib.contextmanager
def armed(points: str) -> Iterator[None]:
    """Failpoints of this process."""
    failpoints.arm(points)
    try:
        yield
    finally:
        failpoints.arm("")


def lines(cloud: Cloud, story: Story, kind: str) -> list[Event]:
    """What the event log has of the observed worker, of a kind."""
    with cloud.database.read() as tx:
        ids = dict.fromkeys(job.migration_id for job in story.jobs)
        events = [event for migration in ids for event in tx.events.of(migration)]
    return [event for event in events if event.kind == kind and event.worker == story.worker]
