"""Who and how large a host is."""

from __future__ import annotations

import libvirt

from resizeflow.drivers.hypervisor import HostFacts
from resizeflow.drivers.libvirt.elements import parse, text
from resizeflow.drivers.libvirt.session import Session


def host_facts(session: Session) -> HostFacts:
    """The host's own description of itself."""
    with session.asking("describe itself"):
        capabilities = parse(session.connection.getCapabilities())
        _, _, vcpus, *_ = session.connection.getInfo()
        # getInfo adds up NUMA cells, which leave out memory that was plugged in later.
        memory = session.connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        bridges = _bridges(session.connection)
    machines: set[str] = set()
    for machine in capabilities.iterfind("guest/arch//machine"):
        machines.update({machine.text or "", machine.get("canonical", "")})
    types = {domain.get("type", "") for domain in capabilities.iterfind("guest/arch/domain")}
    return HostFacts(
        uuid=text(capabilities, "host/uuid") or "",
        hostname=session.host,
        vcpus=vcpus,
        memory_mb=memory["total"] // 1024,
        machines=frozenset(machines - {""}),
        domain_types=frozenset(types - {""}),
        bridges=bridges,
    )


def _bridges(connection: libvirt.virConnect) -> frozenset[str]:
    """Bridges of the host, and those of libvirt's own networks where the host has no interface driver."""
    names: set[str] = set()
    try:
        for interface in connection.listAllInterfaces(0):  # a bridge without a carrier counts as inactive
            if parse(interface.XMLDesc(0)).get("type") == "bridge":
                names.add(interface.name())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
    try:
        networks = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
        for network in networks:
            bridge = parse(network.XMLDesc(0)).find("bridge")
            if bridge is not None and bridge.get("name"):
                names.add(bridge.get("name", ""))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
    return frozenset(names)
