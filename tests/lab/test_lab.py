"""The lab itself: hosts that are real, guests that say what they are, and nothing left when it is down."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import DiskSpec, Guest, Host, Lab, LabError
from lab.kept import Kept
from lab.paths import IMAGES, LabPaths, lab_names
from lab.serial import last_record_in, reports_in
from lab.system import run

REPOSITORY = Path(__file__).parents[2]
NAME = "rf-labtest"


def command(*arguments: str, user: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `python -m lab` as somebody at a keyboard would."""
    as_user = ["setpriv", f"--reuid={user}", "--clear-groups"] if user else []
    return subprocess.run(
        [*as_user, sys.executable, "-m", "lab", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts."""
    with_two_hosts = Lab(NAME)
    with_two_hosts.down()
    with_two_hosts.up(hosts=2)
    yield with_two_hosts
    with_two_hosts.down()


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    """A guest with two disks, running on h1."""
    made = Guest(lab, "web").create(lab.host("h1"), disks=[DiskSpec(1, "qcow2"), DiskSpec(1, "raw")])
    made.wait_report()
    return made


def acknowledged_after(guest: Guest, host: Host, number: int) -> int:
    """Wait until the guest has acknowledged more records than that, and say how many."""
    deadline = time.monotonic() + 120
    while (last := guest.last_record(host)) <= number:
        assert time.monotonic() < deadline, "the guest acknowledges no records"
        time.sleep(0.1)
    return last


def test_a_report_is_found_behind_half_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(
        b'LAB-REPORT {"boots": 1}\r\nLAB-RECORD 5\r\nLAB-RECLAB-REPORT {"boots": 2}\r\n\xff\r\nLAB-REPORT {"boo'
    )
    assert [report["boots"] for report in reports_in(log)] == [1, 2]
    assert last_record_in(log) == 5
    assert reports_in(tmp_path / "absent") == []


@pytest.mark.parametrize("text", ["", "1G:vmdk", "0G", "big", "1.5G"])
def test_a_wrong_disk_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="is no disk"):
        DiskSpec.parse(text)


def test_a_lab_cannot_be_named_so_that_another_ones_things_are_taken_for_its_own() -> None:
    for name in ("a.b", "images", "../etc", "", "A"):
        with pytest.raises(LabError):
            Lab(name)
    assert not LabPaths("a-b").netns("h1").startswith(LabPaths("a").netns(""))


@pytest.mark.lab
def test_up_again_changes_nothing_that_works(lab: Lab) -> None:
    before = [host.libvirtd_pid() for host in lab.hosts]
    lab.up(hosts=2)
    assert [host.libvirtd_pid() for host in lab.hosts] == before


@pytest.mark.lab
def test_up_repairs_what_is_broken(lab: Lab) -> None:
    first, second = lab.hosts
    first.kill_libvirtd()
    second.hang_libvirtd()
    second.cut_link()
    assert [host.state() for host in lab.hosts] == ["down", "hung"]
    lab.up(hosts=2)
    assert [host.state() for host in lab.hosts] == ["up", "up"]
    assert lab.ping(second.address)


@pytest.mark.lab
def test_hosts_are_told_apart_and_reach_each_other(lab: Lab) -> None:
    first, second = lab.hosts
    seen = first.netns_exec(["virsh", "-q", "-c", second.peer_uri, "capabilities"])
    assert second.uuid in seen
    assert first.uuid not in seen
    assert first.netns_exec(["virsh", "-q", "-c", second.peer_uri, "hostname"]).strip() == second.hostname


@pytest.mark.lab
def test_a_host_does_not_see_anothers_pool(lab: Lab) -> None:
    first, second = lab.hosts
    inside = Path(f"/proc/{first.libvirtd_pid()}/root")
    assert (inside / first.pool_path.relative_to("/")).is_dir()
    assert not (inside / second.pool_path.relative_to("/")).exists()


@pytest.mark.lab
def test_libvirt_itself_shows_the_bridge(lab: Lab) -> None:
    assert "<interface type='bridge' name='br0'>" in lab.host("h1").virsh("iface-dumpxml", "br0")


@pytest.mark.lab
def test_the_guest_says_what_it_is(lab: Lab, guest: Guest) -> None:
    report = guest.wait_report(boots=1)
    expected = {
        "boots": 1, "vcpus": 1, "memory_mb": 256, "disks": {"vda": 1 << 30, "vdb": 1 << 30},
        "fresh": ["vda", "vdb"], "checksum_ok": True, "records_ok": True, "ip": guest.ip, "mac": guest.mac,
        "hostname": "web", "host": "h1",
    }  # fmt: skip
    assert {key: report[key] for key in expected} == expected
    assert report["checksum"] == report["contents"]["vda"] != report["contents"]["vdb"]
    assert guest.ping()


@pytest.mark.lab
def test_the_guest_powers_off_by_acpi_and_comes_back_as_its_new_definition_says(lab: Lab, guest: Guest) -> None:
    host = lab.host("h1")
    before = guest.reports()[-1]
    acknowledged = acknowledged_after(guest, host, 0)
    guest.shutdown(host)
    host.virsh("vol-resize", "web-vda.qcow2", "2G", "--pool", host.pool)
    host.virsh("setvcpus", "web", "2", "--maximum", "--config")
    host.virsh("setvcpus", "web", "2", "--config")
    host.virsh("setmaxmem", "web", "512M", "--config")
    host.virsh("setmem", "web", "512M", "--config")
    guest.start(host)
    report = guest.wait_report(boots=before["boots"] + 1)
    assert report["boots"] == before["boots"] + 1
    assert (report["vcpus"], report["memory_mb"], report["disks"]["vda"]) == (2, 512, 2 << 30)
    assert report["filesystem_bytes"] > 1.9 * (1 << 30)
    assert report["checksum_ok"]
    assert report["contents"] == before["contents"]
    assert report["fresh"] == []
    assert report["last_record"] >= acknowledged


@pytest.mark.lab
def test_a_guest_outlives_its_daemon_but_not_its_host(lab: Lab, guest: Guest) -> None:
    host = lab.host("h1")
    boots = guest.reports()[-1]["boots"]
    (pid,) = host.qemu_pids()
    host.kill_libvirtd()
    assert host.qemu_pids() == [pid]
    host.start_libvirtd()
    assert guest.state(host) == "running"

    acknowledged = acknowledged_after(guest, host, guest.last_record(host))
    host.die()
    assert (host.state(), host.qemu_pids(), guest.ping(timeout=0)) == ("down", [], False)
    host.boot()
    assert guest.state(host) == "shut off"
    guest.start(host)
    report = guest.wait_report(boots=boots + 1)
    assert report["records_ok"]
    assert report["last_record"] >= acknowledged


@pytest.mark.lab
def test_a_guest_that_was_kept_is_had_again(lab: Lab, guest: Guest) -> None:
    host = lab.host("h1")
    facts, reports = guest.facts, guest.reports()
    kept = Kept(guest, host, "as-it-was")
    kept.keep()
    guest.delete()
    assert guest.state(host) is None
    kept.wake()
    assert (guest.state(host), guest.facts, guest.reports()) == ("running", facts, reports)
    assert guest.ping()
    acknowledged_after(guest, host, guest.last_record(host))


@pytest.mark.lab
def test_a_guest_moves_between_the_hosts(lab: Lab, guest: Guest, tmp_path: Path) -> None:
    source, destination = lab.hosts
    boots = guest.reports()[-1]["boots"]
    acknowledged = guest.last_record(source)
    sizes = {disk: f"{size}B" for disk, size in guest.reports()[-1]["disks"].items()}
    destination.virsh("vol-create-as", "default", "web-vda.qcow2", sizes["vda"], "--format", "qcow2")
    destination.virsh("vol-create-as", "default", "web-vdb.raw", sizes["vdb"], "--allocation", "0")
    xml = tmp_path / "web.xml"
    live = source.virsh("dumpxml", "web", "--migratable", "--security-info")
    assert guest.vnc_password in live
    xml.write_text(live.replace(str(source.pool_path), str(destination.pool_path)))
    options = ["--p2p", "--live", "--copy-storage-all", "--persistent", "--undefinesource", "--xml", str(xml)]
    source.virsh("migrate", "web", destination.peer_uri, *options)
    assert guest.states() == {"h2": "running"}
    assert guest.ping()
    assert acknowledged_after(guest, destination, 0) > acknowledged
    assert guest.reports()[-1]["boots"] == boots


@pytest.mark.lab
@pytest.mark.parametrize("seconds", [0.25, 0.4, 0.6])
def test_down_leaves_nothing_after_a_killed_up(seconds: float) -> None:
    killed = Lab(f"{NAME}-killed")
    machine = [Path("/proc/self/mountinfo").read_text().count(f"{NAME}-killed"), run(["ip", "-o", "link"])]
    argv = [sys.executable, "-m", "lab", "up", "--name", killed.name, "--pool-size", "64M"]
    building = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    os.kill(building.pid, signal.SIGKILL)
    building.wait()
    assert command("down", "--name", killed.name).returncode == 0
    assert killed.leftovers() == []
    assert killed.name not in lab_names()
    after = [Path("/proc/self/mountinfo").read_text().count(f"{NAME}-killed"), run(["ip", "-o", "link"])]
    assert after == machine


@pytest.mark.lab
def test_down_needs_no_files_to_find_what_runs(tmp_path: Path) -> None:
    lost = Lab(f"{NAME}-lost")
    lost.up(hosts=1)
    pid = lost.host("h1").libvirtd_pid()
    assert pid is not None
    lost.paths.directory.rename(tmp_path / "moved-away")
    assert f"process {pid}" in lost.leftovers()
    lost.down()
    assert lost.leftovers() == []


@pytest.mark.lab
def test_two_labs_stand_side_by_side(lab: Lab) -> None:
    other = Lab(f"{NAME}-b")
    other.up(hosts=1)
    try:
        ours, theirs = lab.host("h1"), other.host("h1")
        assert ours.address == theirs.address
        assert ours.uuid != theirs.uuid
        assert other.ping(theirs.address)
        other.host("h1").cut_link()
        assert lab.ping(ours.address)
    finally:
        other.down()
    assert [host.state() for host in lab.hosts] == ["up", "up"]


@pytest.mark.lab
def test_a_pool_can_be_small() -> None:
    small = Lab(f"{NAME}-small")
    small.up(hosts=1, pool_size="64M")
    try:
        host = small.host("h1")
        with pytest.raises(LabError, match=r"[Nn]o space"):
            host.virsh("vol-create-as", host.pool, "big", "128M", "--format", "raw")
        host.virsh("vol-create-as", host.pool, "sparse", "128M", "--format", "raw", "--allocation", "0")
        small.up(hosts=1, pool_size="96M")
        assert "96.00 MiB" in host.virsh("pool-info", host.pool)
        small.up(hosts=1)
        assert host.pool_path.is_mount()
    finally:
        small.down()


@pytest.mark.lab
def test_a_pool_in_use_is_not_covered_by_a_limit(lab: Lab) -> None:
    with pytest.raises(LabError, match="without a limit"):
        lab.up(hosts=2, pool_size="64M")


@pytest.mark.lab
def test_down_sweeps_what_a_killed_build_left() -> None:
    left = IMAGES / ".build-killed"
    (left / "tree").mkdir(parents=True)
    Lab(f"{NAME}-gone").down()
    assert not left.exists()


@pytest.mark.lab
def test_up_replaces_a_host_whose_network_was_taken_away() -> None:
    torn = Lab(f"{NAME}-torn")
    torn.up(hosts=1)
    try:
        before = torn.host("h1").libvirtd_pid()
        run(["ip", "netns", "delete", torn.paths.netns("h1")])
        torn.up(hosts=1)
        assert torn.host("h1").libvirtd_pid() not in {None, before}
        assert torn.ping(torn.host("h1").address)
    finally:
        torn.down()


@pytest.mark.lab
def test_status_is_for_programs_too(lab: Lab) -> None:
    told = json.loads(command("status", "--name", lab.name, "-f", "json").stdout)
    assert told["accelerator"] in {"kvm", "tcg"}
    assert [host["uri"] for host in told["hosts"]] == [host.uri for host in lab.hosts]


@pytest.mark.lab
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["guest", "create", "h9", "x", "--name", NAME], "has no host 'h9' (it has: h1, h2)"),
        (["guest", "report", "nobody", "--name", NAME], "has no guest 'nobody'"),
        (["up", "--hosts", "0", "--name", NAME], "1 to 80 hosts"),
        (["up", "--pool-size", "much", "--name", NAME], "is no size for a pool"),
        (["down", "--images"], "give --all with it"),
    ],
)
def test_trouble_is_one_sentence(lab: Lab, arguments: list[str], said: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr


@pytest.mark.lab
def test_only_root_can() -> None:
    done = command("status", user=65534)
    assert done.returncode == 1
    assert "needs root" in done.stderr
