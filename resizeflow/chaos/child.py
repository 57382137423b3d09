"""A run in a fork of this warm process, with failpoints armed: a case costs a fraction of an interpreter's start."""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from resizeflow import failpoints

KILLED = -signal.SIGKILL
_real_clock = time.clock_gettime


class Overdue(Exception):
    """A child did not end in its time; it was killed."""


class Child:
    """A forked process that does `work` and exits: 0 if it returned, 1 if it raised."""

    def __init__(self, work: Callable[[], object], points: str = "", log: Path | None = None) -> None:
        """`points` are armed as `resizeflow.failpoints` says; `log` collects the names of those passed."""
        self._sleep = mmap.mmap(-1, 8)
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._do(work, points, log))
        self._ended = os.pidfd_open(self.pid)

    def _do(self, work: Callable[[], object], points: str, log: Path | None) -> int:
        failpoints.arm(points, str(log) if log else None)
        time.clock_gettime = self._clock
        try:
            work()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            return 1
        return 0

    def _clock(self, clock: int) -> float:
        """The child's clocks, later by the time that it has been said to have slept."""
        slept: float = struct.unpack("d", self._sleep[:8])[0]
        return _real_clock(clock) + slept

    def wait(self, seconds: float) -> int:
        """Its exit status, KILLED if it was killed. Raises Overdue."""
        ready, _, _ = select.select([self._ended], [], [], seconds)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        status = self._reap()
        if not ready:
            raise Overdue(f"did not end within {seconds:g} s")
        return status

    def stops(self, seconds: float) -> bool:
        """Waits until it stops itself (True) or ends (False; `wait` has its status still). Raises Overdue."""
        flags = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
        late = time.monotonic() + seconds
        while (result := os.waitid(os.P_PID, self.pid, flags)) is None:
            if time.monotonic() > late:
                self.end()
                raise Overdue(f"neither stopped nor ended within {seconds:g} s")
            time.sleep(0.001)
        return result.si_code == os.CLD_STOPPED

    def wake(self, slept: float) -> None:
        """Lets a stopped one go on, `slept` seconds later by its own clocks (CLOCK_BOOTTIME does not stop)."""
        self._sleep[:8] = struct.pack("d", slept)
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """Kills it, stopped or not."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._ended)
        self._sleep.close()
        return status
