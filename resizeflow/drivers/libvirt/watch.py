"""A long call in a child process of its own, seen from the worker."""

from __future__ import annotations

import threading
import time
from typing import Any

from resizeflow.drivers.interface import DriverError, Fence, Unknown, Unreachable
from resizeflow.drivers.libvirt.process import ChildProcess
from resizeflow.drivers.libvirt.wire import Connect, News, Noted, Prolong, Reply, Request

# Of its own, because nobody waits for a watch to connect.
_CONNECT_TIMEOUT = 30.0


class LibvirtWatch:
    """A started `WATCH` method. See `resizeflow.drivers.hypervisor.Watch`."""

    def __init__(self, name: str, uri: str, request: Request) -> None:
        self._name = name
        self._method = request.method
        self._connect_by: float | None = time.monotonic() + _CONNECT_TIMEOUT
        self._ended = False
        self._error: DriverError | None = None
        self._news: list[Any] = []
        self._lock = threading.RLock()
        self._child = ChildProcess()
        try:
            deadline = time.monotonic() + _CONNECT_TIMEOUT
            self._child.channel.send(Connect(uri), deadline)
            self._child.channel.send(request, deadline)
        except OSError:
            self._end(Unreachable(f"{name}: the driver's process ended: {self._child.kill()}."))

    def news(self, timeout: float) -> tuple[Any, ...]:
        """What it has emitted since the last call, waiting at most `timeout` seconds for the first piece."""
        with self._lock:
            deadline = time.monotonic() + timeout
            while not self._ended and not self._news and self._take(deadline):
                pass
            while not self._ended and self._take(time.monotonic()):
                pass
            news, self._news = tuple(self._news), []
            return news

    def ended(self) -> bool:
        """True when the call has returned or its process is gone. News may be left to be read."""
        with self._lock:
            while not self._ended and self._take(time.monotonic()):
                pass
            return self._ended

    def error(self) -> DriverError | None:
        """Why it failed, once it has ended."""
        with self._lock:
            return self._error

    def prolong(self, fence: Fence) -> None:
        """Its effect may go on until the fence's last moment."""
        with self._lock:
            if not self._ended:
                self._tell(Prolong(fence))

    def stop(self) -> None:
        """Ends the caller's side."""
        with self._lock:
            if not self._ended:
                self._end(Unknown(f"{self._name}: {self._method} was left alone by its caller."))
                self._child.kill()

    def _take(self, deadline: float) -> bool:
        """Takes one message; False if none came."""
        now = time.monotonic()
        if self._connect_by is not None and now > self._connect_by:
            self._child.kill()
            self._end(Unreachable(f"{self._name}: libvirtd did not answer within {_CONNECT_TIMEOUT:g} s."))
            return False
        try:
            message = self._child.channel.receive(min(deadline, self._connect_by or deadline))
        except TimeoutError:
            return self._connect_by is not None and deadline > time.monotonic()
        except (EOFError, OSError):
            words = self._child.kill()
            self._end(Unknown(f"{self._name}: {self._method} ended without an answer: {words or 'killed'}."))
            return False
        if isinstance(message, News):
            self._news.append(message.value)
            self._tell(Noted())
        elif isinstance(message, Reply):
            self._answered(message)
        return True

    def _answered(self, reply: Reply) -> None:
        """The first reply is that of the connection, unless that failed; the second is the call's."""
        if self._connect_by is not None and reply.error is None:
            self._connect_by = None
            return
        error = reply.error
        if self._connect_by is not None and error is not None:
            error = Unreachable(f"{self._name}: {error}")
        self._child.kill()
        self._end(error)

    def _tell(self, message: Noted | Prolong) -> None:
        try:
            self._child.channel.send(message, time.monotonic() + _CONNECT_TIMEOUT)
        except OSError:
            return  # gone: the next message says so

    def _end(self, error: DriverError | None) -> None:
        self._ended = True
        self._error = error
