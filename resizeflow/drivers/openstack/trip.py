"""One call to a service on its way: in a thread, so that whoever waits for it can leave it behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from resizeflow.drivers.interface import Fence, Refused


class Trip(threading.Thread):
    """A call under way. Left behind, it sends nothing any more, and ends when its sockets' time is up."""

    def __init__(self, to: str, errand: Callable[[], Any], timeout: float, fence: Fence | None = None) -> None:
        super().__init__(name=to, daemon=True)  # one that hangs does not keep its process
        self._errand = errand
        self._until = time.monotonic() + timeout
        self._fence = fence
        self._turn = threading.Lock()
        self._left = False
        self._value: Any = None
        self._error: Exception | None = None
        self.sent = False
        """Whether any byte has gone out. Else nothing can have happened."""

    @property
    def remaining(self) -> float:
        """Seconds for which it is waited for."""
        return max(self._until - time.monotonic(), 0.001)

    def result(self) -> Any:
        """Starts it and waits for it. Raises what it raised, or TimeoutError: then `sent` is final."""
        self.start()
        self.join(self.remaining)
        with self._turn:
            self._left = self.is_alive()
        if self._left:
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value

    def run(self) -> None:
        """The thread."""
        try:
            self._value = self._errand()
        except Exception as error:
            self._error = error

    def sending(self) -> None:
        """Called directly before anything is written to a socket. Raises `Refused` when it is too late for that."""
        with self._turn:
            if self._left:
                raise Refused(f"{self.name}: too late, nobody waits for the answer.")
            fence = self._fence
            if fence is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > fence.not_after:
                raise Refused(f"{self.name}: too late, epoch {fence.epoch} of job {fence.job_id} may have ended.")
            self.sent = True
