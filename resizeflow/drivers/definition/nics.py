"""NICs of a definition: plugged in as Neutron says, added and removed."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from resizeflow.drivers.definition.elements import attribute, needed, parse, portable, written
from resizeflow.drivers.network import Plug

MOST_QUEUES = 256
"""What a tap device of Linux has at most (MAX_TAP_QUEUES); Nova's limit too."""


def plugged(xml: str, plugs: Mapping[str, Plug]) -> str:
    """The definition with the NICs of these MACs plugged in as Neutron says; all else about them stays as it was.
    Raises ValueError for a MAC that is not there.

    Shapes: libvirt's formatdomain, "Network interfaces", as Nova writes them (nova/virt/libvirt/vif.py). The tap device
    has the name that Neutron's agents look for, an Open vSwitch port the id.
    """
    root = parse(xml)
    nics = _nics(root)
    if strangers := sorted(plugs.keys() - nics.keys()):
        raise ValueError(f"The machine has no NIC {', '.join(strangers)}.")
    for mac, plug in plugs.items():
        _plug(nics[mac], plug)
    return written(root)


def _plug(nic: etree._Element, plug: Plug) -> None:
    nic.set("type", "bridge")
    for tag in ("source", "virtualport", "target", "mtu", "vlan"):
        for element in nic.findall(tag):
            nic.remove(element)
    parts = [etree.Element("source", {"bridge": plug.bridge})]
    if plug.interface_id is not None:
        port = etree.Element("virtualport", {"type": "openvswitch"})
        etree.SubElement(port, "parameters", {"interfaceid": plug.interface_id})
        parts.append(port)
    parts.append(etree.Element("target", {"dev": plug.device}))
    if plug.mtu is not None:
        parts.append(etree.Element("mtu", {"size": str(plug.mtu)}))
    for part in reversed(parts):
        needed(nic, "mac").addnext(part)


def with_nic_of(xml: str, other_xml: str, mac: str) -> str:
    """The definition with one more NIC, taken from another definition of the same machine, without its address there.
    Raises ValueError."""
    root, other = parse(xml), _nics(parse(other_xml))
    nics = _nics(root)
    if mac in nics or mac not in other:
        raise ValueError(f"The machine has a NIC {mac} already, or the other definition has none.")
    needed(root, "devices").append(portable(other[mac]))
    return written(root)


def without_nic(xml: str, mac: str) -> str:
    """The definition without that NIC; one that is not there is fine."""
    root = parse(xml)
    if (nic := _nics(root).get(mac)) is not None:
        needed(root, "devices").remove(nic)
    return written(root)


def set_queues(root: etree._Element, vcpus: int) -> None:
    """NICs that have several queues get one for each vCPU, as with Nova's `hw:vif_multiqueue_enabled`."""
    for driver in root.iterfind("devices/interface/driver[@queues]"):
        driver.set("queues", str(min(vcpus, MOST_QUEUES)))


def _nics(root: etree._Element) -> dict[str, etree._Element]:
    return {(attribute(nic, "mac", "address") or "").lower(): nic for nic in root.findall("devices/interface")}
