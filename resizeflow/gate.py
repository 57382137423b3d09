"""The one way to change something on a host, at Cinder or at Neutron: for one job, under its lease.

For each act, in this order: name the point, see that the connection is alive, failpoint *before*, one query (is the
epoch ours, which direction), is enough of the lease left, failpoint *checked*, the call with its deadline on that same
connection, failpoint *after*, a line for the log.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from resizeflow import failpoints
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.connections import Connections, HostAway, Place, away_from
from resizeflow.drivers import hypervisor
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
from resizeflow.handover import Handover, LeaseLost, Stopping, TurnBack
from resizeflow.lease import Lease
from resizeflow.looks import Looks
from resizeflow.persistence.database import AWAY, Database, away
from resizeflow.persistence.models import Host, Job
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.states import Direction, Outcome

LATE = 3.0
"""Seconds for which a host that did not answer is not looked at after it answers again: a daemon that hung does then
what it was sent before, by us or by a worker that died, and what it has begun does not show yet."""
CHECK_EVERY = 1.0
"""Seconds for which a look relies on what the database said before; an act asks anew."""

_OURS = sa.select(Job.epoch, Job.direction).where(Job.id == sa.bindparam("job"))


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
                row = tx.connection.execute(_OURS, {"job": self._lease.job_id}).one_or_none()
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
            raise away_from(place, str(error)) from error
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
            raise away_from(place, str(error)) from error

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
