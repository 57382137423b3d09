"""What resizeflow asks of Neutron: one small interface, each method marked with the kind of its effect.

A binding is Neutron's record of a port at a host: one is ACTIVE, others wait, INACTIVE. Host and port together name a
binding, so a request that is repeated is refused and makes no second one.

What Neutron 29 with ML2 does with them (tests/contract/test_network_contract.py shows it):

- Activating one makes the one that was active inactive and forgets how that was plugged in: its vif_type is `unbound`
  from then on. The port is DOWN, whatever it was, until the agent of the new host plugs it in.
- It is not bound anew when it is activated again: then the active binding is `unbound`, and has no bridge. So on a way
  back an inactive binding that is `unbound` has to be deleted and created again before it is activated.
- A binding that is created while none is active is active at once.
- The active one can be deleted like any other. Then the port is bound to no host, and nothing can be activated any
  more (500): the way out is to create a binding to the right host, after deleting an inactive one to it.
- A host that Neutron cannot bind to, because it knows no agent there or believes it to be dead, is answered with 500,
  and no binding is left; so is a port that does not exist. A port that is created or updated for such a host is bound
  as `binding_failed`, without any error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resizeflow.drivers.interface import Effect, Refused, act, effects_of, look

ACTIVE = "ACTIVE"
"""Neutron's word for a binding in force, and for a port that its host's agent has plugged in."""
ERROR = "ERROR"
"""And for one that could not be."""
BINDING_FAILED, UNBOUND = "binding_failed", "unbound"
TAP_NAME = 14
"""Letters of a tap device's name, `tap` and the beginning of the port's id: what Neutron's agents look for."""
LAYER_2_AGENTS = ("Open vSwitch agent", "Linux bridge agent", "OVN Controller agent", "OVN Controller Gateway agent")
"""Kinds of agents that plug ports in (neutron_lib/constants.py)."""


class Unsupported(Refused):
    """A port that cannot be plugged in without an agent of Nova's on the host."""


@dataclass(frozen=True)
class NetworkPort:
    """A port; `status` is Neutron's word (`ACTIVE`, `DOWN`, `BUILD`). `mtu` is its network's, in bytes."""

    id: str
    mac: str
    instance_id: str
    status: str
    mtu: int | None = None

    @property
    def plugged(self) -> bool:
        """Whether the agent of its host says so."""
        return self.status == ACTIVE


@dataclass(frozen=True)
class PortBinding:
    """A port's binding to a host. `bridge` and `hybrid` (a firewall bridge in between) are of its vif_details."""

    host: str
    active: bool
    vif_type: str
    vnic_type: str = "normal"
    bridge: str | None = None
    hybrid: bool = False
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkAgent:
    """An agent of Neutron's on a host."""

    host: str
    kind: str
    alive: bool


@dataclass(frozen=True)
class Plug:
    """How a port is plugged into a host's bridge by libvirt; `interface_id` is what Open vSwitch tells the agent."""

    mac: str
    bridge: str
    device: str
    interface_id: str | None
    mtu: int | None


def plug_of(port: NetworkPort, binding: PortBinding) -> Plug:
    """How a port is plugged in at a host, by Neutron's answer (neutron_lib/api/definitions/portbindings.py), as Nova
    reads it (nova/network/os_vif_util.py). Raises `Unsupported` with what stands against it, in one clause."""
    if binding.vnic_type != "normal":
        raise Unsupported(f"its vnic_type is {binding.vnic_type}: a device of the host itself cannot be moved")
    if binding.profile.get("allocation"):
        raise Unsupported("its bandwidth is guaranteed, by an allocation of Placement's that resizeflow cannot move")
    if binding.vif_type == BINDING_FAILED:
        raise Unsupported(f"Neutron could not bind it to {binding.host}: is the network there, and its agent alive?")
    if binding.vif_type not in ("ovs", "bridge"):
        raise Unsupported(f"it is bound as {binding.vif_type}, where only ovs and bridge can be plugged in by libvirt")
    if binding.hybrid:
        raise Unsupported(
            "it is plugged in through a firewall bridge (ovs_hybrid_plug), which needs an agent of Nova's on the host: "
            "set firewall_driver = openvswitch there"
        )
    if not binding.bridge:
        raise Unsupported("Neutron does not say into which bridge it is plugged")
    return Plug(
        mac=port.mac,
        bridge=binding.bridge,
        device=f"tap{port.id}"[:TAP_NAME],
        interface_id=port.id if binding.vif_type == "ovs" else None,
        mtu=port.mtu,
    )


class NetworkService(ABC):
    """Neutron. Every method raises `DriverError`s only; `Missing` where what it names is not there."""

    # --- looks -------------------------------------------------------------------------------------------

    @look
    @abstractmethod
    def network_service(self) -> None:
        """That Neutron is there, knows us as somebody who binds ports, and has the API extension `binding-extended`.
        Raises `Refused` with what is wrong."""

    @look
    @abstractmethod
    def network_agents(self) -> tuple[NetworkAgent, ...]:
        """All agents, of any kind."""

    @look
    @abstractmethod
    def port(self, port_id: str) -> NetworkPort | None:
        """A port, None if there is none of that id."""

    @look
    @abstractmethod
    def ports(self, instance_id: str) -> tuple[NetworkPort, ...]:
        """The ports of a machine, in the order of their ids."""

    @look
    @abstractmethod
    def bindings(self, port_id: str) -> tuple[PortBinding, ...]:
        """All bindings of a port, those to no host left out; none if there is no such port."""

    # --- acts --------------------------------------------------------------------------------------------

    @act
    @abstractmethod
    def create_binding(self, port_id: str, host: str, vnic_type: str, profile: Mapping[str, Any]) -> None:
        """Makes an inactive binding, or an active one if the port has none. Raises `Exists`; `Unknown` for a host that
        Neutron cannot bind it to, and for a port that does not exist (it answers 500 then): whether it is there, and
        how it is plugged in, is to be looked at."""

    @act
    @abstractmethod
    def activate_binding(self, port_id: str, host: str) -> None:
        """Makes a binding the active one. `Missing` if there is none to that host, `Exists` if it is that already,
        `Unknown` if no other is active (Neutron answers 500 then)."""

    @act
    @abstractmethod
    def delete_binding(self, port_id: str, host: str) -> None:
        """Deletes a binding, the active one too: it is replaced by none. Missing is `Missing`."""


EFFECTS: Mapping[str, Effect] = effects_of(NetworkService)
