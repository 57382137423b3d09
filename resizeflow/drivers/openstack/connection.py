"""The worker's way to a service of OpenStack's: calls with deadlines that really end the wait for them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from resizeflow.drivers.interface import DriverError, Fence, Refused, Unknown, Unreachable
from resizeflow.drivers.openstack.access import Access, load
from resizeflow.drivers.openstack.errors import outside, translated
from resizeflow.drivers.openstack.product import Product
from resizeflow.drivers.openstack.trip import Trip

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Way:
    """A way in that was open."""

    access: Access
    facts: Any

    def call(self, method: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Calls a method."""
        service = self.access.product.service(self.access, self.facts, timeout)
        return getattr(service, method)(*args)


class ServiceConnection:
    """A `Connection` to a service as a configuration file says. Threads may share it: their calls go side by side.

    What is wrong in the configuration is `Refused` when the product's `check` is called. To anything else it is as if
    the service were away, and `Unreachable`: a job on its way waits until it is put right.
    """

    def __init__(self, product: Product, file: Path | None) -> None:
        self._product = product
        self._file = file
        self._access: Access | None = None
        self._way: _Way | None = None
        self._shut: str | None = None
        """Why there is no way in."""

    def open(self, timeout: float) -> None:
        """Logs in and asks what is there, if that was not done. Raises `Unreachable` within `timeout` seconds."""
        way: _Way | None = None
        shut: str | None = None
        try:
            way = Trip(self._product.name, self._enter, timeout).result()
        except Refused as error:
            shut = str(error)
            self._access = None  # whoever corrects the configuration needs no new worker
        except TimeoutError:
            raise Unreachable(f"{self._product.name}: no way in within {timeout:g} s.") from None
        except Exception as error:
            raise translated(self._product, error, "open", sent=False) from None
        finally:
            self._way, self._shut = way, shut

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        """Calls a look or an act. See `Connection.call`."""
        name = self._product.name
        if method not in self._product.effects:
            raise ValueError(f"{method} is no question to {name}.")
        way = self._way
        if way is None:
            raise self._no_way(method)
        if fence is not None:
            LOG.debug("%s: %s for job %s under epoch %d", name, method, fence.job_id, fence.epoch)
        trip = Trip(name, lambda: way.call(method, args, timeout), timeout, fence)
        try:
            return trip.result()
        except TimeoutError:
            self._lose(way)
            kind = Unknown if trip.sent else Unreachable
            raise kind(f"{name}: no answer to {method} within {timeout:g} s.") from None
        except DriverError:
            raise
        except Exception as error:
            if outside(self._product, error):
                self._lose(way)
            raise translated(self._product, error, method, sent=trip.sent) from None

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> NoReturn:  # noqa: ARG002
        """No service does anything that is watched."""
        raise ValueError(f"{method} is to be called, not watched.")

    def close(self) -> None:
        """Forgets the way in; a call that another thread is in comes to its end."""
        self._access = self._way = None

    def _enter(self) -> _Way:
        access = self._access = self._access or load(self._product, self._file)
        access.log_in()
        return self._way or _Way(access, self._product.facts(access))

    def _no_way(self, method: str) -> DriverError:
        if self._shut is None:
            return Unreachable(f"{self._product.name}: not connected.")
        return (Refused if method == self._product.check else Unreachable)(self._shut)

    def _lose(self, way: _Way) -> None:
        if self._way is way:
            self._way = None
