"""A worker takes jobs under a lease and runs their flows; what it leaves undone, another one takes up."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from taskflow import engines, states
from taskflow import exceptions as taskflow_exc

from resizeflow import flows
from resizeflow.auto_confirm import queue_confirms
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.connections import Connections
from resizeflow.event_receiver import Receiver
from resizeflow.gate import Gate
from resizeflow.handover import Attention, Handover, LeaseLost, TurnBack
from resizeflow.lease import Lease
from resizeflow.looks import Looks
from resizeflow.observer import Observer, Observers
from resizeflow.persistence.database import AWAY, Database, away, in_short
from resizeflow.persistence.flow_store import ENDED, FlowStore
from resizeflow.persistence.job_board import POLL, BoardJob, DatabaseJobBoard
from resizeflow.persistence.models import Job
from resizeflow.persistence.seals import seal_logs
from resizeflow.postman import Postman, forget_old
from resizeflow.settlement import queue_settlements
from resizeflow.states import Direction, JobState
from resizeflow.world import World

LOG = logging.getLogger(__name__)
SOON = 0.2
"""Seconds between two looks whether a job of ours has ended, or whether we are to stop."""
PUT_DOWN_TRIES = 60
"""How often a job is put down again while the database is away, a second between; then its lease is left to end."""
CHORES_EVERY = 10.0
"""Seconds between two looks at what nobody asks for: hosts that have debts, resizes that nobody decides."""
LAST = 5.0
"""Seconds that the end of a worker waits for the chore under way; a host that hangs may keep it for longer."""
TASKS = {name: tuple(task.__name__ for task in tasks) for name, tasks in flows.TASKS.items()}


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
        observers: Sequence[Observer] = (),
    ) -> None:
        """`announced`: others may leave jobs to it. One that runs a single job in the foreground is not. `observers`
        see what it does, until it ends."""
        self.database = database
        self.settings = settings
        self.announced = announced
        self.board = DatabaseJobBoard(database, settings.lease_seconds, TASKS)
        self.connections = connections or Connections()
        self.clock = clock or Clock()
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.stop = threading.Event()
        self._seen = Observers(observers)
        self._leases: dict[str, Lease] = {}
        self._closing = threading.Event()
        self._renewer = threading.Thread(target=self._keep_leases, name="lease renewer", daemon=True)
        self._postman = self._make_postman()
        self._receiver = self._make_receiver()

    def __enter__(self) -> Worker:
        self.database.watchers.append(self._seen.committed)
        self._renewer.start()
        if self._postman is not None:
            self._postman.start()
        if self._receiver is not None:
            self._receiver.open()
        return self

    def _make_postman(self) -> Postman | None:
        settings = self.settings.notifications
        if settings.transport_url is None:
            return None
        return Postman(self.database, settings, self.clock, self.name, self.settings.lease_seconds)

    def _make_receiver(self) -> Receiver | None:
        address = self.settings.server_events
        return Receiver(self.database, address, self.clock) if address else None

    def __exit__(self, *_exc: object) -> None:
        if self._receiver is not None:
            self._receiver.close()
        self._closing.set()
        self._renewer.join()
        if self._postman is not None:
            self._postman.close()
        self.connections.close()
        with contextlib.suppress(*AWAY), self.database.write() as tx:
            tx.workers.gone(self.name)
        self.database.watchers.remove(self._seen.committed)
        self._seen.close()

    # --- which jobs --------------------------------------------------------------------------------------

    def serve(self, jobs: int) -> None:
        """Runs up to `jobs` jobs at once until stopped. What is not expected here ends the worker: its jobs are
        handed over, and whoever started it starts it again."""
        running: dict[str, Future[bool]] = {}
        chores = threading.Thread(target=self._do_chores, name="chores", daemon=True)
        chores.start()
        with ThreadPoolExecutor(jobs, thread_name_prefix="job") as pool:
            try:
                while not self.stop.is_set():
                    if not self._renewer.is_alive():
                        raise RuntimeError("The thread that renews leases has ended.")
                    _reap(running)
                    pause = POLL
                    if len(running) < jobs:
                        ready, pause = self._look_at_the_board()
                        for job_id in [job_id for job_id in ready if job_id not in running][: jobs - len(running)]:
                            running[job_id] = pool.submit(self.take_and_run, job_id)
                    self._rest(running, pause)
            finally:
                self.stop.set()
        chores.join(LAST)

    def _look_at_the_board(self) -> tuple[list[str], float]:
        """The jobs that can be taken now, and how long to wait until the next look."""
        try:
            with self.database.read() as tx:
                ready = list(tx.jobs.takeable(TASKS.keys()))
                next_in = tx.jobs.next_free_in(TASKS.keys())
        except AWAY as error:
            LOG.warning("The database does not answer: %s", in_short(error))
            return [], POLL
        return ready, POLL if next_in is None else min(POLL, max(next_in, SOON))

    def _rest(self, running: dict[str, Future[bool]], seconds: float) -> None:
        """Waits, less long if a job of ours ends: its place is free."""
        end = self.clock.boottime() + seconds
        while not self.stop.is_set() and (left := end - self.clock.boottime()) > 0:
            if not running:
                self.stop.wait(left)
                continue
            wait(running.values(), min(left, SOON), FIRST_COMPLETED)
            if _reap(running):
                return

    def _do_chores(self) -> None:
        """Beside the jobs: a host that hangs must not keep the worker from taking over what dead workers held. A chore
        that fails keeps the others from nothing."""
        chores = self._chores()
        while not self.stop.is_set():
            for name, chore in chores.items():
                if self.stop.is_set():
                    return
                try:
                    chore()
                except AWAY as error:
                    LOG.warning("The database does not answer: %s", in_short(error))
                except Exception:
                    LOG.exception("%s could not be looked at", name)
            self.stop.wait(CHORES_EVERY)

    def _chores(self) -> Mapping[str, Callable[[], object]]:
        """What is queued without anybody asking for it."""
        looks = Looks(self.connections, self.settings, self.clock)
        return {
            "Debts": lambda: queue_settlements(self.database, looks),
            "Undecided resizes": lambda: queue_confirms(self.database, looks, self.settings),
            "Old notifications": lambda: forget_old(self.database, self.settings.notifications, self.clock),
            "Seals of the log": lambda: seal_logs(self.database),
        }

    def drain(self) -> int:
        """Runs, one after the other, every job that can be taken now; how many there were."""
        for chore in self._chores().values():
            chore()
        done = 0
        while ready := self._takeable():
            ran = sum(self.take_and_run(job_id) for job_id in ready)
            if not ran:
                break
            done += ran
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
            return list(tx.jobs.takeable(TASKS.keys()))

    # --- one job -----------------------------------------------------------------------------------------

    def take_and_run(self, job_id: str) -> bool:
        """Takes a job if it is free and runs its flow until it ends or has to be put down; False if not free."""
        if self.stop.is_set():
            return False
        try:
            job = self.board.job(job_id)
            self.board.claim(job, self.name)
        except taskflow_exc.UnclaimableJob:
            return False
        except taskflow_exc.JobFailure as error:
            LOG.warning("Job %s could not be taken: %s", job_id, error)
            return False
        lease = self._leases[job_id] = job.held
        self._seen.begun(job)
        LOG.info("Job %s of migration %s taken up, epoch %d", job_id, lease.migration_id, lease.epoch)
        try:
            self._hold(job)
            LOG.info("Job %s put down", job_id)
        finally:
            self._leases.pop(job_id, None)
            self._seen.ended(job)
        return True

    def _hold(self, job: BoardJob) -> None:
        while True:
            try:
                self._run_flow(job)
            except TurnBack:
                # Its rows are of a way that is not gone; what it did is told by the way back.
                job.work.rows.clear()
            except LeaseLost as lost:
                LOG.info("Job %s: %s", job.uuid, lost.reason)
                return
            except Handover as handover:
                self._put_down(job, handover)
                return
            except AWAY as error:
                self._put_down(job, away(error))
                return
            except Exception as error:
                LOG.exception("Job %s ended unexpectedly", job.uuid)
                self._put_down(job, Handover(f"{type(error).__name__}: {error}"))
                return
            else:
                return

    def _run_flow(self, job: BoardJob) -> None:
        engine = self.engine(job)
        try:
            engine.run()
        except Exception as error:
            state = engine.storage.get_flow_state()
            if state not in ENDED:
                raise Handover(f"{type(error).__name__}: {error}") from error

    def engine(self, job: BoardJob) -> Any:
        """TaskFlow's engine for a claimed job: its flow, with the world under the job's lease, as far as it is
        stored. Raises Attention if the flow cannot be rebuilt, or the job has come up too often."""
        with self.database.read() as tx:
            row = tx.jobs.get(job.uuid)
        self._require_runnable(row)
        store = FlowStore(self.database, job.held, job.work)
        try:
            detail = store.get_connection().get_flow_details(row.id)
            engine = engines.load(
                flows.build(row.flow, self._world(job), row.migration_id),
                flow_detail=detail,
                backend=store,
                engine="serial",
            )
            _require_tasks(TASKS[row.flow], [atom.name for atom in detail])
            engine.compile()
        except AWAY:
            raise
        except Exception as error:
            raise Attention(f"its flow {row.flow} cannot be rebuilt: {type(error).__name__}: {error}") from error
        engine.prepare()
        if row.direction is Direction.BACK:
            _turn(engine.storage, TASKS[row.flow])
        return engine

    def _world(self, job: BoardJob) -> World:
        gate = Gate(
            self.connections,
            self.settings,
            self.clock,
            database=self.database,
            lease=job.held,
            work=job.work,
            stop=self.stop,
        )
        return World(self.database, gate, job.held, job.work, self.clock, self.settings)

    def _require_runnable(self, job: Job) -> None:
        if job.flow not in TASKS:
            raise Attention(f"this version does not know flow {job.flow}: run a worker of the version that does")
        if job.attempts > self.settings.max_attempts:
            times = f"taken up {job.attempts} times without progress"
            raise Attention(f"{times}; the last time: {job.reason}" if job.reason else times)

    def _put_down(self, job: BoardJob, handover: Handover) -> None:
        """Leaves the job for later, with the reason; tries again while the database is away. In the end its lease
        runs out by itself."""
        job.handover = handover
        self._leases.pop(job.uuid, None)
        for _ in range(PUT_DOWN_TRIES):
            try:
                self.board.abandon(job, self.name)
            except taskflow_exc.JobFailure as error:
                LOG.warning("Job %s could not be put down: %s", job.uuid, error)
                if job.held.lost or self.clock.wait(self.stop, POLL):
                    return
            else:
                return

    # --- leases ------------------------------------------------------------------------------------------

    def _keep_leases(self) -> None:
        """Renews until closed, whatever happens: without it another worker would take over what goes on well. After a
        failure it tries again soon. Effects do not rely on it: each sees for itself that enough of its lease is left.
        """
        while True:
            pause = self.settings.lease_seconds / 4
            try:
                self._renew()
            except AWAY as error:
                LOG.warning("Leases could not be renewed: %s", in_short(error))
                self._seen.not_renewed()
                pause = min(pause, POLL)
            except Exception:
                LOG.exception("Leases could not be renewed")
                self._seen.not_renewed()
                pause = min(pause, POLL)
            if self._closing.wait(pause):
                return

    def _renew(self) -> None:
        """Keeps the leases of running jobs and the worker's own row; a lease that is lost stops the next effect."""
        if not self.announced and not self._leases:
            return
        with self.database.write() as tx:
            if self.announced:
                tx.workers.seen(self.name, self.settings.lease_seconds, TASKS.keys())
            for lease in list(self._leases.values()):
                tx.jobs.renew(lease, self.settings.lease_seconds)


def _reap(running: dict[str, Future[bool]]) -> bool:
    """Forgets the runs that have ended; whether one of them was a run, and not only somebody else's job."""
    ended = [job_id for job_id, future in running.items() if future.done()]
    ran = [running.pop(job_id).result() for job_id in ended]
    return any(ran)


def _require_tasks(known: tuple[str, ...], stored: list[str]) -> None:
    """A stored task that the flow does not have any more would be forgotten, effect and all."""
    if strange := sorted(set(stored) - set(known)):
        raise LookupError(f"it has no task {', '.join(strange)}, which the stored flow has")


def _turn(storage: Any, tasks: tuple[str, ...]) -> None:
    """Makes an engine go back from wherever its flow is. The first task is the frame that submit has set up: it is
    undone even if the flow never began, where TaskFlow would find nothing to undo."""
    if storage.get_atom_state(tasks[0]) == states.PENDING:
        storage.set_atom_state(tasks[0], states.RUNNING)
    for task in tasks:
        storage.set_atom_intention(task, states.REVERT)
