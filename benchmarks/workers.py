"""Real worker processes: how soon one takes a dead one's job over, and how many resizes a second they do together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from benchmarks.bench import BenchError
from resizeflow.chaos.cloud import Cloud
from resizeflow.clock import Clock
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Event, Host, Job, Migration, WorkerRow
from resizeflow.states import JobState, MigrationStatus

LEASE = 6.0
"""Seconds, with an act_timeout of 2 and a fence_window of 1: the shortest that is sensible on the simulator."""
PATIENCE = 120.0
LOOK = 0.005
"""Seconds between two looks of the one who measures, ..."""
SELDOM = 0.05
"""... and where the looks would take what is measured from those who work."""
FIRST_POINT = "TransferDisks.create_volume#1.checked"


def cloud_on(url: str, memory: Path) -> Cloud:
    """A simulated cloud on an empty database, for workers with short leases."""
    database = Database(url)
    schema.upgrade(database)
    database.engine.dispose()
    cloud = Cloud(memory, connection=url, lease_seconds=f"{LEASE}", act_timeout="2", fence_window="1")
    cloud.build(running=False)
    cloud.world.set_speed(transfer_seconds=0)
    return cloud


@contextlib.contextmanager
def worker(cloud: Cloud, failpoint: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """`resizeflow worker` in a process of its own, up."""
    before = _workers(cloud)
    process = subprocess.Popen(
        [sys.executable, "-m", "resizeflow.cli", "worker"],
        env={
            **os.environ,
            "RESIZEFLOW_CONFIG": str(cloud.folder / "resizeflow.conf"),
            "RESIZEFLOW_FAILPOINT": failpoint,
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for("a worker to come up", lambda: process.poll() is None and _workers(cloud) > before)
        yield process
    finally:
        process.send_signal(signal.SIGTERM if not failpoint else signal.SIGKILL)
        process.wait()


def takeover(cloud: Cloud) -> float:
    """Seconds from the SIGKILL of a worker in the middle of an act until another one has its job."""
    job = cloud.service.resize("web", "big", host="h2")
    with worker(cloud, f"{FIRST_POINT}=hang") as first, worker(cloud):

        def began(task: str) -> bool:
            query = sa.select(Event.seq).where(Event.migration_id == job.migration_id, Event.text == f"{task} started")
            with cloud.database.read() as tx:
                return tx.session.execute(query).first() is not None

        _wait_for("TransferDisks", lambda: began("TransferDisks"))
        time.sleep(LEASE / 2)  # its lease is renewed while it hangs
        if cloud.job(job).epoch != 1:
            raise BenchError("a worker lost its lease while it lived")
        first.kill()
        killed = Clock().boottime()
        _wait_for("the takeover", lambda: cloud.job(job).epoch == 2)
        taken = Clock().boottime()
        _wait_for("the resize", lambda: cloud.job(job).state is JobState.DONE)
    if cloud.migration(job).status is not MigrationStatus.FINISHED:
        raise BenchError(f"the resize that was taken over did not finish:\n{cloud.story(job)}")
    return taken - killed


def per_second(cloud: Cloud, workers: int, machines: int) -> float:
    """Resizes a second of stopped machines from one host to another, all queued at once, by so many workers: from the
    moment when the first one is taken up."""
    _populate(cloud, machines)
    for number in range(machines):
        cloud.service.resize(f"m{number}", "wide", host="h3")
    _set(cloud, sa.update(Job).values(not_before=4e9))
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(worker(cloud))
        _set(cloud, sa.update(Job).values(not_before=0.0))
        _wait_for("a worker to begin", lambda: _jobs(cloud, Job.epoch > 0) > 0)
        began = Clock().boottime()
        _wait_for("all resizes", lambda: not _jobs(cloud, Job.state != JobState.DONE), look=SELDOM)
        took = Clock().boottime() - began
    with cloud.database.read() as tx:
        finished = sa.select(sa.func.count()).where(Migration.status == MigrationStatus.FINISHED)
        if tx.session.scalar(finished) != machines:
            raise BenchError("not all resizes finished")
    return machines / took


def _populate(cloud: Cloud, machines: int) -> None:
    cloud.world.add_host("h3", vcpus=1024, memory_mb=1 << 20, pool_gb=10_000)
    uri = cloud.world.uri("h3")
    cloud.inventory.add_host("h3", uri, peer_uri=uri, data_uri="tcp://198.51.100.13")
    cloud.inventory.create_flavor("wide", vcpus=2, memory_mb=256, root_gb=1)
    for number in range(machines):
        cloud.world.create_guest("h1", f"m{number}", 1, 256, {"vda": 1}, running=False)
        cloud.inventory.adopt("h1", f"m{number}")
    _set(cloud, sa.update(Host).values(max_moves=1000))


def _workers(cloud: Cloud) -> int:
    with cloud.database.read() as tx:
        return tx.session.scalar(sa.select(sa.func.count()).select_from(WorkerRow)) or 0


def _jobs(cloud: Cloud, which: sa.ColumnElement[bool]) -> int:
    with cloud.database.read() as tx:
        return tx.session.scalar(sa.select(sa.func.count()).select_from(Job).where(which)) or 0


def _set(cloud: Cloud, update: sa.Update) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(update.execution_options(synchronize_session=False))


def _wait_for(what: str, happened: Callable[[], bool], look: float = LOOK) -> None:
    until = Clock().boottime() + PATIENCE
    while not happened():
        if Clock().boottime() > until:
            raise BenchError(f"{what} did not come within {PATIENCE:g} s")
        time.sleep(look)
