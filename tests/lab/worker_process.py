"""A `resizeflow worker` of its own, as a process that a test arms, stops, continues and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.processes import send_signal, stopped
from lab.system import wait_until
from resizeflow.failpoints import VARIABLE
from tests.fleet import Fleet


class WorkerProcess:
    """Started at once. `arm` is a failpoint, as `POINT=ACTION`; `within` a command that runs it somewhere else."""

    def __init__(self, fleet: Fleet, *, arm: str | None = None, within: Sequence[str] = (), jobs: int = 1) -> None:
        environment = {**os.environ, **({VARIABLE: arm} if arm else {})}
        command = [sys.executable, "-m", "resizeflow.cli", "--config-file", str(fleet.folder / "resizeflow.conf")]
        self.arm = arm
        self._fleet = fleet
        self.log = fleet.folder / "workers.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*within, *command, "worker", "--jobs", str(jobs)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_stopped(self, timeout: float = 120) -> None:
        """Until it has stopped at the point at which it was armed to."""
        if not wait_until(lambda: stopped(self.pid) or self.ended(), timeout) or self.ended():
            with self._fleet.database.read() as tx:
                told = [event.text for row in tx.migrations.list() for event in tx.events.of(row.id)]
            raise AssertionError(f"the worker did not get to {self.arm}:\n{self.log.read_text()}\n{told}")

    def stop(self, *, family: bool = False) -> None:
        """SIGSTOP; with its family, the processes that hold its connections stop too, as on a machine that freezes."""
        for pid in self._members(family):
            send_signal(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT, to its family too."""
        for pid in self._members(family=True):
            send_signal(pid, signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM: it puts its jobs down and exits; its exit status."""
        send_signal(self.pid, signal.SIGTERM)
        return self._process.wait(timeout=60)

    def kill(self) -> None:
        """SIGKILL, as often as one likes. Its children go by themselves, unless they are stopped."""
        if self.ended():
            return
        family = self._members(family=True)
        send_signal(self.pid, signal.SIGKILL)
        self._process.wait()
        for pid in family[1:]:
            send_signal(pid, signal.SIGCONT)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def _members(self, family: bool) -> list[int]:
        return [self.pid, *(children_of(self.pid) if family else ())]


def children_of(parent: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found
