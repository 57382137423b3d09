"""What all drivers have in common: how their methods are marked, what they may raise, and the way to the other end.

`resizeflow.looks` and `resizeflow.gate` are the only callers. They need to know of each method whether it may be
repeated freely, so an unmarked method fails when its interface is imported.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Effect(enum.Enum):
    """What calling a method does to the world, hence how the gate treats it."""

    LOOK = "look"
    """No effect: retried freely."""
    ACT = "act"
    """Seconds. Ends ok, refused (`Refused`) or unknown (`Unknown`)."""
    WATCH = "watch"
    """Starts something long that outlives its caller where it can; polled by looks, adopted by a successor."""


class DriverError(Exception):
    """The driver's only family of errors; everything of libvirt's is translated into it at this edge."""


class Refused(DriverError):
    """The host said no: nothing was changed by this call."""


class Missing(Refused):
    """What the call names does not exist."""


class Exists(Refused):
    """What the call would create exists already."""


class Differs(DriverError):
    """What a stream copy sent does not read back the same: its journal is worth nothing, copy anew."""


class Unknown(DriverError):
    """No answer (deadline passed, connection lost): the effect may have happened. Look before anything else."""


class Unreachable(DriverError):
    """The host could not be asked: nothing was sent."""


def look(method: _Method) -> _Method:
    """Marks a method without effect."""
    method.effect = Effect.LOOK  # type: ignore[attr-defined]
    return method


def act(method: _Method) -> _Method:
    """Marks a method that changes the host within seconds."""
    method.effect = Effect.ACT  # type: ignore[attr-defined]
    return method


def watch(method: _Method) -> _Method:
    """Marks a method that starts something long."""
    method.effect = Effect.WATCH  # type: ignore[attr-defined]
    return method


def effects_of(interface: type) -> Mapping[str, Effect]:
    """The kind of each of an interface's methods. Raises TypeError for one that has no mark."""
    effects = {}
    for name in sorted(interface.__abstractmethods__):  # type: ignore[attr-defined]
        effect = getattr(getattr(interface, name), "effect", None)
        if not isinstance(effect, Effect):
            raise TypeError(f"{interface.__name__}.{name} is not marked as look, act or watch.")
        effects[name] = effect
    return effects


@dataclass(frozen=True)
class Fence:
    """Until when an effect may begin, and for whom it is: a job, under the epoch of its lease."""

    not_after: float
    """CLOCK_BOOTTIME seconds."""
    job_id: str
    epoch: int


class Watch(Protocol):
    """A started `WATCH` method, seen from the worker."""

    def news(self, timeout: float) -> tuple[Any, ...]:
        """What it has emitted since the last call, waiting at most `timeout` seconds for the first piece."""

    def ended(self) -> bool:
        """True when the call has returned or its process is gone."""

    def error(self) -> DriverError | None:
        """Why it failed, once it has ended; a hint, not the truth."""

    def prolong(self, fence: Fence) -> None:
        """A new last moment, because the lease was renewed. A stream writes nothing after it until the next one."""

    def stop(self) -> None:
        """Ends the caller's side. A transfer goes on at the hosts; a stream ends."""


class Connection(Protocol):
    """A way to one host, or to Cinder. One connection, one call at a time; each call has a deadline that ends it."""

    def open(self, timeout: float) -> None:
        """Connects if it is not connected. Raises `Unreachable` with a clear reason."""

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        """Calls a LOOK or ACT method at the other end.

        It never connects anew: not connected is `Unreachable`. At the deadline the caller's side is killed and
        the result is `Unknown`. After the `fence`'s last moment an effect is not begun: the result is `Refused`.
        """

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> Watch:
        """Starts a WATCH method on a connection of its own, so that calls go on beside it."""

    def close(self) -> None:
        """Ends the caller's side."""
