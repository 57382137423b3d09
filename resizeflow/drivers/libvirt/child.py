"""The process that holds one connection to one host: `python -m resizeflow.drivers.libvirt.child FD`.

A process, because libvirt's calls cannot be interrupted and its open has no time-out: whoever started it
can kill it. It goes at once when its starter does, even in the middle of a call. It never connects again.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from typing import Any

import libvirt

from resizeflow.drivers.interface import DriverError, Unknown
from resizeflow.drivers.libvirt.host import LibvirtHost
from resizeflow.drivers.libvirt.session import Session, open_session
from resizeflow.drivers.libvirt.wire import Channel, Connect, News, Noted, Ping, Prolong, Reply, Request

# How far a copy may run ahead of the worker that records it: what is copied again after a kill.
_UNNOTED = 4
_LOST = object()


class _Parent:
    """The worker: its messages in order, and the end of this process when there is no worker any more."""

    def __init__(self, end: socket.socket) -> None:
        self._channel = Channel(end)
        self._messages: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._may_emit = threading.Semaphore(_UNNOTED)
        self.session: Session | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def next_message(self) -> object:
        """Waits for what the worker wants, or for `lost`."""
        return self._messages.get()

    def send(self, message: object) -> None:
        """Sends one message."""
        self._channel.send(message)

    def emit(self, value: Any) -> None:
        """Sends news, and waits while too many pieces have not been noted."""
        self._may_emit.acquire()
        self.send(News(value))

    def lost(self) -> None:
        """Ends the waiting: the connection to the host is gone."""
        self._messages.put(_LOST)

    def _listen(self) -> None:
        while True:
            try:
                message = self._channel.receive()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(message, Noted):
                self._may_emit.release()
            elif isinstance(message, Prolong):
                if self.session is not None:
                    self.session.fenced_by = message.fence
            else:
                self._messages.put(message)


def _ignore_error(_context: None, _error: tuple[Any, ...]) -> None:
    """libvirt would print each error."""


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _answer(host: LibvirtHost, session: Session, request: Request) -> Reply:
    """Calls one method."""
    session.fenced_by = request.fence
    try:
        value = getattr(host, request.method)(*request.args)
    except DriverError as error:
        return Reply(error=error, alive=session.alive)
    except Exception as error:
        name = type(error).__name__
        unknown = Unknown(f"{session.host}: {request.method} failed in the driver: {name}: {error}.")
        return Reply(error=unknown, alive=session.alive)
    return Reply(value=value, alive=session.alive)


def _serve(parent: _Parent) -> None:
    """Connects, then answers one request after the other until the worker or the host is gone."""
    connect = parent.next_message()
    if not isinstance(connect, Connect):
        raise TypeError(connect)
    try:
        session = open_session(connect.uri, parent.emit)
    except DriverError as error:
        parent.send(Reply(error=error, alive=False))
        return
    parent.session = session
    session.connection.registerCloseCallback(lambda *_: parent.lost(), None)
    host = LibvirtHost(session)
    parent.send(Reply(value=session.host))
    while True:
        message = parent.next_message()
        if message is _LOST:
            return
        if isinstance(message, Ping):
            parent.send(Reply(alive=session.alive))
        elif isinstance(message, Request):
            parent.send(_answer(host, session, message))


def main() -> None:
    """Serves the socket whose number is the only argument."""
    libvirt.registerErrorHandler(_ignore_error, None)
    libvirt.virEventRegisterDefaultImpl()  # before the connection is opened, or it has no keepalive
    threading.Thread(target=_run_events, daemon=True).start()
    _serve(_Parent(socket.socket(fileno=int(sys.argv[1]))))
    # libvirt's threads and destructors may wait for a host that hangs.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
