"""The worker's way to Cinder: calls with deadlines that really end the wait for them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from resizeflow.drivers.cinder.errors import OUTSIDE, translated
from resizeflow.drivers.cinder.service import CinderService
from resizeflow.drivers.cinder.session import Access, load
from resizeflow.drivers.cinder.trip import Trip
from resizeflow.drivers.interface import DriverError, Fence, Refused, Unknown, Unreachable
from resizeflow.drivers.volume import EFFECTS, ServiceFacts

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Way:
    """A way in that was open."""

    access: Access
    facts: ServiceFacts

    def call(self, method: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Calls a method, with a client of its own: one names the request that it made first in all that follow."""
        service = CinderService(self.access.client(self.facts), self.facts, timeout)
        return getattr(service, method)(*args)


class CinderConnection:
    """A `Connection` to `cinder://FILE`, the configuration. Threads may share it: their calls go side by side.

    What is wrong in the configuration is `Refused` when `service` is called. To anything else it is as if Cinder were
    away, and `Unreachable`: a job on its way waits until it is put right.
    """

    def __init__(self, uri: str) -> None:
        path = uri.removeprefix("cinder://")
        self._file = Path(path) if path else None
        self._access: Access | None = None
        self._way: _Way | None = None
        self._shut: str | None = None
        """Why there is no way in."""

    def open(self, timeout: float) -> None:
        """Logs in and agrees on a microversion, if that was not done. Raises `Unreachable` within `timeout` seconds."""
        way: _Way | None = None
        shut: str | None = None
        try:
            way = Trip(self._enter, timeout).result()
        except Refused as error:
            shut = str(error)
            self._access = None  # whoever corrects the configuration needs no new worker
        except TimeoutError:
            raise Unreachable(f"Cinder: no way in within {timeout:g} s.") from None
        except Exception as error:
            raise translated(error, "open", sent=False) from None
        finally:
            self._way, self._shut = way, shut

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        """Calls a look or an act. See `Connection.call`."""
        if method not in EFFECTS:
            raise ValueError(f"{method} is no question to Cinder.")
        way = self._way
        if way is None:
            raise self._no_way(method)
        if fence is not None:
            LOG.debug("Cinder: %s for job %s under epoch %d", method, fence.job_id, fence.epoch)
        trip = Trip(lambda: way.call(method, args, timeout), timeout, fence)
        try:
            return trip.result()
        except TimeoutError:
            self._lose(way)
            kind = Unknown if trip.sent else Unreachable
            raise kind(f"Cinder: no answer to {method} within {timeout:g} s.") from None
        except DriverError:
            raise
        except Exception as error:
            if isinstance(error, OUTSIDE):
                self._lose(way)
            raise translated(error, method, sent=trip.sent) from None

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> NoReturn:  # noqa: ARG002
        """Cinder does nothing that is watched."""
        raise ValueError(f"{method} is to be called, not watched.")

    def close(self) -> None:
        """Forgets the way in; a call that another thread is in comes to its end."""
        self._access = self._way = None

    def _enter(self) -> _Way:
        access = self._access = self._access or load(self._file)
        access.log_in()
        return self._way or _Way(access, access.facts())

    def _no_way(self, method: str) -> DriverError:
        if self._shut is None:
            return Unreachable("Cinder: not connected.")
        return (Refused if method == "service" else Unreachable)(self._shut)

    def _lose(self, way: _Way) -> None:
        if self._way is way:
            self._way = None
