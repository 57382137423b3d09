"""A Neutron, simulated or real, as the contract's tests use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.neutron import Neutron
from resizeflow.drivers import connect
from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.interface import Fence, Unknown
from resizeflow.drivers.network import NetworkPort, PortBinding
from resizeflow.drivers.simulator import SimulatedWorld
from resizeflow.drivers.simulator.neutron import NEUTRON
from tests.contract.contract_sites import Daemon

HERE, THERE = "here", "there"
"""Hosts with agents."""
NOWHERE = "nowhere"
"""A host without."""
NIC = (
    "<interface type='bridge'><mac address='{mac}'/><source bridge='br-int'/>"
    "<virtualport type='openvswitch'><parameters interfaceid='{port}'/></virtualport></interface>"
)


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

    def fails(self, words: str, method: str, *args: Any) -> None:
        """Neutron answers with an error of its own; whoever got that begins anew, and looks."""
        with pytest.raises(Unknown, match=words):
            self.ask(method, *args)
        self.connection.open(20)

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


class SimulatedSite(NetworkSite):
    """The simulator's, with hosts for machines. An agent of its sees at once what runs on its host."""

    def __init__(self, folder: Path) -> None:
        self.world = SimulatedWorld(folder / "networks.db").create()
        for host in (HERE, THERE, NOWHERE):
            self.world.add_host(host, bridges=("br-int",))
        uri = self.world.add_neutron()
        for host in (HERE, THERE):
            self.world.set_agent(host)
        self.world.set_speed(plug_seconds=0)
        self._machines: dict[tuple[str, str], str] = {}
        """The names of those that are, by their ids and hosts."""
        self._owner: dict[str, tuple[str, str]] = {}
        daemon = Daemon(
            partial(self.world.hang, NEUTRON),
            partial(self.world.wake, NEUTRON),
            partial(self.world.set_up, NEUTRON, False),
            partial(self.world.set_up, NEUTRON, True),
        )
        super().__init__(uri, daemon)

    def make(self, machine: str, host: str = HERE) -> str:
        port = self.world.create_port(mtu=1400)
        self._there_is(machine, host)
        self.world.attach_port(host, machine, port)
        self._owner[port] = machine, host
        return port

    def plug(self, port_id: str, host: str) -> None:
        machine, _ = self._owner[port_id]
        self._there_is(machine, host, NIC.format(port=port_id, mac=self.shown(port_id).mac))
        place = connect(self.world.uri(host))
        place.open(5)
        if place.call("domain", (machine,), timeout=5).state is PowerState.SHUTOFF:
            place.call("start_paused", (machine,), timeout=5)

    def set_agent(self, host: str, *, alive: bool) -> None:
        self.world.set_agent(host, alive=alive)

    def remove(self, port_id: str) -> None:
        self.world.delete_port(port_id)

    def take(self, port_id: str) -> None:
        machine, host = self._owner[port_id]
        self.world.detach_port(host, machine, port_id)

    def _there_is(self, machine: str, host: str, devices: str = "") -> None:
        if (machine, host) not in self._machines:
            name = self._machines[machine, host] = f"m-{machine[:8]}"
            self.world.create_guest(
                host, name, 1, 64, {"vda": 1}, uuid=machine, running=False, bridged=False, devices=devices
            )


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
