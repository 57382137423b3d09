"""NICs of a definition, plugged in as Neutron says, added and removed, with the flavor's queues."""

from __future__ import annotations

import pytest
from lxml import etree

from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark
from resizeflow.drivers.network import BINDING_FAILED, NetworkPort, Plug, PortBinding, Unsupported, plug_of

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
PORT_ID = "0a1b2c3d-4e5f-4000-8000-000000000001"
NIC = f"""<interface type='bridge'><mac address='{MAC.upper()}'/><source bridge='br0'/>
  <virtualport type='openvswitch'><parameters interfaceid='old'/></virtualport><vlan><tag id='7'/></vlan>
  <target dev='vnet3'/><model type='virtio'/><driver name='vhost' queues='4'/><mtu size='9000'/>
  <boot order='2'/><address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></interface>"""
MACHINE = f"""<domain type='kvm'><name>web</name><uuid>0a1b2c3d-0000-4000-8000-000000000009</uuid>
  <memory unit='MiB'>512</memory><vcpu>4</vcpu><os><type machine='q35'>hvm</type></os>
  <devices><disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/></disk>{NIC}</devices>
</domain>"""
PLUG = Plug(MAC, "br-int", "tap0a1b2c3d-4e", PORT_ID, 1450)


def nic(xml: str, mac: str = MAC) -> etree._Element:
    found = [one for one in etree.fromstring(xml).iterfind("devices/interface") if one.find("mac") is not None]
    return next(one for one in found if one.find("mac").get("address").lower() == mac)  # type: ignore[union-attr]


def children(element: etree._Element) -> dict[str, dict[str, str]]:
    return {str(child.tag): {str(k): str(v) for k, v in child.attrib.items()} for child in element}


def test_a_port_of_open_vswitch() -> None:
    found = nic(definition.plugged(MACHINE, {MAC: PLUG}))
    assert found.get("type") == "bridge"
    told = children(found)
    assert told["source"] == {"bridge": "br-int"}
    assert told["target"] == {"dev": "tap0a1b2c3d-4e"}
    assert told["mtu"] == {"size": "1450"}
    assert found.find("virtualport").attrib == {"type": "openvswitch"}  # type: ignore[union-attr]
    assert found.find("virtualport/parameters").attrib == {"interfaceid": PORT_ID}  # type: ignore[union-attr]
    assert "vlan" not in told
    # What the guest sees of it is as it was.
    for tag in ("mac", "model", "driver", "boot", "address"):
        assert told[tag] == children(nic(MACHINE))[tag]
    assert definition.read(definition.plugged(MACHINE, {MAC: PLUG})).nics[0].interface_id == PORT_ID


def test_a_port_of_a_linux_bridge_has_no_interface_id() -> None:
    found = nic(definition.plugged(MACHINE, {MAC: Plug(MAC, "brq0a1b2c3d-4e", "tap0a1b2c3d-4e", None, None)}))
    assert (found.find("virtualport"), found.find("mtu")) == (None, None)


def test_a_nic_that_is_not_there_cannot_be_plugged_in() -> None:
    with pytest.raises(ValueError, match=f"no NIC {OTHER}"):
        definition.plugged(MACHINE, {OTHER: PLUG})


def test_plugged_in_twice_is_plugged_in_once() -> None:
    once = definition.plugged(MACHINE, {MAC: PLUG})
    assert definition.plugged(once, {MAC: PLUG}) == once


def test_a_nic_is_added_without_the_address_that_it_had_elsewhere() -> None:
    elsewhere = MACHINE.replace(MAC.upper(), OTHER)
    both = definition.with_nic_of(MACHINE, elsewhere, OTHER)
    assert [one.mac for one in definition.read(both).nics] == [MAC, OTHER]
    assert "address" not in children(nic(both, OTHER))
    assert definition.read(definition.without_nic(both, OTHER)) == definition.read(MACHINE)
    assert definition.without_nic(MACHINE, OTHER) == etree.tostring(etree.fromstring(MACHINE), encoding="unicode")
    with pytest.raises(ValueError, match="already"):
        definition.with_nic_of(both, elsewhere, OTHER)


@pytest.mark.parametrize(("vcpus", "queues"), [(8, "8"), (1, "1"), (300, "256"), (4, "4")])
def test_queues_follow_the_flavor_where_the_guest_has_several(vcpus: int, queues: str) -> None:
    mark = Mark("m", 1, "destination")
    xml = MACHINE.replace("</devices>", NIC.replace(MAC.upper(), OTHER).replace(" queues='4'", "") + "</devices>")
    resized = definition.resized(xml, vcpus=vcpus, memory_mb=512, disks={}, mark=mark)
    assert children(nic(resized))["driver"] == {"name": "vhost", "queues": queues}
    assert children(nic(resized, OTHER))["driver"] == {"name": "vhost"}


def test_a_migration_leaves_the_queues_as_they_are() -> None:
    few = MACHINE.replace("queues='4'", "queues='2'")
    resized = definition.resized(few, vcpus=4, memory_mb=512, disks={}, mark=Mark("m", 1, "destination"))
    assert children(nic(resized))["driver"]["queues"] == "2"


def test_a_plug_is_what_neutron_says() -> None:
    port = NetworkPort(PORT_ID, MAC, "i", "DOWN", 1450)
    assert plug_of(port, PortBinding("h1", active=True, vif_type="ovs", bridge="br-int")) == PLUG
    bridged = plug_of(port, PortBinding("h1", active=True, vif_type="bridge", bridge="brq1"))
    assert (bridged.bridge, bridged.interface_id, bridged.device) == ("brq1", None, "tap0a1b2c3d-4e")


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        (PortBinding("h1", True, "hw_veb", vnic_type="direct"), "vnic_type is direct"),
        (PortBinding("h1", True, "macvtap", vnic_type="macvtap"), "vnic_type is macvtap"),
        (PortBinding("h1", True, BINDING_FAILED), "could not bind it to h1"),
        (PortBinding("h1", True, "ovs", bridge="br-int", profile={"allocation": {"a": "b"}}), "guaranteed"),
        (PortBinding("h1", True, "unbound"), "bound as unbound"),
        (PortBinding("h1", True, "vhostuser", bridge="br-int"), "bound as vhostuser"),
        (PortBinding("h1", True, "ovs", bridge="br-int", hybrid=True), "ovs_hybrid_plug"),
        (PortBinding("h1", True, "ovs"), "does not say into which bridge"),
    ],
)
def test_what_libvirt_cannot_plug_in_alone_is_refused(binding: PortBinding, told: str) -> None:
    with pytest.raises(Unsupported, match=told):
        plug_of(NetworkPort(PORT_ID, MAC, "i", "DOWN"), binding)
