"""The VLANs of a machine's ports on bridges that filter them, as they are now: looks only, at bridges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.bridge import BridgeLink
from resizeflow.drivers.hypervisor import DomainFacts
from resizeflow.drivers.interface import DriverError, Refused
from resizeflow.errors import Conflict, RuleError
from resizeflow.looks import Looks
from resizeflow.persistence.models import Host
from resizeflow.ports import SeenPort

NO_SHELL = "it has no shell to set VLANs with: `resizeflow host set {name} --shell ...`"


def fault(looks: Looks, host: Host, bridges: Collection[str], *, patience: float | None = None) -> str | None:
    """Why ports on these bridges of a host cannot be put into VLANs, in one clause; None if they can, or there are
    none. Raises HostAway."""
    if bridges and host.shell is None:
        return NO_SHELL.format(name=host.name)
    try:
        for bridge in sorted(bridges):
            looks.bridges(host, patience=patience).bridge_links(bridge)
    except DriverError as error:
        return str(error).rstrip(".")
    return None


def examine(
    looks: Looks, host: Host, domain: DomainFacts, ports: Sequence[SeenPort], given: Mapping[str, int]
) -> dict[str, int]:
    """The VLANs that a machine's ports are in, by their MACs: those that were `given`, and what the bridges of its host
    say of a machine that runs. Raises RuleError for what contradicts, cannot be, or cannot be moved."""
    own = {port.mac: port.bridge for port in ports if port.port_id is None}
    for mac in given:
        if mac not in own:
            known = any(port.mac == mac for port in ports)
            what = "is Neutron's, which has its VLAN" if known else "is none of its NICs'"
            raise RuleError(f"A VLAN cannot be given for {mac} of {domain.name}: it {what}.")
    if host.shell is None:
        if given:
            raise RuleError(f"{domain.name} cannot be in a VLAN on {host.name}: {NO_SHELL.format(name=host.name)}.")
        return {}
    found: dict[str, int] = {}
    for mac, vlan in _seen(looks, host, domain, own, given).items():
        if mac in given and vlan != given[mac]:
            seen = f"VLAN {vlan}" if vlan else "no VLAN"
            raise RuleError(f"NIC {mac} of {domain.name} is in {seen} on {host.name}, not in VLAN {given[mac]}.")
        if vlan:
            found[mac] = vlan
    return {**given, **found}


def _seen(
    looks: Looks, host: Host, domain: DomainFacts, own: Mapping[str, str], given: Mapping[str, int]
) -> dict[str, int | None]:
    """The VLAN of each port that has a tap on a bridge that filters them; None: it is in none."""
    nics = definition.read(domain.live_xml).nics if domain.live_xml else ()
    taps = {nic.device: nic.mac for nic in nics if nic.device and nic.mac in own}
    found: dict[str, int | None] = {}
    for bridge in sorted(set(own.values())):
        wanted = any(own[mac] == bridge for mac in given)
        try:
            links = looks.bridges(host, patience=0).bridge_links(bridge)
        except HostAway as error:
            raise Conflict(f"Host {host.name} does not say in which VLANs {domain.name} is: {error}.") from None
        except Refused as error:
            if wanted:
                raise RuleError(f"{domain.name} cannot be in a VLAN on {host.name}: {error}") from None
            continue
        except DriverError as error:
            raise RuleError(f"Host {host.name} cannot be used: {error}") from None
        found |= {taps[link.device]: _only(domain.name, link) for link in links if link.device in taps}
    return found


def _only(name: str, link: BridgeLink) -> int | None:
    if not link.vlans:
        return None
    if link.pvid is None or not link.is_in(link.pvid):
        told = ", ".join(map(str, sorted(link.vlans)))
        raise RuleError(f"{link.device} of {name} is in VLANs {told}: only a NIC in one VLAN, without tags, can move.")
    return link.pvid
