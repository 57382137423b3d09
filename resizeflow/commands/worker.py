"""`resizeflow worker`: the processes that carry out what was submitted."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from resizeflow.commands.base import Command, Lines, Lister, Moment
from resizeflow.errors import Interrupted

if TYPE_CHECKING:
    from resizeflow.observer import Observer
    from resizeflow.persistence.jobs import Held
    from resizeflow.worker import Worker

T = TypeVar("T")
POLL = 0.2
"""Seconds between two looks whether a signal came."""


class WorkerRun(Command):
    """Carry out submitted jobs, in the foreground, until stopped.

    Start as many as you like, on as many machines as you like, on one database. On SIGTERM or Ctrl-C
    a worker lets the act in progress end, hands its jobs over to whoever comes next, and exits with 0;
    a second signal ends it at once, which is as safe: another worker takes over when its leases end.
    """

    example = """
resizeflow worker --jobs 4
resizeflow worker --drain      (do what is queued now, then exit)
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--jobs", type=_positive, default=4, metavar="N", help="at once (default: %(default)s)")
        parser.add_argument("--drain", action="store_true", help="exit when nothing is left that can be done now")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from resizeflow import logs  # noqa: PLC0415 - neither oslo.log nor TaskFlow is needed for help
        from resizeflow.worker import Worker  # noqa: PLC0415 - as above

        backend = self.backend
        logs.begin(backend.settings.file, debug=self.app.options.debug)
        log = logging.getLogger(__name__)
        with Worker(
            backend.database, backend.settings, connections=backend.connections, observers=self._observers()
        ) as worker:
            log.info("Worker %s is up", worker.name)
            if parsed_args.drain:
                log.info("%d runs done, nothing is left that can be done now", until_signalled(worker, worker.drain))
            else:
                until_signalled(worker, lambda: worker.serve(parsed_args.jobs))
        log.info("Worker %s is down", worker.name)

    def _observers(self) -> list[Observer]:
        """The log, and the others that are configured; each is imported only then."""
        from resizeflow.logs import JobLog  # noqa: PLC0415 - as above

        settings = self.backend.settings
        observers: list[Observer] = [JobLog()]
        if settings.metrics:
            from resizeflow.metrics import Metrics  # noqa: PLC0415 - as above

            observers.append(Metrics(self.backend.database, settings.metrics))
        return [*observers, *self.backend.traces()]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def until_signalled(worker: Worker, work: Callable[[], T]) -> T:
    """Does the work in a thread. The first SIGTERM or SIGINT stops the worker at its next safe moment, the second
    ends the process at once."""
    signals: list[int] = []

    def note(number: int, _frame: object) -> None:
        # Not worker.stop.set(): here it could wait for a lock that the interrupted code holds.
        signals.append(number)
        if len(signals) > 1:
            os._exit(Interrupted.exit_code)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        while wait([done], POLL).not_done:
            if signals:
                worker.stop.set()
        return done.result()


class WorkerList(Lister):
    """List the workers that are up, and the jobs they hold.

    A worker says every quarter of a lease that it is there; SEEN_UNTIL is when it will count as gone.
    """

    example = """
resizeflow worker list
resizeflow worker list -f json
"""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:  # noqa: ARG002
        with self.backend.database.read() as tx:
            held = tx.jobs.held()
            rows = [
                (
                    worker.name,
                    Moment(worker.started_at),
                    Moment(datetime.fromtimestamp(worker.seen_until, UTC)),
                    Lines([_told(job) for job in held if job.owner == worker.name]),
                )
                for worker in tx.workers.up()
            ]
        return ("name", "started_at", "seen_until", "jobs"), rows


def _told(job: Held) -> dict[str, Any]:
    told = {"instance": job.instance, "flow": job.flow, "task": job.task, "epoch": job.epoch}
    return told | {"migration": job.migration_id}
