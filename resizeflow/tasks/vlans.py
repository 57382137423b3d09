"""The VLANs of a machine's ports on bridges that filter them: brought to the host by its uplinks, and the taps put in.

A machine that has no such ports costs nothing here: no host is asked. Who needs a VLAN on a host says so in the
records, by a binding there, before anything is done on the host; so of two jobs that are at one VLAN at once the last
to look leaves it as it has to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from resizeflow import vlans as looks
from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.bridge import BridgeHost, BridgeLink, Member
from resizeflow.drivers.hypervisor import DomainFacts
from resizeflow.drivers.interface import Refused
from resizeflow.persistence.models import Binding, Host, Migration, Port
from resizeflow.persistence.transaction import Transaction
from resizeflow.ports import SeenPort
from resizeflow.tasks.base import MoveTask

Vlans = Mapping[str, int]
DEBT = "vlan"
"""A VLAN that stays with the uplinks of a host's bridge; its object is `BRIDGE/VLAN`."""
PORT_DEBT = "vlan-port"
"""A port that is not in its VLAN where its machine is; its object is the MAC."""


@dataclass(frozen=True)
class Network:
    """A VLAN of a bridge."""

    bridge: str
    vlan: int

    def __str__(self) -> str:
        return f"{self.bridge}/{self.vlan}"

    @classmethod
    def of(cls, text: str) -> Network:
        """What a debt names."""
        bridge, _, vlan = text.rpartition("/")
        return cls(bridge, int(vlan))


def ports_of(tx: Transaction, instance_id: str) -> dict[str, Network]:
    """The ports of a machine that are in a VLAN of a bridge, by their MACs; none of Neutron's."""
    rows = tx.session.scalars(
        sa.select(Port)
        .where(Port.instance_id == instance_id, Port.vlan.is_not(None), Port.port_id.is_(None))
        .order_by(Port.id)
    )
    return {row.mac: Network(row.bridge, row.vlan) for row in rows if row.vlan is not None}


def moves(task: MoveTask, migration: Migration) -> bool:
    """Whether a machine with such ports goes to another host."""
    return not migration.same_host and bool(_ports(task, migration))


def join(task: MoveTask, migration: Migration, host: Host) -> None:
    """The uplinks of a host bring the VLANs of the machine's ports."""
    for network in sorted(set(_ports(task, migration).values()), key=str):
        _bring(task, host, network)


def plug(task: MoveTask, host: Host, migration: Migration) -> None:
    """A machine that was started, and does not run yet, is in the VLANs of its ports and in no others."""
    ports = _ports(task, migration)
    if not ports:
        return
    join(task, migration, host)
    domain = task.gate.host(host).domain(migration.instance_id)
    nics = definition.read(domain.live_xml).nics if domain is not None and domain.live_xml else ()
    for nic in nics:
        if (network := ports.get(nic.mac)) is not None and nic.device is not None:
            _put(task, host, nic.device, network)


def of_new(task: MoveTask, migration: Migration, host: Host, domain: DomainFacts, found: Sequence[SeenPort]) -> Vlans:
    """The VLANs of NICs that the records do not know yet, by their MACs, as the bridges of the machine's host say.
    Where there are none nobody is asked."""
    with task.world.database.read() as tx:
        known = set(tx.session.scalars(sa.select(Port.mac).where(Port.instance_id == migration.instance_id)))
    new = [port for port in found if port.mac not in known and port.port_id is None]
    return looks.examine(task.gate, host, domain, new, {}) if new else {}


def owe_gone(tx: Transaction, migration: Migration, here: str, found: Sequence[SeenPort]) -> None:
    """A port that was removed from the machine on one host of its migration leaves its VLAN with the other one."""
    there = migration.dest_host if here == migration.source_host_id else migration.source_host
    if there is None or migration.same_host:
        return
    has = {port.mac for port in found}
    for mac, network in ports_of(tx, migration.instance_id).items():
        if mac not in has:
            reason = f"port {mac} was removed from {migration.instance_name}"
            tx.debts.record(migration, there, kind=DEBT, name=str(network), reason=reason)


def leave(task: MoveTask, migration: Migration, host: Host) -> None:
    """The uplinks of a host that the machine does not come to any more bring no VLAN that nobody needs there. Its own
    bindings there are gone, and that is committed. A host that is away: debts."""
    for network in sorted(set(_ports(task, migration).values()), key=str):
        try:
            settle(task, host, network)
        except HostAway as error:
            task.owe(migration, host, DEBT, str(network), str(error))


def settle(task: MoveTask, host: Host, network: Network) -> None:
    """The uplinks bring a VLAN exactly if somebody needs it on the host."""
    bridges = task.gate.bridges(host)
    try:
        bridges.bridge_links(network.bridge)
    except Refused as error:
        task.tell(f"VLAN {network.vlan} is not to be taken from {host.name}: {error}")
        return
    if not _is_needed(task, host, network):
        task.ensure(
            lambda: not any(link.carries(network.vlan) for link in bridges.bridge_links(network.bridge)),
            lambda: bridges.drop_vlan(network.bridge, network.vlan),
            f"{network} gone from the uplinks of {host.name}",
        )
    # Whoever came meanwhile may have looked before it was taken away.
    if _is_needed(task, host, network):
        _bring(task, host, network)


def set_right(task: MoveTask, migration: Migration, host: Host, mac: str) -> str:
    """A port of a machine on a host is in its VLAN again; what became of it, for the log."""
    with task.world.database.read() as tx:
        instance = tx.instances.find(migration.instance_id)
    if instance is None or instance.host_id != host.id:
        return f"port {mac} is left as it is: its machine is not on {host.name} any more"
    plug(task, host, migration)
    return f"port {mac} is in its VLAN on {host.name}"


def _ports(task: MoveTask, migration: Migration) -> dict[str, Network]:
    with task.world.database.read() as tx:
        return ports_of(tx, migration.instance_id)


def _is_needed(task: MoveTask, host: Host, network: Network) -> bool:
    """By a binding of a port on the host; or by somebody who is none of ours and takes part in the bridge."""
    query = (
        sa.select(sa.func.count())
        .select_from(Binding)
        .join(Port, Port.id == Binding.port_id)
        .where(Binding.host_id == host.id, Port.bridge == network.bridge, Port.vlan == network.vlan)
    )
    with task.world.database.read() as tx:
        if tx.session.scalar(query):
            return True
    return any(
        link.member is not Member.UPLINK and network.vlan in link.vlans
        for link in task.gate.bridges(host).bridge_links(network.bridge)
    )


def _bring(task: MoveTask, host: Host, network: Network) -> None:
    bridges = task.gate.bridges(host)

    def is_brought() -> bool:
        uplinks = (link for link in bridges.bridge_links(network.bridge) if link.member is Member.UPLINK)
        return all(network.vlan in link.vlans for link in uplinks)

    task.ensure(
        is_brought,
        lambda: bridges.carry_vlan(network.bridge, network.vlan),
        f"{network} by the uplinks of {host.name}",
    )


def _put(task: MoveTask, host: Host, device: str, network: Network) -> None:
    bridges = task.gate.bridges(host)

    def is_in() -> bool:
        tap = _named(bridges, network.bridge, device)
        return tap is not None and tap.is_in(network.vlan)

    task.ensure(
        is_in,
        lambda: bridges.set_access_vlan(device, network.vlan),
        f"{device} in {network} on {host.name}",
    )


def _named(bridges: BridgeHost, bridge: str, device: str) -> BridgeLink | None:
    return next((link for link in bridges.bridge_links(bridge) if link.device == device), None)
