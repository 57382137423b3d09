"""A host's bridge, simulated or real, as the contract's tests use it."""

from __future__ import annotations

import shlex
import subprocess
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import vlan_filter
from lab.vlan_machine import VlanMachine
from resizeflow.drivers import connect
from resizeflow.drivers.bridge import BridgeLink, Member
from resizeflow.drivers.interface import Connection, Fence
from resizeflow.drivers.simulator import SimulatedWorld

BRIDGE, PLAIN = "br0", "br1"
"""One that filters VLANs, and one that does not."""
FILTERING = ("vlan_filtering", "1", "vlan_default_pvid", "0", "forward_delay", "0")
Run = Callable[..., object]


@dataclass
class BridgeSite:
    """A host with a bridge that filters VLANs: itself and its uplink are in VLAN 1 without tags, its tap is in none."""

    shell: str
    uplink: str
    tap: str
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = connect(self.shell if self.shell.startswith("sim:") else f"shell:{self.shell}")

    def ask(self, method: str, *args: Any, fence: Fence | None = None, timeout: float = 60) -> Any:
        """Calls a method."""
        return self.connection.call(method, args, timeout=timeout, fence=fence)

    def link(self, device: str) -> BridgeLink:
        """A member of the bridge."""
        found: Sequence[BridgeLink] = self.ask("bridge_links", BRIDGE)
        return next(link for link in found if link.device == device)

    def carried(self) -> frozenset[int]:
        """The VLANs that come by the uplink, with tags."""
        link = self.link(self.uplink)
        assert link.member is Member.UPLINK
        return link.vlans - link.untagged


@dataclass
class RealBridge(BridgeSite):
    """One of a kernel's own."""

    run: Run


def simulated(folder: Path) -> BridgeSite:
    """The simulator's."""
    world = SimulatedWorld(folder / "world.db").create()
    world.add_host("here", bridges=(BRIDGE, PLAIN))
    world.filter_vlans("here", BRIDGE)
    machine = world.create_guest("here", "m", 1, 64, {"vda": 1}, uuid=str(uuid.uuid4()))
    (tap,) = world.vlans("here")["taps"]
    assert machine
    return BridgeSite(world.uri("here"), "uplink0", tap)


def on_kernel(machine: VlanMachine) -> RealBridge:
    """That of a kernel which filters VLANs, made anew."""
    for device in (BRIDGE, PLAIN, "uplink0", "port0", "tap0"):
        machine.answer("ip", "link", "delete", device)
    machine.run("ip", "link", "add", BRIDGE, "type", "bridge", *FILTERING)
    _plug(machine.run, machine.run)
    return RealBridge(machine.shell, "uplink0", "tap0", machine.run)


def stood_in(netns: str, table: Path) -> RealBridge:
    """One in a network namespace of this kernel, its VLANs filtered by the lab."""
    within = ["ip", "netns", "exec", netns]
    shell = [*within, *vlan_filter.command(table)]

    def run(*command: str) -> None:
        subprocess.run([*within, *command], check=True, capture_output=True)

    def filtered(*command: str) -> None:
        subprocess.run([*shell, *command], check=True, capture_output=True)

    run(*["ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"])
    _plug(run, filtered)
    return RealBridge(shlex.join(shell), "uplink0", "tap0", filtered)


def _plug(run: Run, filtered: Run) -> None:
    """Uplink, tap and a container's port, the other bridge; and how the host itself is reached."""
    for command in (
        "ip link add br1 type bridge",
        "ip link add uplink0 type veth peer name cable0",
        "ip link add port0 type veth peer name inside0",
        "ip tuntap add dev tap0 mode tap",
        "ip link set uplink0 master br0 up",
        "ip link set port0 master br0 up",
        "ip link set tap0 master br0 up",
        "ip link set br0 up",
    ):
        run(*command.split())
    filtered(*["bridge", "vlan", "add", "dev", "br0", "vid", "1", "pvid", "untagged", "self"])
    filtered(*["bridge", "vlan", "add", "dev", "uplink0", "vid", "1", "pvid", "untagged"])
    filtered(*["bridge", "vlan", "add", "dev", "port0", "vid", "30", "pvid", "untagged"])
