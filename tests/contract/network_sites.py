"""A Neutron, simulated or real, as the contract's tests use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from lab.neutron import Neutron
from resizeflow.drivers import connect
from resizeflow.drivers.interface import Fence
from resizeflow.drivers.network import NetworkPort, PortBinding
from tests.contract.contract_sites import Daemon

HERE, THERE = "here", "there"
"""Hosts with agents."""


class NetworkSite(ABC):
    """A Neutron that knows agents on two hosts."""

    def __init__(self, uri: str, daemon: Daemon) -> None:
        self.connection = connect(uri)
        self.daemon = daemon

    @abstractmethod
    def make(self, machine: str, host: str = HERE) -> str:
        """A new port of a machine, bound to a host; its id."""

    @abstractmethod
    def plug(self, port_id: str, host: str) -> None:
        """The port's machine is started on a host, and the agent there has had the time to see it."""

    @abstractmethod
    def set_agent(self, host: str, *, alive: bool) -> None:
        """Whether the agent of a host lives."""

    @abstractmethod
    def remove(self, port_id: str) -> None:
        """Somebody deletes the port."""

    @abstractmethod
    def take(self, port_id: str) -> None:
        """Somebody takes the port from its machine."""

    def ask(self, method: str, *args: Any, fence: Fence | None = None, timeout: float = 60) -> Any:
        """Calls a method of Neutron."""
        return self.connection.call(method, args, timeout=timeout, fence=fence)

    def shown(self, port_id: str) -> NetworkPort:
        """A port that must be there."""
        found: NetworkPort | None = self.ask("port", port_id)
        assert found is not None
        return found

    def bindings(self, port_id: str) -> dict[str, PortBinding]:
        """Its bindings by their hosts."""
        return {each.host: each for each in self.ask("bindings", port_id)}

    def table(self, port_id: str) -> dict[str, tuple[bool, str]]:
        """What counts of them: whether each is active, and its vif_type."""
        return {host: (each.active, each.vif_type) for host, each in self.bindings(port_id).items()}


class RealSite(NetworkSite):
    """A real one, with what its agents would say."""

    def __init__(self, folder: Path, neutron: Neutron) -> None:
        self.neutron = neutron
        neutron.add_agents(HERE, THERE)
        self._network = neutron.create_network(mtu=1400)
        configuration = folder / "resizeflow.conf"
        configuration.write_text(f"[neutron]\nauth_type = noauth\nendpoint = {neutron.endpoint}\n")
        super().__init__(
            f"neutron://{configuration}", Daemon(neutron.freeze, neutron.thaw, neutron.kill, neutron.start)
        )

    def make(self, machine: str, host: str = HERE) -> str:
        return self.neutron.create_port(self._network, machine, host)

    def plug(self, port_id: str, host: str) -> None:
        self.neutron.plug(port_id, host)

    def set_agent(self, host: str, *, alive: bool) -> None:
        self.neutron.set_agent(host, alive=alive)

    def remove(self, port_id: str) -> None:
        self.neutron.client().network.delete_port(port_id)

    def take(self, port_id: str) -> None:
        self.neutron.client().network.update_port(port_id, device_id="", device_owner="", binding_host_id="")
