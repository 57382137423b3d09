"""The lab's network: one namespace that is the switch, one per host, joined by veth pairs.

The machine's own network namespace is never touched, so two labs can use the same addresses.
"""

from pathlib import Path

from lab.paths import NETNS_DIRECTORY, LabPaths
from lab.system import LabError, run, wait_until
from lab.vlans import MANAGEMENT, TENANTS, Peer, Vlans

BRIDGE = "br0"
UPLINK = "uplink0"
PEER_DEVICE = "eth0"
NETWORK = "198.51.100"
SWITCH_ADDRESS = f"{NETWORK}.1"
FIRST_HOST = 11
FIRST_GUEST = 101
LAST_GUEST = 254


def host_address(host: str) -> str:
    """h1 is .11, h2 is .12, and so on."""
    return f"{NETWORK}.{FIRST_HOST + int(host[1:]) - 1}"


def build_switch(paths: LabPaths) -> None:
    """The switch: a namespace with a bridge that has the address pings are sent from."""
    _build_node(paths.switch_netns, SWITCH_ADDRESS)
    if (vlans := Vlans(paths)).exist():
        vlans.filter(paths.switch_netns)


def build_host(paths: LabPaths, host: str) -> None:
    """A host's namespace: a bridge for its guests, with an uplink to the switch."""
    netns = paths.netns(host)
    _build_node(netns, host_address(host))
    if not _has_link(netns, UPLINK):
        if _has_link(paths.switch_netns, host):
            _ip(paths.switch_netns, "link", "delete", host)
        _ip(netns, "link", "add", UPLINK, "type", "veth", "peer", "name", host, "netns", paths.switch_netns)
    _ip(netns, "link", "set", UPLINK, "master", BRIDGE, "up")
    _ip(paths.switch_netns, "link", "set", host, "master", BRIDGE, "up")
    if (vlans := Vlans(paths)).exist():
        vlans.filter(netns)
        vlans.add(netns, UPLINK, MANAGEMENT, "pvid", "untagged")
        vlans.add(paths.switch_netns, host, MANAGEMENT, "pvid", "untagged")
        vlans.add(paths.switch_netns, host, TENANTS)


def add_peer(paths: LabPaths, name: str, vlan: int, address: str, at: str) -> Peer:
    """A namespace with an address, whose cable is in a VLAN without tags, at the switch or at a host."""
    node, peer, cable = paths.netns(at), paths.netns(f"peer-{name}"), f"peer-{name}"
    if not usable(peer):
        run(["ip", "netns", "add", peer])
    if not _has_link(peer, PEER_DEVICE):
        _ip(peer, "link", "add", PEER_DEVICE, "type", "veth", "peer", "name", cable, "netns", node)
    _ip(peer, "link", "set", "lo", "up")
    _ip(peer, "address", "replace", f"{address}/24", "dev", PEER_DEVICE)
    _ip(peer, "link", "set", PEER_DEVICE, "up")
    _ip(node, "link", "set", cable, "master", BRIDGE, "up")
    Vlans(paths).add(node, cable, vlan, "pvid", "untagged")
    return Peer(peer, address)


def remove_peer(paths: LabPaths, name: str) -> None:
    """Its namespace and its cable, at once."""
    peer = paths.netns(f"peer-{name}")
    _ip(peer, "link", "delete", PEER_DEVICE)
    run(["ip", "netns", "delete", peer])


def set_link(paths: LabPaths, host: str, up: bool) -> None:
    """Plug or pull the cable between a host and the switch, at the switch."""
    _ip(paths.switch_netns, "link", "set", host, "up" if up else "down")


def link_is_up(paths: LabPaths, host: str) -> bool:
    """Whether the cable between a host and the switch is plugged in."""
    try:
        return "state UP" in _ip(paths.switch_netns, "-o", "link", "show", host)
    except LabError:
        return False


def delete_networks(paths: LabPaths) -> None:
    """Delete the lab's namespaces; the bridges and cables in them go with them."""
    for name in paths.netns_names():
        run(["ip", "netns", "delete", name])
    if NETNS_DIRECTORY.exists() and not any(NETNS_DIRECTORY.iterdir()):
        _remove_netns_directory()


def ping(paths: LabPaths, address: str, timeout: float) -> bool:
    """Ping from the switch until there is an answer or the time is up."""

    def answers() -> bool:
        try:
            run(["ip", "netns", "exec", paths.switch_netns, "ping", "-c", "1", "-W", "1", "-n", address])
        except LabError:
            return False
        return True

    return wait_until(answers, timeout, interval=0.2)


def _build_node(netns: str, address: str) -> None:
    """A namespace with a bridge that answers at an address."""
    if not usable(netns):
        if (NETNS_DIRECTORY / netns).exists():
            run(["ip", "netns", "delete", netns])
        run(["ip", "netns", "add", netns])
    _ip(netns, "link", "set", "lo", "up")
    if not _has_link(netns, BRIDGE):
        _ip(netns, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0", "stp_state", "0")
    _ip(netns, "address", "replace", f"{address}/24", "dev", BRIDGE)
    _ip(netns, "link", "set", BRIDGE, "up")


def usable(netns: str) -> bool:
    """A namespace whose creation was killed half-way has a name that leads nowhere."""
    try:
        run(["ip", "netns", "exec", netns, "true"])
    except LabError:
        return False
    return True


def _has_link(netns: str, link: str) -> bool:
    try:
        _ip(netns, "link", "show", link)
    except LabError:
        return False
    return True


def _ip(netns: str, *arguments: str) -> str:
    return run(["ip", "-n", netns, *arguments])


def _remove_netns_directory() -> None:
    """`ip netns` mounts its directory on itself: undo that when the last namespace of the machine is gone."""
    while _is_mounted(NETNS_DIRECTORY):
        run(["umount", str(NETNS_DIRECTORY)])
    NETNS_DIRECTORY.rmdir()


def _is_mounted(path: Path) -> bool:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in mounts)
