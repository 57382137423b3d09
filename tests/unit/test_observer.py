"""Who looks on while a worker works: how runs end, and that nobody who looks on can disturb it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from oslo_db.exception import DBConnectionError

from resizeflow.chaos.cloud import Cloud
from resizeflow.observer import ENDS, OUTCOMES, Observer, how_it_ended
from resizeflow.persistence.job_board import BoardJob
from resizeflow.persistence.transaction import Transaction
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker
from tests.observed import armed, run


class Ends(Observer):
    """Notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def ended(self, job: BoardJob) -> None:
        self.seen.append(how_it_ended(job))


class Broken(Observer):
    """Breaks at whatever it is shown."""

    def _break(self, *_args: object) -> None:
        raise RuntimeError("broken")

    begun = ended = committed = close = _break  # type: ignore[assignment]


class Stopper(Observer):
    """Stops its worker at the first line of a task."""

    worker: Worker

    def committed(self, tx: Transaction) -> None:
        if any(line["task"] for line in tx.events.written):
            self.worker.stop.set()


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h2")


def watched(cloud: Cloud, job: Submitted, *observers: Observer) -> list[str]:
    """Runs a job once; how that ended."""
    ends, stopper = Ends(), next((one for one in observers if isinstance(one, Stopper)), None)
    with Worker(cloud.database, cloud.settings, clock=cloud.clock, observers=[*observers, ends]) as worker:
        if stopper is not None:
            stopper.worker = worker
        assert worker.take_and_run(job.job_id)
    return ends.seen


def test_done(cloud: Cloud, job: Submitted) -> None:
    assert watched(cloud, job) == ["done"]


def test_rolled_back(cloud: Cloud, job: Submitted) -> None:
    cloud.world.fail("h2", "create_volume", times=99)
    assert watched(cloud, job) == ["rolled-back"]
    assert cloud.job(job).state is JobState.DONE


def test_waiting(cloud: Cloud, job: Submitted) -> None:
    cloud.world.set_up("h1", False)
    assert watched(cloud, job) == ["waiting"]
    assert cloud.job(job).state is JobState.QUEUED


def test_stopped(cloud: Cloud, job: Submitted) -> None:
    assert watched(cloud, job, Stopper()) == ["stopped"]


def test_put_down(cloud: Cloud, job: Submitted) -> None:
    with armed("TransferDisks.SUCCESS.before=raise"):
        assert watched(cloud, job) == ["put-down"]


def test_needs_attention(cloud: Cloud, job: Submitted) -> None:
    with cloud.database.write() as tx:
        tx.jobs.get(job.job_id).attempts = cloud.settings.max_attempts
    assert watched(cloud, job) == ["needs-attention"]


def test_lease_lost(cloud: Cloud, job: Submitted) -> None:
    class Thief(Observer):
        def committed(self, tx: Transaction) -> None:
            if any(line["task"] == "TransferDisks" for line in tx.events.written) and tx.lease:
                cloud.expire(job)
                with cloud.database.write() as other:
                    other.jobs.take(job.job_id, "somebody else", 600)

    assert watched(cloud, job, Thief()) == ["lease-lost"]


def test_each_end_is_tried_here() -> None:
    tried = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert set(OUTCOMES) <= tried
    assert set(ENDS.values()) < set(OUTCOMES)


def test_one_that_breaks_is_told_and_disturbs_nobody(
    cloud: Cloud, job: Submitted, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    with (
        caplog.at_level(logging.ERROR, "resizeflow"),
        Worker(cloud.database, cloud.settings, clock=cloud.clock, observers=[Broken(), ends]) as worker,
    ):
        run(cloud, worker, job)
    assert ends.seen == ["done"]
    assert "Broken did not see what happened" in caplog.text


def test_leases_that_could_not_be_renewed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    class Waits(Observer):
        told = threading.Event()

        def not_renewed(self) -> None:
            self.told.set()

    waits = Waits()
    worker = Worker(cloud.database, cloud.settings, clock=cloud.clock, observers=[waits])
    monkeypatch.setattr(worker, "_renew", lambda: (_ for _ in ()).throw(DBConnectionError("it is away")))
    with worker:
        assert waits.told.wait(60)


def test_a_worker_that_has_ended_is_watched_no_more(cloud: Cloud, job: Submitted) -> None:
    assert watched(cloud, job) == ["done"]
    assert cloud.database.watchers == []
