"""The lab's VLANs: bridges that filter them, and peers in one of them.

Hosts are reached in VLAN 1, without tags; the switch brings VLANs 10 to 29 to each of them, with tags, and what a host
itself takes of them it has to be told. A tap that nobody put into a VLAN reaches nobody.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import vlan_filter
from lab.paths import LabPaths
from lab.system import LabError, run

MANAGEMENT = 1
TENANTS = "10-29"
"""What the switch brings to each host."""
BRIDGE = "br0"


class Vlans:
    """Those of one lab, if it was brought up with them."""

    def __init__(self, paths: LabPaths) -> None:
        self._paths = paths
        self._folder = paths.directory / "vlans"

    def exist(self) -> bool:
        """Whether the lab has any."""
        return self._folder.exists()

    def up(self) -> None:
        """From now on it has. Where the kernel filters none the lab does (`lab.vlan_filter`)."""
        in_kernel = self._kernel_filters()
        self._folder.mkdir(parents=True, exist_ok=True)
        if not in_kernel:
            self._stand_in.touch()

    def shell(self, netns: str) -> list[str]:
        """What to write before a command on bridges and their VLANs to run it in a namespace."""
        within = ["ip", "netns", "exec", netns]
        if not self._stand_in.exists():
            return within
        return [*within, *vlan_filter.command(self._folder / netns)]

    def of(self, netns: str, device: str) -> set[int]:
        """Those that a member of a bridge is in."""
        found = json.loads(run([*self.shell(netns), "bridge", "-j", "vlan", "show"]))
        return {one["vlan"] for member in found if member["ifname"] == device for one in member["vlans"]}

    def filter(self, netns: str) -> None:
        """The bridge of a namespace filters VLANs; it is itself in the one in which hosts are reached."""
        if not self._stand_in.exists():
            # One after the other: the first is refused while the bridge filters.
            for option, value in (("vlan_default_pvid", "0"), ("vlan_filtering", "1")):
                run(["ip", "-n", netns, "link", "set", BRIDGE, "type", "bridge", option, value])
        self.add(netns, BRIDGE, MANAGEMENT, "pvid", "untagged", "self")

    def add(self, netns: str, device: str, vlan: int | str, *flags: str) -> None:
        """A member of a bridge is in a VLAN."""
        run([*self.shell(netns), "bridge", "vlan", "add", "dev", device, "vid", str(vlan), *flags])

    def reset(self, netns: str, uplink: str) -> None:
        """A host that boots takes nothing of its uplink but what it is reached by."""
        run([*self.shell(netns), "bridge", "vlan", "del", "dev", uplink, "vid", TENANTS])
        self.add(netns, uplink, MANAGEMENT, "pvid", "untagged")

    def _kernel_filters(self) -> bool:
        probe = ["ip", "-n", self._paths.switch_netns, "link"]
        try:
            run([*probe, "add", "vlan-probe", "type", "bridge", "vlan_filtering", "1"])
        except LabError:
            return False
        run([*probe, "delete", "vlan-probe"])
        return True

    @property
    def _stand_in(self) -> Path:
        return self._folder / "filtered-by-the-lab"


@dataclass(frozen=True)
class Peer:
    """Somebody in a VLAN, at the switch or at a host's bridge."""

    netns: str
    address: str

    @property
    def within(self) -> Sequence[str]:
        """What to write before a command that it runs."""
        return ["ip", "netns", "exec", self.netns]

    def knows(self, address: str, mac: str) -> None:
        """It asks nobody for the other's MAC address: what it sends goes where switches believe that this is."""
        run(["ip", "-n", self.netns, "neigh", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent"])
