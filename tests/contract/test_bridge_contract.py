"""What the drivers of bridges do, tried on the simulator, on a kernel that filters VLANs (an emulated machine's), and
on this kernel with the lab's filter, which by that is seen to do the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.vlan_machine import VlanMachine, vlan_machine
from resizeflow.drivers import connect
from resizeflow.drivers.bridge import BridgeLink, Member
from resizeflow.drivers.interface import Fence, Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.shell.runner import Runner
from tests.contract.bridge_sites import BRIDGE, PLAIN, BridgeSite, RealBridge, on_kernel, simulated, stood_in
from tests.contract.contract_sites import until

NETNS = "rf-bridge-contract"
REAL = pytest.mark.lab


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VlanMachine]:
    """An emulated machine whose kernel filters VLANs."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    with vlan_machine(tmp_path_factory.mktemp("vlans")) as booted:
        yield booted


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    yield NETNS
    subprocess.run(["ip", "netns", "delete", NETNS], check=True)


@pytest.fixture(params=["sim", pytest.param("kernel", marks=REAL), pytest.param("filter", marks=REAL)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> BridgeSite:
    """A host with a bridge, and an open connection to it."""
    made: BridgeSite
    if request.param == "sim":
        made = simulated(tmp_path)
    elif request.param == "kernel":
        made = on_kernel(request.getfixturevalue("machine"))
    else:
        made = stood_in(request.getfixturevalue("netns"), tmp_path / "vlans.json")
    made.connection.open(20)
    return made


@pytest.fixture(params=[pytest.param("kernel", marks=REAL), pytest.param("filter", marks=REAL)])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> RealBridge:
    """A real one."""
    if request.param == "kernel":
        return on_kernel(request.getfixturevalue("machine"))
    return stood_in(request.getfixturevalue("netns"), tmp_path / "vlans.json")


def test_members_are_told_apart(site: BridgeSite) -> None:
    members = {link.device: link.member for link in site.ask("bridge_links", BRIDGE)}
    assert members.items() >= {BRIDGE: Member.SELF, site.uplink: Member.UPLINK, site.tap: Member.TAP}.items()
    assert site.link(site.tap) == BridgeLink(site.tap, Member.TAP)


def test_bridges_that_are_none(site: BridgeSite) -> None:
    with pytest.raises(Missing):
        site.ask("bridge_links", "br9")
    with pytest.raises(Refused, match="does not filter VLANs"):
        site.ask("bridge_links", PLAIN)
    for method in ("carry_vlan", "drop_vlan"):
        with pytest.raises(Missing):
            site.ask(method, "br9", 10)


def test_an_uplink_carries_a_vlan_and_drops_it(site: BridgeSite) -> None:
    assert site.carried() == frozenset()
    for _ in range(2):
        site.ask("carry_vlan", BRIDGE, 10)
    site.ask("carry_vlan", BRIDGE, 11)
    assert site.carried() == {10, 11}
    assert site.link(site.uplink).carries(10)
    for _ in range(2):
        site.ask("drop_vlan", BRIDGE, 10)
    assert site.carried() == {11}
    assert site.link(site.tap).vlans == frozenset()


def test_a_tap_is_in_one_vlan(site: BridgeSite) -> None:
    for vlan in (10, 10, 11):
        site.ask("set_access_vlan", site.tap, vlan)
        assert site.link(site.tap).is_in(vlan)
        assert not site.link(site.tap).is_in(vlan + 1)
    assert site.carried() == frozenset()


def test_devices_that_are_no_taps(site: BridgeSite) -> None:
    with pytest.raises(Missing):
        site.ask("set_access_vlan", "tap99", 10)
    with pytest.raises(Refused):
        site.ask("set_access_vlan", site.uplink, 10)


def test_no_effect_begins_too_late(site: BridgeSite) -> None:
    late = Fence(time.clock_gettime(time.CLOCK_BOOTTIME) - 1, "j-contract", 1)
    for method, args in (("carry_vlan", (BRIDGE, 10)), ("set_access_vlan", (site.tap, 10))):
        with pytest.raises(Refused, match="late"):
            site.ask(method, *args, fence=late)
    site.ask("carry_vlan", BRIDGE, 10)
    with pytest.raises(Refused, match="late"):
        site.ask("drop_vlan", BRIDGE, 10, fence=late)
    assert site.carried() == {10}
    assert site.link(site.tap).vlans == frozenset()


def test_how_the_host_itself_is_reached_stays(real: RealBridge) -> None:
    """A VLAN that an uplink has without tags is carried by it, and is not dropped."""
    before = real.link(real.uplink)
    real.ask("carry_vlan", BRIDGE, 1)
    real.ask("drop_vlan", BRIDGE, 1)
    assert real.link(real.uplink) == before
    assert before.pvid == 1


def test_a_container_gets_no_tags(real: RealBridge) -> None:
    assert real.link("port0") == BridgeLink("port0", Member.PORT, frozenset({30}), frozenset({30}), 30)
    real.ask("carry_vlan", BRIDGE, 10)
    real.ask("carry_vlan", BRIDGE, 30)
    real.ask("drop_vlan", BRIDGE, 30)
    assert real.link("port0").is_in(30)
    assert real.carried() == {10}


def test_all_uplinks_carry_it(real: RealBridge) -> None:
    """Of two, one has it already; a tap that was in another VLAN with tags is in none but its own."""
    real.run(*["bridge", "vlan", "add", "dev", "port0", "vid", "20"])  # with tags it is an uplink
    real.run(*["bridge", "vlan", "add", "dev", "uplink0", "vid", "10"])
    real.run(*["bridge", "vlan", "add", "dev", "tap0", "vid", "44-46"])
    real.ask("carry_vlan", BRIDGE, 10)
    assert real.link("port0").carries(10)
    assert real.carried() == {10}
    real.ask("set_access_vlan", "tap0", 45)
    assert real.link("tap0").is_in(45)


def test_names_that_a_shell_would_take_for_more(tmp_path: Path) -> None:
    """ssh hands its words to a shell at the other end."""
    shell = f"{sys.executable} {tmp_path / 'shell'}"
    device = {"ifname": "$(reboot)", "master": BRIDGE, "linkinfo": {"info_kind": "dummy"}}
    bridge = {"ifname": BRIDGE, "linkinfo": {"info_kind": "bridge", "info_data": {"vlan_filtering": 1}}}
    links = json.dumps([device, bridge])
    (tmp_path / "shell").write_text(f"import sys\nprint({links!r} if 'ip' in sys.argv else '[]')\n")
    with pytest.raises(Refused, match="no name of a device"):
        call(shell, "carry_vlan", BRIDGE, 10)


@pytest.mark.parametrize(
    ("script", "look", "act"),
    [
        ("exit 127", Unreachable, Unreachable),
        ("echo 'ssh: connect to host h1 port 22: No route to host' >&2; exit 255", Unreachable, Unknown),
        ("echo 'RTNETLINK answers: Operation not permitted' >&2; exit 255", Refused, Refused),
        ("echo gone; kill -9 $$", Unknown, Unknown),
        ("sleep 600", Unknown, Unknown),
        ("echo no JSON", Unknown, None),
    ],
)
def test_how_a_shell_fails(tmp_path: Path, script: str, look: type[Exception], act: type[Exception] | None) -> None:
    """A look that broke off is asked again; of an act nobody knows, unless the command is not there, or was refused."""
    path = tmp_path / "shell"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    timeout = 1 if "sleep" in script else 60
    with pytest.raises(look):
        call(str(path), "bridge_links", BRIDGE, timeout=timeout)
    runner = Runner((str(path),), time.monotonic() + timeout)
    if act is None:
        runner.act("bridge")
    else:
        with pytest.raises(act):
            runner.act("bridge")


def test_shells_that_are_none(tmp_path: Path) -> None:
    for shell in ("", "'", "no-such-program h1"):
        with pytest.raises(Unreachable):
            connect(f"shell:{shell}").open(1)
    with pytest.raises(Unreachable):
        call(str(tmp_path), "bridge_links", BRIDGE)


def test_a_command_ends_with_its_caller(tmp_path: Path) -> None:
    """However the worker ends."""
    script = tmp_path / "shell"
    script.write_text(f"#!/bin/sh\necho $$ >{tmp_path / 'pid'}\nsleep 60\n")
    script.chmod(0o755)
    ask = f"connect('shell:{script}').call('bridge_links', ('br0',), timeout=60)"
    code = f"from resizeflow.drivers import connect; {ask}"
    with subprocess.Popen([sys.executable, "-c", code]) as caller:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        caller.kill()
    process = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    until(lambda: not process.exists() or process.read_text().rpartition(")")[2].split()[0] == "Z")


def call(shell: str, method: str, *args: object, timeout: float = 10) -> object:
    return connect(f"shell:{shell}").call(method, args, timeout=timeout)
