"""A host as its child process holds it: the one connection, the host's name, and the fence in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from resizeflow.drivers.interface import Fence, Refused, Unreachable
from resizeflow.drivers.libvirt.errors import reason, translated

# libvirtd's input and output answer these even when all its workers are busy, so silence means that it hangs:
# noticed after interval * (count + 1) seconds.
KEEPALIVE_INTERVAL = 2
KEEPALIVE_COUNT = 3
_HELD = 0.1
"""Seconds between two looks whether an effect that is held still may go on."""


class Session:
    """One connection to one host. It is never opened again once it is lost."""

    def __init__(self, connection: libvirt.virConnect, emit: Callable[[Any], None]) -> None:
        self.connection = connection
        self.host = str(connection.getHostname())
        self.emit = emit
        self.fenced_by: Fence | None = None

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as this end knows."""
        return bool(self.connection.isAlive() == 1)

    @contextmanager
    def asking(self, doing: str, *, begun: bool = False) -> Iterator[None]:
        """Translates what libvirt raises inside. See `translated`."""
        try:
            yield
        except libvirt.libvirtError as error:
            raise translated(error, self.host, doing, alive=self.alive, begun=begun) from None

    def fence(self) -> None:
        """Called directly before each call that has an effect. Raises `Refused` when it is too late."""
        fence = self.fenced_by
        if fence is not None and self._too_late():
            raise Refused(f"{self.host}: too late, epoch {fence.epoch} of job {fence.job_id} may have ended.")

    def _too_late(self) -> bool:
        fence = self.fenced_by
        return fence is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > fence.not_after

    def hold_still(self) -> None:
        """Called directly before each piece of a long effect. Waits while it is too late, until the worker, whose
        lease was renewed, says so, or ends this process: it may have been stopped, and another have its job."""
        while self._too_late():
            time.sleep(_HELD)

    def close(self) -> None:
        """Lets the connection go; one that is lost already is fine."""
        try:
            self.connection.close()
        except libvirt.libvirtError:
            return


def open_session(uri: str, emit: Callable[[Any], None]) -> Session:
    """Connects; libvirt's event loop runs already. Raises `Unreachable`. Hangs as long as the host does."""
    try:
        connection = libvirt.open(uri)
        if not uri.startswith("test:"):
            connection.setKeepAlive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
        return Session(connection, emit)
    except libvirt.libvirtError as error:
        raise Unreachable(f"cannot connect: {reason(error)}.") from None
