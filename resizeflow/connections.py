"""Where a call goes: a host, its shell, Cinder or Neutron. One connection to each, and what is raised when one is away.

Only `looks` and `gate` use what a connection gives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from resizeflow import drivers
from resizeflow.drivers.interface import Connection
from resizeflow.persistence.models import Host


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
class Service:
    """The place that Cinder is, or Neutron."""

    uri: str
    id: str
    away: type[ServiceAway]

    @property
    def name(self) -> str:
        return self.id


@dataclass(frozen=True)
class Shell:
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


def away_from(place: Place, reason: str) -> Away:
    """What is raised when a place does not answer."""
    if isinstance(place, Shell):
        return HostAway(place.host, reason)
    if isinstance(place, Service):
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
