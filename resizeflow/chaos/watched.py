"""Connections that write down each call before it is made, so that a judge sees what was looked at before what."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resizeflow.drivers.interface import Connection, Fence, Watch
from resizeflow.drivers.simulator import SimulatedConnection
from resizeflow.drivers.simulator.store import address


@dataclass(frozen=True)
class Call:
    """A call that a process made, or was about to make when it was killed."""

    process: int
    host: str
    method: str
    subjects: tuple[str, ...]
    """Its arguments that are plain words: a domain's UUID; a pool and a volume's name."""


class Trace:
    """A file of calls, in their order over all processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self, uri: str) -> Connection:
        """A connection to a simulated host that is watched."""
        return _Watched(uri, self)

    def add(self, host: str, method: str, args: tuple[Any, ...]) -> None:
        words = [arg for arg in args if isinstance(arg, str) and "\n" not in arg and " " not in arg]
        line = "\t".join([str(os.getpid()), host, method, *words])
        with self.path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def calls(self) -> Iterator[Call]:
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                process, host, method, *subjects = line.split("\t")
                yield Call(int(process), host, method, tuple(subjects))


class _Watched:
    def __init__(self, uri: str, trace: Trace) -> None:
        self._inner = SimulatedConnection(uri)
        self._host = address(uri)[1]
        self._trace = trace

    def open(self, timeout: float) -> None:
        self._inner.open(timeout)

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        self._trace.add(self._host, method, args)
        return self._inner.call(method, args, timeout=timeout, fence=fence)

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> Watch:
        self._trace.add(self._host, method, args)
        return self._inner.watch(method, args, fence=fence)

    def close(self) -> None:
        self._inner.close()
