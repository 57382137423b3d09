"""Following a job until it ends, and running it in this process where nobody else does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

from resizeflow.commands.backend import Backend
from resizeflow.commands.console import Console
from resizeflow.commands.live import LiveDisplay
from resizeflow.commands.news import Feed, News
from resizeflow.commands.outcome import how_to_go_on, told
from resizeflow.commands.plain import PlainDisplay
from resizeflow.errors import Interrupted
from resizeflow.persistence.database import AWAY
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker

POLL = 0.3
"""Seconds between two looks at the job."""


class Display(Protocol):
    """Where progress is shown."""

    def update(self, news: News) -> None: ...
    def say(self, sentence: str) -> None: ...
    def close(self) -> None: ...


def display_on(out: TextIO) -> Display:
    """A live list on a terminal, lines elsewhere."""
    console = Console(file=out)
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(out)


class Runner:
    """A worker of this process that runs one job in a thread."""

    def __init__(self, backend: Backend, job_id: str) -> None:
        self._worker = Worker(
            backend.database,
            backend.settings,
            connections=backend.connections,
            announced=False,
            observers=backend.traces(),
        )
        self._job_id = job_id
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="foreground job")
        self._thread.start()

    @property
    def name(self) -> str:
        return self._worker.name

    @property
    def at_work(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Lets the act in progress end and puts the job down."""
        self._worker.stop.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            with self._worker as worker:
                self._finish(worker)
        except Exception as error:
            self.error = error

    def _finish(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            try:
                worker.finish(self._job_id)
            except AWAY:
                # The job is safe under its lease; it goes on when the database is back.
                worker.stop.wait(POLL)
            else:
                return


class Follower:
    """Shows a job's news until it is over. Ctrl-C puts it down, a second one ends the process at once."""

    def __init__(self, backend: Backend, job_id: str, display: Display, *, run: bool, whole_log: bool = False) -> None:
        self._backend = backend
        self._job_id = job_id
        self._display = display
        self._run = run
        self._feed = Feed(backend.database, job_id, from_the_beginning=whole_log)
        self._runner: Runner | None = None
        self._signals = 0
        self._told: set[str] = set()

    def follow(self) -> News:
        """The news at the end: the job is over, or was interrupted."""
        with self._catching_signals():
            try:
                return self._loop()
            finally:
                if self._runner is not None:
                    self._runner.stop()
                    self._runner.join()
                self._display.close()

    def _loop(self) -> News:
        while True:
            at_work = self._runner is not None and self._runner.at_work
            news = self._feed.read()
            if news is None:
                if self._signals and not at_work:
                    raise Interrupted("The database does not answer; the job is kept there as it was last written.")
                self._once("away", "The database does not answer; waiting for it.")
            else:
                self._told.discard("away")
                self._display.update(news)
                if not at_work and (news.over or self._signals):
                    return news
                if self._signals:
                    self._once(
                        "interrupted",
                        f"Interrupted: the act in progress ends, then the job is put down "
                        f"(Ctrl-C again: at once). {how_to_go_on(news)}",
                    )
                else:
                    self._see_to_it(news)
            if self._runner is not None and self._runner.error is not None:
                raise self._runner.error
            time.sleep(POLL)
            if self._signals and self._runner is not None:
                self._runner.stop()

    def _see_to_it(self, news: News) -> None:
        """Runs the job here if no worker will; says whom it waits for."""
        if self._runner is None and self._run and not news.workers:
            self._runner = Runner(self._backend, self._job_id)
        job = news.job
        if job.state is JobState.RUNNING and job.owner and self._runner and job.owner != self._runner.name:
            ends = f"its lease ends in {news.lease_left:.0f} s"
            if _is_gone(job.owner):
                self._once(job.owner, f"Worker {job.owner} held this job and is gone; {ends}.")
            else:
                self._once(job.owner, f"Worker {job.owner} holds this job; if it does not go on, {ends}.")
        elif job.state is JobState.QUEUED and not self._run and not news.workers:
            self._once("nobody", f"No worker is up, the job is kept. {how_to_go_on(news)}")

    def _once(self, key: str, sentence: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._display.say(sentence)

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            if not self._signals:  # else the next one still ends the process at once, with our exit code
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _interrupted(self, _number: int, _frame: object) -> None:
        # Only a number is changed: an Event set here could wait for a lock that the interrupted code holds.
        self._signals += 1
        if self._signals > 1:
            if isinstance(self._display, LiveDisplay):
                self._display.abandon()
            os._exit(Interrupted.exit_code)


def _is_gone(owner: str) -> bool:
    """Whether a worker's process was on this machine and is no more. Only for what is said: leases decide."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def carry_out(
    backend: Backend, submitted: Submitted, *, quiet: bool = False, rollback_wanted: bool = False
) -> tuple[News, str]:
    """Follows a submitted job to its end, running it here if no worker is up. Raises how it ended, if not well.

    `quiet` keeps standard output for the result.
    """
    display = display_on(sys.stderr if quiet else sys.stdout)
    news = Follower(backend, submitted.job_id, display, run=True).follow()
    return news, told(news, rollback_wanted=rollback_wanted)


def watch(backend: Backend, job_id: str, display: Display) -> str:
    """Follows a job without ever running it. Raises how it ended, if not well."""
    news = Follower(backend, job_id, display, run=False).follow()
    return told(news)
