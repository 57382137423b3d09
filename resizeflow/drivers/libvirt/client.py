"""The worker's way to a real host: calls with deadlines that really end them, through a child process."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from resizeflow.drivers.hypervisor import EFFECTS
from resizeflow.drivers.interface import DriverError, Effect, Fence, Unknown, Unreachable
from resizeflow.drivers.libvirt.process import ChildProcess
from resizeflow.drivers.libvirt.watch import LibvirtWatch
from resizeflow.drivers.libvirt.wire import Connect, Ping, Reply, Request

LOG = logging.getLogger(__name__)


class LibvirtConnection:
    """A `Connection` to a libvirt URI. Threads may share it: their calls go one after the other."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._name = without_password(uri)
        self._turn = threading.Lock()
        self._child: ChildProcess | None = None

    def open(self, timeout: float) -> None:
        """Connects if it is not connected. Raises `Unreachable` within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._take_turn(timeout)
        try:
            if self._child is not None and not self._stands(self._child, deadline):
                self._drop(self._child)
            if self._child is None:
                self._child = self._connected(deadline, timeout)
        finally:
            self._turn.release()

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        """Calls a look or an act. See `Connection.call`."""
        if EFFECTS[method] is Effect.WATCH:
            raise ValueError(f"{method} is to be watched, not called.")
        self._note(method, fence)
        deadline = time.monotonic() + timeout
        self._take_turn(timeout)
        try:
            child = self._child
            if child is None:
                raise Unreachable(f"{self._name}: not connected.")
            reply = self._exchange(child, Request(method, args, fence), deadline, timeout)
            if not reply.alive:
                self._drop(child)
        finally:
            self._turn.release()
        if reply.error is not None:
            raise reply.error
        return reply.value

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> LibvirtWatch:
        """Starts a `WATCH` method in a child of its own."""
        if EFFECTS[method] is not Effect.WATCH:
            raise ValueError(f"{method} is to be called, not watched.")
        self._note(method, fence)
        return LibvirtWatch(self._name, self._uri, Request(method, args, fence))

    def close(self) -> None:
        """Ends the caller's side, and with it a call that another thread is in."""
        child = self._child
        if child is None:
            return
        child.end()
        with self._turn:
            self._drop(child)

    def _note(self, method: str, fence: Fence | None) -> None:
        if fence is not None:
            LOG.debug("%s: %s for job %s under epoch %d", self._name, method, fence.job_id, fence.epoch)

    def _take_turn(self, timeout: float) -> None:
        if not self._turn.acquire(timeout=timeout):
            raise Unreachable(f"{self._name}: busy with another call for {timeout:g} s.")

    def _connected(self, deadline: float, timeout: float) -> ChildProcess:
        """A child that has connected."""
        child = ChildProcess()
        try:
            child.channel.send(Connect(self._uri), deadline)
            reply = child.channel.receive(deadline)
        except TimeoutError:
            child.kill()
            raise Unreachable(f"{self._name}: libvirtd did not answer within {timeout:g} s.") from None
        except (EOFError, OSError):
            raise Unreachable(f"{self._name}: the driver's process ended: {child.kill()}.") from None
        except BaseException:
            child.kill()
            raise
        if isinstance(reply, Reply) and reply.error is not None:
            child.kill()
            raise Unreachable(f"{self._name}: {reply.error}")
        return child

    def _stands(self, child: ChildProcess, deadline: float) -> bool:
        """Whether a child is there and its connection is too."""
        try:
            child.channel.send(Ping(), deadline)
            reply = child.channel.receive(deadline)
        except (EOFError, OSError):
            return False
        except BaseException:
            self._drop(child)  # its answer may still come, and must not be taken for another's
            raise
        return isinstance(reply, Reply) and reply.alive

    def _exchange(self, child: ChildProcess, request: Request, deadline: float, timeout: float) -> Reply:
        """One question and its answer. If there is none in time, the child is gone: `Unknown`."""
        try:
            child.channel.send(request, deadline)
        except OSError:
            # A child that has not got the whole question does nothing.
            self._drop(child)
            raise Unreachable(f"{self._name}: the connection was lost before {request.method}.") from None
        try:
            reply = child.channel.receive(deadline)
        except TimeoutError:
            self._drop(child)
            raise Unknown(f"{self._name}: no answer to {request.method} within {timeout:g} s.") from None
        except (EOFError, OSError):
            words = self._drop(child)
            why = words or "the connection was lost"
            raise Unknown(f"{self._name}: no answer to {request.method}: {why}.") from None
        except BaseException:
            self._drop(child)  # as above
            raise
        if not isinstance(reply, Reply):
            self._drop(child)
            raise DriverError(f"{self._name}: {request.method} was answered with {type(reply).__name__}.")
        return reply

    def _drop(self, child: ChildProcess) -> str:
        if self._child is child:
            self._child = None
        return child.kill()


def without_password(uri: str) -> str:
    """A URI that can be shown."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@", 1)).geturl()
