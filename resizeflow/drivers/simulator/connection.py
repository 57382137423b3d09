"""The way to a simulated host, Cinder or Neutron: the promises of a real connection, without a process of its own."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from resizeflow.drivers.hypervisor import Hypervisor
from resizeflow.drivers.interface import DriverError, Effect, Fence, Unknown, Unreachable
from resizeflow.drivers.network import NetworkService
from resizeflow.drivers.simulator.cinder import CINDER, SimulatedCinder
from resizeflow.drivers.simulator.effects import Cause
from resizeflow.drivers.simulator.faults import EFFECTS
from resizeflow.drivers.simulator.hangs import arriving, swallow
from resizeflow.drivers.simulator.host import SimulatedHost
from resizeflow.drivers.simulator.host_session import HostSession
from resizeflow.drivers.simulator.neutron import NEUTRON, SimulatedNeutron
from resizeflow.drivers.simulator.power import come_back
from resizeflow.drivers.simulator.session import Session
from resizeflow.drivers.simulator.store import Store, address
from resizeflow.drivers.volume import VolumeService

_SERVICES: Mapping[str, Callable[[Session], VolumeService | NetworkService]] = {
    CINDER: SimulatedCinder,
    NEUTRON: SimulatedNeutron,
}


class SimulatedConnection:
    """A `Connection` to `sim:///FILE?host=NAME`. Threads may share it."""

    def __init__(self, uri: str) -> None:
        self._path, self._name = address(uri)
        self._store: Store | None = None
        self._turn = Lock()

    def open(self, timeout: float) -> None:  # noqa: ARG002 - a file answers at once
        """Connects if it is not connected."""
        with self._turn:
            if not self._path.is_file():
                raise Unreachable(f"there is no world in {self._path}")
            store = self._store or Store(self._path)
            try:
                _return_if_due(store, self._name)
                Session(store, self._name).connect()
            except DriverError as error:
                store.close()
                self._store = None
                raise Unreachable(f"cannot connect: {error}") from error
            self._store = store

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        *,
        timeout: float,  # noqa: ARG002 - a file answers at once
        fence: Fence | None = None,
    ) -> Any:
        """Calls a LOOK or ACT method. After `Unknown` or `Unreachable` the connection is lost."""
        if EFFECTS[method] is Effect.WATCH:
            raise ValueError(f"{method} is to be watched, not called.")
        with self._turn:
            if self._store is None:
                raise Unreachable(f"{self._name}: not connected")
            try:
                return _perform(_session(self._store, self._name, fence=fence), method, args)
            except (Unknown, Unreachable):
                self._lose()
                raise

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> SimulatedWatch:
        """Starts a WATCH method on a connection of its own."""
        if EFFECTS[method] is not Effect.WATCH:
            raise ValueError(f"{method} is to be called, not watched.")
        return SimulatedWatch(Store(self._path), self._name, method, args, fence)

    def close(self) -> None:
        """Ends the caller's side."""
        with self._turn:
            self._lose()

    def _lose(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


_END = object()


class SimulatedWatch:
    """A started WATCH method, in a thread that ends with its process."""

    def __init__(self, store: Store, name: str, method: str, args: tuple[Any, ...], fence: Fence | None) -> None:
        self._news: SimpleQueue[Any] = SimpleQueue()
        self._stopped = Event()
        self._error: DriverError | None = None
        session = _session(store, name, emit=self._news.put, fence=fence, stopped=self._stopped)
        self._thread = Thread(target=self._run, args=(session, method, args), daemon=True)
        self._thread.start()

    def news(self, timeout: float) -> tuple[Any, ...]:
        """What it has emitted since the last call; the end of the call ends the wait too."""
        found = []
        try:
            found.append(self._news.get(timeout=timeout))
            while True:
                found.append(self._news.get_nowait())
        except Empty:
            return tuple(piece for piece in found if piece is not _END)

    def ended(self) -> bool:
        """True when the call has returned."""
        return not self._thread.is_alive()

    def error(self) -> DriverError | None:
        """Why it failed, once it has ended."""
        return self._error

    def prolong(self, fence: Fence) -> None:
        """Nothing to do: this copy is a thread of its worker, and is stopped with it."""

    def stop(self) -> None:
        """Ends the caller's side."""
        self._stopped.set()
        self._thread.join()

    def _run(self, session: Session, method: str, args: tuple[Any, ...]) -> None:
        try:
            _perform(session, method, args)
        except DriverError as error:
            self._error = error
        finally:
            session.store.close()
            self._news.put(_END)


def arrive(store: Store, name: str) -> None:
    """Lets a place that woke up do what had hung in it, before it answers anybody; nobody hears how it went."""
    for method, args, fence in arriving(store, name):
        session = _session(store, name, fence=fence, caused=Cause.LATE)
        session.stopped.set()
        with contextlib.suppress(DriverError):
            getattr(_served(session), method)(*args)


def _session(store: Store, name: str, **how: Any) -> Session:
    return Session(store, name, **how) if name in _SERVICES else HostSession(store, name, **how)


def _served(session: Session) -> Hypervisor | VolumeService | NetworkService:
    return SimulatedHost(session) if isinstance(session, HostSession) else _SERVICES[session.name](session)


def _return_if_due(store: Store, name: str) -> None:
    if store.row("SELECT 1 FROM places WHERE name = ? AND attempts_left <= 0", (name,)) is None:
        return
    with store.transaction() as db:
        come_back(db, name)
    arrive(store, name)


def _perform(session: Session, method: str, args: tuple[Any, ...]) -> Any:
    try:
        if session.store.eventful() and swallow(session.store, session.name, method, args, session.fence):
            raise Unknown(f"{session.name}: no answer to {method}")
        return getattr(_served(session), method)(*args)
    except sqlite3.Error as error:
        raise Unknown(f"{session.name}: {error}") from error
