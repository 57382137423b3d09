"""A small cloud whose hosts are simulated and whose Neutron is real, with agents that follow what runs there."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.neutron import Neutron
from lab.system import wait_until
from tests.lab.neutron_agents import Agents
from tests.lab.real_cloud import RealCloud
from tests.lab.stage import Stage

MACHINE = "vm"
"""The machine with ports; the cloud's other one, `web`, has none and is left alone."""
BRIDGE = "br-int"
PLUG_SECONDS = 60.0
"""An agent needs less."""
PROFILE = {"trusted": "true"}
"""What somebody has written into the bindings: it goes with the port."""
NIC = (
    "<interface type='bridge'><mac address='{mac}'/><source bridge='br-int'/>"
    "<virtualport type='openvswitch'><parameters interfaceid='{port}'/></virtualport>"
    "<target dev='{device}'/><mtu size='1450'/><model type='virtio'/></interface>"
)


@dataclass(frozen=True)
class Row:
    """A binding as Neutron's API shows it."""

    host: str
    status: str
    vif_type: str
    profile: str = ""

    def __str__(self) -> str:
        return f"{self.host} {self.status} {self.vif_type}"


class NeutronCloud(RealCloud):
    """A `Cloud` with a real Neutron, and without a Cinder."""

    machine = MACHINE

    def __init__(self, folder: Path, neutron: Neutron, *, plugging: float = 30, **settings: str) -> None:
        """`plugging` is the setting `vif_plugging_timeout`."""
        options = {"auth_type": "noauth", "endpoint": neutron.endpoint, "vif_plugging_timeout": str(plugging)}
        super().__init__(folder, {}, options, **settings)
        self.neutron = neutron
        self._cleanup = contextlib.ExitStack()

    def build_machine(self, ports: int = 1, *, running: bool = True) -> NeutronCloud:
        """Two hosts with agents, and on h1 the machine, adopted, with ports that are plugged in."""
        self.build()
        with self.by_hand() as world:
            world.execute("UPDATE hosts SET bridges = ?", (f'["br0", "{BRIDGE}"]',))
        self.uuid = str(uuid.uuid4())
        self.network = self.neutron.create_network()
        self.ports = tuple(self.create_port("h1") for _ in range(ports))
        nics = "".join(self.nic(port) for port in self.ports)
        self.world.create_guest(
            "h1", MACHINE, 1, 512, {"vda": 1}, uuid=self.uuid, running=running, bridged=False, devices=nics
        )
        self.agents = self._cleanup.enter_context(Agents(self.world.path, self.neutron, self.network))
        if running and not self.plugged():
            raise RuntimeError(f"the agents do not plug in: {[self.status(port) for port in self.ports]}")
        self.inventory.adopt("h1", MACHINE)
        return self

    def clean(self) -> None:
        """Ends the agents."""
        self._cleanup.close()

    @property
    def service_database(self) -> Path:
        return self.neutron.database

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        with super().still(), self.agents.still():
            yield

    # --- what somebody else does -------------------------------------------------------------------------

    def create_port(self, host: str) -> str:
        """A port of the machine, bound to a host as Nova binds it."""
        return self.neutron.create_port(self.network, self.uuid, host, binding_profile=PROFILE)

    def nic(self, port: str) -> str:
        """As it is plugged in."""
        mac = self.client.get_port(port).mac_address
        return NIC.format(mac=mac, port=port, device=f"tap{port}"[:14])

    def take_port(self, port: str) -> None:
        """Somebody takes a port from the machine, at Neutron alone, while no agent tells of it."""
        with self.agents.still():
            self.client.update_port(port, device_id="", device_owner="", binding_host_id="")

    def delete_binding(self, host: str) -> None:
        """Somebody deletes the binding of each port to a host."""
        for port in self.ports:
            self.client.delete_port_binding(port, host, ignore_missing=False)

    def activate_binding(self, host: str) -> None:
        """Somebody activates the binding of each port to a host."""
        for port in self.ports:
            self.client.activate_port_binding(port, host)

    @contextlib.contextmanager
    def neutron_by_hand(self) -> Iterator[sqlite3.Connection]:
        """Neutron's database, to be changed."""
        with contextlib.closing(sqlite3.connect(self.neutron.database, timeout=20)) as database, database:
            yield database

    # --- what is there -----------------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """openstacksdk's, of the network alone."""
        return self.neutron.client().network

    def bindings(self, port: str) -> tuple[Row, ...]:
        """A port's bindings by Neutron's API."""
        found = [Row(one.host, one.status, one.vif_type, str(one.profile)) for one in self.client.port_bindings(port)]
        return tuple(sorted(found, key=lambda row: row.host))

    def status(self, port: str) -> str:
        """A port's."""
        return str(self.client.get_port(port).status)

    def becomes(self, port: str, status: str) -> bool:
        """Whether a port comes into a status, once the agents had the time for it."""
        return wait_until(lambda: self.status(port) == status, PLUG_SECONDS)

    def plugged(self) -> bool:
        """Whether all ports of the machine are plugged in, or come to be."""
        return all(self.becomes(port, "ACTIVE") for port in self.ports)


NeutronStage = Stage[NeutronCloud]
"""Such a cloud, at moments that come again."""
