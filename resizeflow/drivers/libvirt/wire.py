"""What a worker and the child process that holds a host's connection say to each other."""

from __future__ import annotations

import pickle
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from resizeflow.drivers.interface import DriverError, Fence

_LENGTH = struct.Struct(">Q")
_READ = 256 * 1024


@dataclass(frozen=True)
class Connect:
    """To the child, first: where to connect."""

    uri: str


@dataclass(frozen=True)
class Request:
    """To the child: call a method of the `Hypervisor`."""

    method: str
    args: tuple[Any, ...]
    fence: Fence | None


@dataclass(frozen=True)
class Ping:
    """To the child: does its connection still stand?"""


@dataclass(frozen=True)
class Noted:
    """To the child: a piece of news has been taken."""


@dataclass(frozen=True)
class Prolong:
    """To the child, while a call runs: its effects may go on until a later moment."""

    fence: Fence


@dataclass(frozen=True)
class News:
    """From the child, while a call runs: what it emits."""

    value: Any


@dataclass(frozen=True)
class Reply:
    """From the child: how it went. `alive` is whether its connection still stands."""

    value: Any = None
    error: DriverError | None = None
    alive: bool = True


class Channel:
    """Whole messages over a socket, each way with a deadline in `time.monotonic` seconds.

    Raises `EOFError` or `OSError` when the other end is gone, and `TimeoutError` (an `OSError` too) at the
    deadline: after one in `receive` what has come is kept, after one in `send` nothing more can be sent.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = bytearray()

    def send(self, message: object, deadline: float | None = None) -> None:
        """Sends one message."""
        data = pickle.dumps(message)
        self._allow(deadline)
        self._end.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self, deadline: float | None = None) -> object:
        """Waits for one message."""
        self._fill(_LENGTH.size, deadline)
        (length,) = _LENGTH.unpack_from(self._received)
        self._fill(_LENGTH.size + length, deadline)
        message = self._received[_LENGTH.size : _LENGTH.size + length]
        del self._received[: _LENGTH.size + length]
        return pickle.loads(message)  # noqa: S301 - from the process at the other end of our own socket pair

    def close(self) -> None:
        """Closes this end."""
        self._end.close()

    def _fill(self, length: int, deadline: float | None) -> None:
        """Receives until that many bytes are there."""
        while len(self._received) < length:
            self._allow(deadline)
            part = self._end.recv(_READ)
            if not part:
                raise EOFError
            self._received += part

    def _allow(self, deadline: float | None) -> None:
        if deadline is None:
            self._end.settimeout(None)
            return
        # Never zero, which would mean another mode: what is there already is taken at the deadline too.
        self._end.settimeout(max(0.001, deadline - time.monotonic()))
