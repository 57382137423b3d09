"""A worker takes jobs under a lease and runs their flows; what it leaves undone, another one takes up."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from taskflow import engines, states

from resizeflow import flows
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.gate import Connections, Gate, Looks
from resizeflow.handover import Attention, Handover, LeaseLost, Stopping, TurnBack
from resizeflow.lease import Lease
from resizeflow.persistence.database import AWAY, Database
from resizeflow.persistence.flow_store import ENDED, FlowStore
from resizeflow.persistence.models import Job
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.settlement import queue_settlements
from resizeflow.states import Direction, JobState
from resizeflow.world import World

LOG = logging.getLogger(__name__)
POLL = 1.0
"""Seconds between two looks at the board."""
SETTLE_EVERY = 10.0
"""Seconds between two looks at hosts that have debts."""
LONGEST_BACKOFF = 60.0


class Worker:
    """One process's worker. `stop` is set to put everything down at the next safe moment."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        connections: Connections | None = None,
        clock: Clock | None = None,
        announced: bool = True,
    ) -> None:
        """`announced`: others may leave jobs to it. One that runs a single job in the foreground is not."""
        self.database = database
        self.settings = settings
        self.announced = announced
        self.connections = connections or Connections()
        self.clock = clock or Clock()
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.stop = threading.Event()
        self._leases: dict[str, Lease] = {}
        self._closing = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease renewer", daemon=True)

    def __enter__(self) -> Worker:
        self._renewer.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing.set()
        self._renewer.join()
        self.connections.close()
        with contextlib.suppress(*AWAY), self.database.write() as tx:
            tx.jobs.worker_gone(self.name)

    # --- which jobs --------------------------------------------------------------------------------------

    def serve(self, jobs: int) -> None:
        """Runs up to `jobs` jobs at once until stopped."""
        running: dict[str, Future[bool]] = {}
        settle_at = 0.0
        with ThreadPoolExecutor(jobs, thread_name_prefix="job") as pool:
            while not self.stop.is_set():
                running = {job: future for job, future in running.items() if not future.done()}
                try:
                    if self.clock.boottime() >= settle_at:
                        queue_settlements(self.database, Looks(self.connections, self.settings, self.clock))
                        settle_at = self.clock.boottime() + SETTLE_EVERY
                    for job_id in self._takeable():
                        if len(running) >= jobs:
                            break
                        if job_id not in running:
                            running[job_id] = pool.submit(self.take_and_run, job_id)
                except AWAY as error:
                    LOG.warning("The database does not answer: %s", str(error).splitlines()[0])
                self.stop.wait(POLL)

    def drain(self) -> int:
        """Runs, one after the other, every job that can be taken now; how many there were."""
        queue_settlements(self.database, Looks(self.connections, self.settings, self.clock))
        done = 0
        while not self.stop.is_set() and (ready := self._takeable()):
            done += sum(self.take_and_run(job_id) for job_id in ready)
        return done

    def finish(self, job_id: str) -> JobState:
        """Runs one job to its end, waiting as long as it has to wait, and for another worker's lease to end.

        Returns DONE or NEEDS_ATTENTION; QUEUED or RUNNING if this worker was stopped first.
        """
        while True:
            with self.database.read() as tx:
                state = tx.jobs.get(job_id).state
            if state in (JobState.DONE, JobState.NEEDS_ATTENTION) or self.stop.is_set():
                return state
            if not self.take_and_run(job_id):
                self.stop.wait(POLL / 4)

    def _takeable(self) -> list[str]:
        with self.database.read() as tx:
            return list(tx.jobs.takeable(flows.TASKS.keys()))

    # --- one job -----------------------------------------------------------------------------------------

    def take_and_run(self, job_id: str) -> bool:
        """Takes a job if it is free and runs its flow until it ends or has to be put down; False if not free."""
        lease = self._take(job_id)
        if lease is None:
            return False
        self._leases[job_id] = lease
        LOG.info("Job %s of migration %s taken up, epoch %d", lease.job_id, lease.migration_id, lease.epoch)
        try:
            self._hold(lease)
        finally:
            del self._leases[job_id]
        LOG.info("Job %s put down", lease.job_id)
        return True

    def _take(self, job_id: str) -> Lease | None:
        try:
            with self.database.write() as tx:
                lease = tx.jobs.take(job_id, self.name, self.settings.lease_seconds)
                if lease is not None:
                    tx.events.lease = lease
                    text = f"worker {self.name} takes the job up, epoch {lease.epoch}"
                    tx.events.add(lease.migration_id, "lease", text)
        except AWAY as error:
            LOG.warning("Job %s could not be taken: %s", job_id, str(error).splitlines()[0])
            return None
        return lease

    def _hold(self, lease: Lease) -> None:
        work = UnitOfWork(lease.migration_id)
        try:
            while True:
                try:
                    self._run_flow(lease, work)
                except TurnBack:
                    work.forget(rows=True)
                else:
                    return
        except LeaseLost as lost:
            LOG.info("Job %s: %s", lease.job_id, lost.reason)
        except Handover as handover:
            self._put_down(lease, work, handover)
        except Exception as error:
            LOG.exception("Job %s ended unexpectedly", lease.job_id)
            self._put_down(lease, work, Handover(f"{type(error).__name__}: {error}"))

    def _run_flow(self, lease: Lease, work: UnitOfWork) -> None:
        gate = Gate(
            self.connections,
            self.settings,
            self.clock,
            database=self.database,
            lease=lease,
            work=work,
            stop=self.stop,
        )
        world = World(self.database, gate, lease, work, self.clock, self.settings)
        with self.database.read() as tx:
            job = tx.jobs.get(lease.job_id)
        self._require_runnable(job)
        store = FlowStore(self.database, lease, work)
        detail = store.get_connection().get_flow_details(job.id)
        if detail.state in ENDED:
            # Running a REVERTED flow would start it over.
            self._finish(lease)
            return
        flow = flows.build(job.flow, world, job.migration_id)
        engine = engines.load(flow, flow_detail=detail, backend=store, engine="serial")
        engine.compile()
        engine.prepare()
        if job.direction is Direction.BACK:
            _turn(engine.storage, [task.__name__ for task in flows.TASKS[job.flow]])
        try:
            engine.run()
        except Exception as error:
            state = engine.storage.get_flow_state()
            if state not in ENDED:
                raise Handover(f"{type(error).__name__}: {error}") from error

    def _require_runnable(self, job: Job) -> None:
        if job.flow not in flows.TASKS:
            raise Attention(f"this version does not know flow {job.flow}: run a worker of the version that does")
        if job.attempts > self.settings.max_attempts:
            raise Attention(f"taken up {job.attempts} times without progress: see `resizeflow migration history`")

    def _finish(self, lease: Lease) -> None:
        with self.database.fenced(lease, "job.done") as tx:
            tx.jobs.put_down(lease, JobState.DONE, reason=None)

    def _put_down(self, lease: Lease, work: UnitOfWork, handover: Handover) -> None:
        """Leaves the job for later, with the reason. If even that fails the lease runs out by itself."""
        state = JobState.NEEDS_ATTENTION if isinstance(handover, Attention) else JobState.QUEUED
        try:
            with self.database.fenced(lease, "job.put_down") as tx:
                attempts = tx.jobs.get(lease.job_id).attempts
                delay = handover.delay
                if handover.counts and not delay:
                    delay = min(2.0 ** (attempts - 1), LONGEST_BACKOFF)
                tx.jobs.put_down(lease, state, reason=handover.reason, delay=delay, counts=handover.counts)
                work.write_lines(tx)
                tx.events.add(lease.migration_id, _kind(handover), handover.reason, delay=delay)
        except Handover as error:
            LOG.warning("Job %s could not be put down: %s", lease.job_id, error.reason)

    # --- leases ------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Keeps the leases of running jobs and the worker's own row; a lease that is lost stops the next effect."""
        every = self.settings.lease_seconds / 4
        while True:
            try:
                with self.database.write() as tx:
                    if self.announced:
                        tx.jobs.worker_seen(self.name, self.settings.lease_seconds)
                    for lease in list(self._leases.values()):
                        tx.jobs.renew(lease, self.settings.lease_seconds)
            except AWAY as error:
                LOG.warning("Leases could not be renewed: %s", str(error).splitlines()[0])
            if self._closing.wait(every):
                return


def _turn(storage: Any, tasks: list[str]) -> None:
    """Makes an engine go back from wherever its flow is. The first task is the frame that submit has set up: it is
    undone even if the flow never began, where TaskFlow would find nothing to undo."""
    if storage.get_atom_state(tasks[0]) == states.PENDING:
        storage.set_atom_state(tasks[0], states.RUNNING)
    for task in tasks:
        storage.set_atom_intention(task, states.REVERT)


def _kind(handover: Handover) -> str:
    if isinstance(handover, Attention):
        return "attention"
    return "stopped" if isinstance(handover, Stopping) else "waiting"
