"""Questions to hosts, to Cinder and to Neutron, which change nothing and are asked again as long as nobody answers.

They need no lease: they serve the commands, the scheduler and the doctor, and jobs by their `Gate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import tenacity

from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.connections import (
    CinderAway,
    Connections,
    HostAway,
    NeutronAway,
    Place,
    Service,
    ServiceAway,
    Shell,
    away_from,
)
from resizeflow.drivers import bridge, hypervisor, network, volume
from resizeflow.drivers.bridge import BridgeHost
from resizeflow.drivers.hypervisor import Hypervisor
from resizeflow.drivers.interface import Effect, Unknown, Unreachable
from resizeflow.drivers.network import NetworkService
from resizeflow.drivers.volume import VolumeService
from resizeflow.persistence.models import Host


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
        return cast("BridgeHost", _Door(self, Shell(host), bridge.EFFECTS, patience))

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
        return _Door(self, Service(uri, name, away), effects, patience)

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
            raise away_from(place, str(error)) from error
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
