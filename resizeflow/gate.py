"""The one way to touch a host, Cinder or Neutron: nothing else may hold a raw driver.

`Looks` asks and never changes anything; it needs no lease and serves the commands, the scheduler and the doctor.
`Gate` also acts, and is made for one job under its lease. For each act, in this order: name the point, see that the
connection is alive, failpoint *before*, one query (is the epoch ours, which direction), is enough of the lease
left, failpoint *checked*, the call with its deadline on that same connection, failpoint *after*, a line for the log.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import sqlalchemy as sa
import tenacity

from resizeflow import drivers, failpoints
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.drivers import bridge, hypervisor, network, volume
from resizeflow.drivers.bridge import BridgeHost
from resizeflow.drivers.hypervisor import Hypervisor
from resizeflow.drivers.interface import (
    Connection,
    Effect,
    Exists,
    Fence,
    Missing,
    Refused,
    Unknown,
    Unreachable,
    Watch,
)
from resizeflow.drivers.network import NetworkService
from resizeflow.drivers.volume import VolumeService
from resizeflow.handover import Handover, LeaseLost, Stopping, TurnBack
from resizeflow.lease import Lease
from resizeflow.persistence.database import AWAY, Database, away
from resizeflow.persistence.models import Host, Job
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.states import Direction, Outcome

LATE = 3.0
"""Seconds for which a host that did not answer is not looked at after it answers again: a daemon that hung does then
what it was sent before, by us or by a worker that died, and what it has begun does not show yet."""
CHECK_EVERY = 1.0
"""Seconds for which a look relies on what the database said before; an act asks anew."""


class Place(Protocol):
    """Where a call goes: a host, or its shell, Cinder, or Neutron."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uri(self) -> str: ...


class Away(Exception):
    """A place did not answer for as long as the caller was ready to wait."""


class HostAway(Away):
    """A host did not answer."""

    def __init__(self, host: Host, reason: str) -> None:
        super().__init__(f"host {host.name} does not answer: {reason}")
        self.host = host


class ServiceAway(Away):
    """A service that machines of several hosts depend on did not answer, or there is none."""


class CinderAway(ServiceAway):
    """Cinder did not answer, or there is none."""


class NeutronAway(ServiceAway):
    """Neutron did not answer, or there is none."""


@dataclass(frozen=True)
class _Service:
    """The place that Cinder is, or Neutron."""

    uri: str
    id: str
    away: type[ServiceAway]

    @property
    def name(self) -> str:
        return self.id


@dataclass(frozen=True)
class _Shell:
    """The place that a host's shell is: it may be silent while its libvirtd answers, and the other way round."""

    host: Host

    @property
    def id(self) -> str:
        return f"shell:{self.host.id}"

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def uri(self) -> str:
        shell = self.host.shell or ""
        return shell if shell.startswith("sim:") else f"shell:{shell}"


def _away(place: Place, reason: str) -> Away:
    if isinstance(place, _Shell):
        return HostAway(place.host, reason)
    if isinstance(place, _Service):
        return place.away(f"{place.name.capitalize()} does not answer: {reason}")
    return HostAway(cast("Host", place), reason)


class Connections:
    """One connection per place and process, shared by its jobs, opened when first needed."""

    def __init__(self, connect: Callable[[str], Connection] = drivers.connect) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._open: dict[str, Connection] = {}

    def to(self, uri: str) -> Connection:
        with self._lock:
            if uri not in self._open:
                self._open[uri] = self._connect(uri)
            return self._open[uri]

    def close(self) -> None:
        """Ends all of them."""
        with self._lock:
            for connection in self._open.values():
                connection.close()
            self._open.clear()


class _Door:
    """A `Hypervisor`, `BridgeHost`, `VolumeService` or `NetworkService` whose methods go through the gate, each as its
    mark says."""

    def __init__(self, gate: Looks, place: Place, effects: Mapping[str, Effect], patience: float) -> None:
        self._gate = gate
        self._place = place
        self._effects = effects
        self._patience = patience

    def __getattr__(self, method: str) -> Callable[..., Any]:
        effect = self._effects[method]

        def call(*args: Any) -> Any:
            if effect is Effect.LOOK:
                return self._gate.look(self._place, method, args, self._patience)
            if effect is Effect.ACT:
                return self._gate.act(self._place, method, args)
            raise TypeError(f"{method} is started by Gate.start, it has no answer.")

        return call


class Looks:
    """Questions to hosts, to Cinder and to Neutron, retried freely."""

    def __init__(self, connections: Connections, settings: Settings, clock: Clock) -> None:
        self.connections = connections
        self.settings = settings
        self.clock = clock
        self._silent: set[str] = set()
        """Places that were silent for their whole patience: they are not waited for again until they answer."""

    def host(self, host: Host, *, patience: float | None = None) -> Hypervisor:
        """A host to talk to. Looks are repeated for `patience` seconds while it does not answer (the setting
        `host_patience` unless given), then raise `HostAway`."""
        if patience is None:
            patience = self.settings.host_patience
        return cast("Hypervisor", _Door(self, host, hypervisor.EFFECTS, patience))

    def bridges(self, host: Host, *, patience: float | None = None) -> BridgeHost:
        """A host's bridges to talk to by its shell, as the host. Raises `HostAway` where it has none."""
        if host.shell is None:
            raise HostAway(host, f"it has no shell: `resizeflow host set {host.name} --shell ...`")
        if patience is None:
            patience = self.settings.host_patience
        return cast("BridgeHost", _Door(self, _Shell(host), bridge.EFFECTS, patience))

    def volumes(self, *, patience: float | None = None) -> VolumeService:
        """Cinder to talk to, asked again as a host is. Raises `CinderAway` where none is configured, as looks do where
        it does not answer."""
        return cast("VolumeService", self._service("cinder", CinderAway, volume.EFFECTS, patience))

    def network(self, *, patience: float | None = None) -> NetworkService:
        """Neutron to talk to, as Cinder. Raises `NeutronAway` where none is configured or it does not answer."""
        return cast("NetworkService", self._service("neutron", NeutronAway, network.EFFECTS, patience))

    def _service(
        self, name: str, away: type[ServiceAway], effects: Mapping[str, Effect], patience: float | None
    ) -> _Door:
        uri = self.settings.services[name].uri
        if uri is None:
            words = f"no {name.capitalize()} is configured: give auth_type in section [{name}] of the configuration"
            raise away(words)
        if patience is None:
            patience = self.settings.host_patience
        return _Door(self, _Service(uri, name, away), effects, patience)

    def look(self, place: Place, method: str, args: tuple[Any, ...], patience: float) -> Any:
        connection = self.connections.to(place.uri)
        timeout = self.settings.look_timeout

        def ask() -> Any:
            self.glance()
            try:
                connection.open(timeout)
                self.let_arrive(place)
                return connection.call(method, args, timeout=timeout)
            except (Unreachable, Unknown):
                self.did_not_answer(place)
                raise

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Unreachable, Unknown)),
            wait=tenacity.wait_exponential(multiplier=0.2, max=3),
            stop=tenacity.stop_after_delay(0 if place.id in self._silent else patience),
            sleep=self.clock.sleep,
            reraise=True,
        )
        try:
            answer = retrying(ask)
        except (Unreachable, Unknown) as error:
            self._silent.add(place.id)
            raise _away(place, str(error)) from error
        self._silent.discard(place.id)
        return answer

    def act(self, place: Place, method: str, args: tuple[Any, ...]) -> Any:  # noqa: ARG002 - the Gate's, refused here
        """Refused: only a `Gate`, made for a job under its lease, acts."""
        raise TypeError(f"{method} on {place.name}: without a job's lease nothing may be changed.")

    def glance(self) -> None:
        """Between two questions: may we go on? Without a job, always."""

    def let_arrive(self, place: Place) -> None:
        """Before a look: what was sent to the host has happened, or will not. Without acts there is nothing."""

    def did_not_answer(self, place: Place) -> None:
        """The place may have hung, with calls in it that it has still to do."""


class Gate(Looks):
    """Acts on hosts, at Cinder and at Neutron for one job, under its lease."""

    def __init__(
        self,
        connections: Connections,
        settings: Settings,
        clock: Clock,
        *,
        database: Database,
        lease: Lease,
        work: UnitOfWork,
        stop: threading.Event,
    ) -> None:
        super().__init__(connections, settings, clock)
        self._database = database
        self._lease = lease
        self._work = work
        self._stop = stop
        self._scope = ""
        self._goes = Direction.FORWARD
        self._counts: Counter[str] = Counter()
        self._checked_at = -CHECK_EVERY
        self._unanswered: set[str] = set()
        """Hosts that left us, or somebody before us, without an answer, and were not looked at since."""

    @contextlib.contextmanager
    def scope(self, name: str, goes: Direction) -> Iterator[None]:
        """Names the points of a task's run, and says which way it goes."""
        self._scope, self._goes, self._counts = name, goes, Counter()
        try:
            yield
        finally:
            self._scope = ""

    @property
    def task(self) -> str | None:
        """The task that runs, or is being undone."""
        return self._scope.removesuffix(".revert") or None

    def point(self, name: str) -> str:
        """The name of the next point of that name in this scope: `TransferDisks.create_volume#2`."""
        self._counts[name] += 1
        return f"{self._scope}.{name}#{self._counts[name]}"

    def glance(self) -> None:
        """Before what changes nothing: as `check`, by what is known, which is at most CHECK_EVERY seconds old."""
        if self.clock.boottime() - self._checked_at > CHECK_EVERY:
            self.check()
        else:
            self._require_ours()

    def did_not_answer(self, place: Place) -> None:
        self._unanswered.add(place.id)

    def let_arrive(self, place: Place) -> None:
        if place.id in self._unanswered:
            self.pause(LATE)
            self._unanswered.discard(place.id)

    def check(self) -> None:
        """Asks the database. Raises a Handover if this run must not go on: asked to stop, lease lost, direction
        changed."""
        self._require_ours()
        self._checked_at = self.clock.boottime()
        try:
            with self._database.read() as tx:
                row = tx.session.execute(
                    sa.select(Job.epoch, Job.direction).where(Job.id == self._lease.job_id)
                ).one_or_none()
        except AWAY as error:
            raise away(error) from error
        if row is None or row.epoch != self._lease.epoch:
            self._lease.lost = True
        else:
            self._lease.turned_back = row.direction is Direction.BACK
        self._require_ours()

    def _require_ours(self) -> None:
        if self._stop.is_set():
            raise Stopping("the worker was asked to stop")
        if self._lease.lost:
            raise LeaseLost("another worker has taken this job over")
        if self._lease.turned_back and self._goes is Direction.FORWARD:
            raise TurnBack("the resize is to be rolled back")

    def pause(self, seconds: float) -> None:
        """Waits within a task, then checks: a waiting task can be stopped and turned back."""
        self.clock.wait(self._stop, seconds)
        self.check()

    def act(self, place: Place, method: str, args: tuple[Any, ...]) -> Any:
        """One effect on a host or at a service. Raises `Refused` (nothing happened), `Unknown` (look again), `Away`."""
        point = self.point(method)
        connection = self.connections.to(place.uri)
        self._open(place, connection)
        began = self.clock.boottime()
        failpoints.hit(f"{point}.before")
        self.check()
        fence = self._fence()
        failpoints.hit(f"{point}.checked")
        try:
            answer = connection.call(method, args, timeout=self.settings.act_timeout, fence=fence)
            failpoints.hit(f"{point}.after")
        except (Unknown, failpoints.ReplyLost) as error:
            self.did_not_answer(place)
            self._work.tell(
                "unknown",
                f"{method} on {place.name}: no answer, looking again",
                outcome=Outcome.UNKNOWN,
                **self._of_effect(place, method, began),
            )
            raise Unknown(str(error)) from error
        except Unreachable as error:
            raise _away(place, str(error)) from error
        except failpoints.FailpointError as error:
            raise Refused(str(error)) from error
        except Refused as error:
            if self.clock.boottime() > fence.not_after:
                raise Handover("the effect would have begun too late in the lease") from None
            if not isinstance(error, Missing | Exists):  # They say that it was done before.
                self._work.tell(
                    "effect",
                    f"{method} on {place.name} was refused",
                    outcome=Outcome.REFUSED,
                    error=str(error),
                    **self._of_effect(place, method, began),
                )
            raise
        self._work.tell(
            "effect",
            f"{method} on {place.name}",
            outcome=Outcome.OK,
            **self._of_effect(place, method, began),
        )
        return answer

    def _of_effect(self, place: Place, method: str, began: float) -> dict[str, Any]:
        seconds = round(self.clock.boottime() - began, 3)
        return {"task": self._scope, "host": place.name, "method": method, "seconds": seconds}

    def start(self, host: Host, method: str, *args: Any) -> Watch:
        """Starts a WATCH method. Its truth is in looks; see `Watch`."""
        if hypervisor.EFFECTS[method] is not Effect.WATCH:
            raise TypeError(f"{method} is not a WATCH method.")
        point = self.point(method)
        connection = self.connections.to(host.uri)
        self._open(host, connection)
        began = self.clock.boottime()
        failpoints.hit(f"{point}.before")
        self.check()
        fence = self._fence()
        failpoints.hit(f"{point}.checked")
        try:
            watch = connection.watch(method, args, fence=fence)
        except Unreachable as error:
            raise HostAway(host, str(error)) from error
        text = f"{method} started on {host.name}"
        self._work.tell("effect", text, outcome=Outcome.OK, **self._of_effect(host, method, began))
        return watch

    def watching(self, name: str, seconds: float, watch: Watch | None = None) -> None:
        """One turn of a poll loop: a failpoint in the middle of the effect, a pause, a check. A `watch` that needs
        this worker to go on is told how long the lease now holds."""
        failpoints.hit(f"{self._scope}.{name}.running")
        self.pause(seconds)
        if watch is not None:
            watch.prolong(self._fence())

    def _open(self, place: Place, connection: Connection) -> None:
        try:
            connection.open(self.settings.look_timeout)
        except Unreachable as error:
            self.did_not_answer(place)
            raise _away(place, str(error)) from error

    def _fence(self) -> Fence:
        """What an effect is sent with: this job's epoch, and the last moment at which it may begin, so that it has
        surely ended, and a stopped child's connection is surely gone, before the lease can be taken over."""
        need = self.settings.act_timeout + self.settings.fence_window
        if self._lease.surely_until - self.clock.boottime() <= need:
            self._renew()
        last = self._lease.surely_until - need
        if last <= self.clock.boottime():
            raise Handover("too little of the lease is left to begin an effect")
        return Fence(last, self._lease.job_id, self._lease.epoch)

    def _renew(self) -> None:
        try:
            with self._database.write() as tx:
                renewed = tx.jobs.renew(self._lease, self.settings.lease_seconds)
        except AWAY as error:
            raise away(error) from error
        if not renewed:
            raise LeaseLost("another worker has taken this job over")
