"""What resizeflow asks of Neutron, in resources of openstacksdk: one request each, where its proxy would make three."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openstack.exceptions import ForbiddenException, NotFoundException
from openstack.network.v2.agent import Agent
from openstack.network.v2.network import Network
from openstack.network.v2.port import Port
from openstack.network.v2.port_binding import PortBinding as Binding

from resizeflow.drivers.interface import Refused, Unknown
from resizeflow.drivers.network import ACTIVE, NetworkAgent, NetworkPort, NetworkService, PortBinding


class NeutronService(NetworkService):
    """Neutron, for one call. What openstacksdk raises is translated by who makes the call."""

    def __init__(self, network: Any) -> None:
        self._network = network

    # --- looks -------------------------------------------------------------------------------------------

    def network_service(self) -> None:
        """What only an administrator is told."""
        try:
            next(Agent.list(self._network, limit=1), None)
        except ForbiddenException as error:
            raise Refused(
                f"Neutron does not tell us of its agents: {error.details}; grant the roles admin and service."
            ) from None

    def network_agents(self) -> tuple[NetworkAgent, ...]:
        """All of them."""
        found = (NetworkAgent(each.host, each.agent_type, bool(each.is_alive)) for each in Agent.list(self._network))
        return tuple(sorted(found, key=lambda each: (each.host, each.kind)))

    def port(self, port_id: str) -> NetworkPort | None:
        """A port, with the MTU of its network."""
        try:
            found = Port.existing(id=port_id).fetch(self._network)
            return _port(found, self._mtu(found.network_id))
        except NotFoundException:
            return None

    def ports(self, instance_id: str) -> tuple[NetworkPort, ...]:
        """Those that have the machine as device."""
        try:
            found = list(Port.list(self._network, device_id=instance_id))
            mtus = {each: self._mtu(each) for each in {port.network_id for port in found}}
        except NotFoundException:
            raise Unknown("Neutron: ports were deleted while they were listed.") from None
        return tuple(sorted((_port(port, mtus[port.network_id]) for port in found), key=lambda each: each.id))

    def bindings(self, port_id: str) -> tuple[PortBinding, ...]:
        """Those to a host, in the order of the hosts' names."""
        try:
            found = [_binding(each) for each in Binding.list(self._network, port_id=port_id) if each.host]
        except NotFoundException:
            return ()
        return tuple(sorted(found, key=lambda each: each.host))

    def _mtu(self, network_id: str) -> int | None:
        mtu: int | None = Network.existing(id=network_id).fetch(self._network).mtu
        return mtu

    # --- acts --------------------------------------------------------------------------------------------

    def create_binding(self, port_id: str, host: str, vnic_type: str, profile: Mapping[str, Any]) -> None:
        """Binds it to one more host."""
        made = Binding.new(port_id=port_id, host=host, vnic_type=vnic_type, profile=dict(profile))
        made.create(self._network)

    def activate_binding(self, port_id: str, host: str) -> None:
        """Puts it in force."""
        Binding.existing(port_id=port_id).activate_port_binding(self._network, host=host)

    def delete_binding(self, port_id: str, host: str) -> None:
        """Ends it."""
        Binding.existing(port_id=port_id).delete_port_binding(self._network, host)


def _port(found: Any, mtu: int | None) -> NetworkPort:
    return NetworkPort(found.id, found.mac_address, found.device_id, found.status, mtu)


def _binding(found: Any) -> PortBinding:
    details = found.vif_details or {}
    return PortBinding(
        host=found.host,
        active=found.status == ACTIVE,
        vif_type=found.vif_type,
        vnic_type=found.vnic_type,
        bridge=details.get("bridge_name"),
        hybrid=bool(details.get("ovs_hybrid_plug")),
        profile=found.profile or {},
    )
