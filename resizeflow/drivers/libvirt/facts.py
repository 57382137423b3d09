"""Who and how large a host is."""

from __future__ import annotations

from xml.etree.ElementTree import tostring

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


def check_cpu(session: Session, xml: str) -> None:
    """What libvirtd itself asks when it starts a guest; the CPU that its QEMU offers counts, also under TCG."""
    root = parse(xml)
    cpu, machine = root.find("cpu"), root.find("os/type")
    if cpu is None or machine is None:
        return
    kind = (machine.get("arch"), machine.get("machine"), root.get("type"))
    with session.asking("give a guest its CPU"):
        try:
            session.connection.compareHypervisorCPU(
                None, *kind, tostring(cpu, "unicode"), libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
            )
        except libvirt.libvirtError as error:
            if cpu.get("check") != "none" or error.get_error_code() != libvirt.VIR_ERR_CPU_INCOMPATIBLE:
                raise


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
