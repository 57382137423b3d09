"""The ports of a machine that are Neutron's, as they are now: looks only, at its definition and at Neutron."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from resizeflow.connections import NeutronAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Nic
from resizeflow.drivers.interface import DriverError
from resizeflow.drivers.network import LAYER_2_AGENTS, NetworkPort, NetworkService, PortBinding, Unsupported, plug_of
from resizeflow.errors import InvalidPort
from resizeflow.looks import Looks


@dataclass(frozen=True)
class SeenPort:
    """A NIC of a machine and the bridge that it is plugged into; `port_id` is Neutron's, None if Neutron has none."""

    mac: str
    bridge: str
    port_id: str | None = None


def examine(
    looks: Looks, xml: str, host: str, *, known: Collection[str] = (), patience: float | None = None
) -> tuple[SeenPort, ...]:
    """The ports of a machine on a host, by its definition, in the order of its NICs. `known` are those of Neutron's
    that it had before, by their ids. Neutron is asked if there is one, or if it had any.

    Raises InvalidPort with what keeps one from being moved: each NIC is plugged into a bridge; one that Neutron knows,
    or knew, is one port of this machine's, bound to that host, and plugged in by libvirt alone; no port of the
    machine's is without a NIC. Raises `NeutronAway`.
    """
    machine = definition.read(xml)
    found: dict[str, NetworkPort] = {}
    if known or (machine.nics and looks.settings.services["neutron"].uri is not None):
        network = usable(looks, patience=patience)
        try:
            found = {port.mac.lower(): port for port in network.ports(machine.uuid)}
            _require_same(machine.name, machine.nics, found, known)
            for nic in machine.nics:
                if nic.mac in found:
                    _require_movable(network, machine.name, host, found[nic.mac])
        except DriverError as error:
            raise InvalidPort(f"The ports of {machine.name} cannot be examined: {error}") from None
    return tuple(_seen(machine.name, nic, found.get(nic.mac)) for nic in machine.nics)


def _seen(name: str, nic: Nic, port: NetworkPort | None) -> SeenPort:
    if nic.bridge is None:
        raise InvalidPort(
            f"NIC {nic.mac} of {name} is not plugged into a bridge by name ({nic.kind}): only bridges can move."
        )
    return SeenPort(nic.mac, nic.bridge, port.id if port else None)


def usable(looks: Looks, *, patience: float | None = None) -> NetworkService:
    """Neutron, once it said that it speaks with us. Raises `NeutronAway`, also for what is configured wrongly: whatever
    needs a port waits until that is put right."""
    network = looks.network(patience=patience)
    try:
        network.network_service()
    except DriverError as error:
        raise NeutronAway(f"Neutron cannot be used: {error}") from None
    return network


def agent_fault(network: NetworkService, host: str) -> str | None:
    """What is wrong with Neutron's agent on a host, in one clause. A plugin without agents has none anywhere."""
    agents = [agent for agent in network.network_agents() if agent.kind in LAYER_2_AGENTS]
    if not agents or any(agent.host == host and agent.alive for agent in agents):
        return None
    if any(agent.host == host for agent in agents):
        return "Neutron's agent on it does not live"
    return "Neutron knows no agent on it: has it another name there?"


def active(bindings: Collection[PortBinding]) -> PortBinding | None:
    """The binding that is in force."""
    return next((binding for binding in bindings if binding.active), None)


def _require_same(name: str, nics: tuple[Nic, ...], found: dict[str, NetworkPort], known: Collection[str]) -> None:
    macs, ids = {nic.mac for nic in nics}, {port.id for port in found.values()}
    for nic in nics:
        if nic.interface_id in known and nic.interface_id not in ids:
            raise InvalidPort(
                f"NIC {nic.mac} of {name} is plugged in as port {nic.interface_id}, which Neutron does not have for "
                "this machine; set that right at Neutron, or unplug it, then ask again."
            )
    for mac, port in found.items():
        if mac not in macs:
            raise InvalidPort(
                f"Port {port.id} is {name}'s at Neutron, but it has no NIC {mac}: plug it in, or take it from the "
                "machine (`openstack server remove port`), then ask again."
            )


def _require_movable(network: NetworkService, name: str, host: str, port: NetworkPort) -> None:
    subject = f"Port {port.id} ({port.mac} of {name})"
    binding = active(network.bindings(port.id))
    if binding is None or binding.host != host:
        where = f"to {binding.host}" if binding and binding.host else "to no host"
        raise InvalidPort(
            f"{subject} is bound {where}, the machine is on {host}; set that right at Neutron, then ask again. A host "
            "has to have the name here that Neutron's agent on it has."
        )
    try:
        plug_of(port, binding)
    except Unsupported as error:
        raise InvalidPort(f"{subject} cannot be moved: {error}.") from None
