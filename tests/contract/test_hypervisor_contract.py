"""What every hypervisor driver does, tried on the simulator and on real libvirt hosts."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Iterator

import pytest

from resizeflow.drivers.definition import Mark, difference, marked, read, restored, retired
from resizeflow.drivers.hypervisor import (
    HostFacts,
    PoolFacts,
    PowerState,
    SecretFacts,
    SecretSpec,
    StreamTarget,
    VolumeSpec,
)
from resizeflow.drivers.interface import DriverError, Exists, Fence, Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.swap import Swap
from tests.contract.contract_sites import CARRIER, MACHINE, MIB, Fleet, Site, carrier_xml, machine_xml, until

NOBODY = "00000000-0000-4000-8000-000000000000"


def fence(seconds: float) -> Fence:
    return Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, "j-contract", 1)


# --- looks -----------------------------------------------------------------------------------------------


def test_hosts_describe_themselves(fleet: Fleet) -> None:
    here: HostFacts = fleet.here.ask("facts")
    there: HostFacts = fleet.there.ask("facts")
    assert here.uuid != there.uuid
    assert here.hostname != there.hostname
    assert here.vcpus > 0
    assert here.memory_mb > 0
    assert {MACHINE, "q35"} <= here.machines
    assert "qemu" in here.domain_types


@pytest.mark.parametrize(
    ("cpu", "there"),
    [
        ("", True),
        ("<cpu mode='host-model'/>", True),
        ("<cpu mode='custom' match='exact' check='partial'><model>qemu64</model></cpu>", True),
        ("<cpu mode='custom' match='exact' check='partial'><model>EPYC-Milan</model></cpu>", False),
        ("<cpu mode='custom' match='exact' check='none'><model>EPYC-Milan</model></cpu>", True),
        ("<cpu mode='custom' match='exact' check='partial'><model>NoSuchModel</model></cpu>", False),
    ],
)
def test_a_guest_starts_where_its_cpu_is_there(site: Site, cpu: str, there: bool) -> None:
    """What the look says is what a start would say, also under TCG."""
    machine = str(uuid.uuid4())
    xml = machine_xml(machine_uuid=machine).replace("<devices>", f"{cpu}<devices>")
    site.ask("define", xml)
    defined = site.known(machine).inactive_xml
    if there:
        site.ask("check_cpu", defined)
        site.ask("start_paused", machine)
        return
    for method, args in (("check_cpu", (defined,)), ("start_paused", (machine,))):
        with pytest.raises(Refused, match="CPU"):
            site.ask(method, *args)


def test_a_machine_is_announced_while_it_is_there(site: Site) -> None:
    machine = str(uuid.uuid4())
    with pytest.raises(Missing):
        site.ask("announce", machine)
    site.ask("define", machine_xml(machine_uuid=machine))
    with pytest.raises(Refused):
        site.ask("announce", machine)
    site.ask("start_paused", machine)
    for _ in range(2):
        site.ask("announce", machine)
    assert site.known(machine).state is PowerState.PAUSED


def test_a_pool_describes_itself(site: Site) -> None:
    pool: PoolFacts = site.ask("pool", site.pool)
    assert pool.name == site.pool
    assert pool.path.startswith("/")
    assert 0 < pool.available <= pool.capacity
    with pytest.raises(Missing):
        site.ask("pool", "nothing")


def test_what_is_not_there(site: Site) -> None:
    assert site.domain(NOBODY) is None
    assert site.ask("volume", site.pool, "nothing") is None
    assert site.ask("domains") == ()
    for method in ("definition_with_secrets", "undefine", "start_paused", "resume", "suspend", "destroy"):
        with pytest.raises(Missing):
            site.ask(method, NOBODY)
    for method, args in (
        ("shutdown", (NOBODY,)),
        ("set_autostart", (NOBODY, True)),
        ("merge", (NOBODY, "vda")),
        ("start_merge", (NOBODY, "vda", 0)),
        ("pivot_merge", (NOBODY, "vda")),
        ("grow_volume", (site.pool, "nothing", MIB)),
        ("delete_volume", (site.pool, "nothing")),
        ("volume", ("nothing", "nothing")),
    ):
        with pytest.raises(Missing):
            site.ask(method, *args)


def test_a_closed_connection_is_not_opened_by_a_call(site: Site) -> None:
    site.connection.close()
    with pytest.raises(Unreachable):
        site.ask("facts")
    site.connection.open(20)
    site.connection.open(20)
    assert site.ask("facts").hostname


# --- volumes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("volume_format", ["raw", "qcow2"])
def test_a_volume_is_made_grown_and_deleted(site: Site, volume_format: str) -> None:
    made = site.make("disk", 16, volume_format)
    assert (made.name, made.capacity, made.format) == ("disk", 16 * MIB, volume_format)
    assert made.path == f"{site.ask('pool', site.pool).path}/disk"
    assert made.backing_path is None
    assert made.allocation < 2 * MIB
    with pytest.raises(Exists):
        site.make("disk", 16, volume_format)
    for capacity in (32, 32):
        site.ask("grow_volume", site.pool, "disk", capacity * MIB)
        assert site.ask("volume", site.pool, "disk").capacity == 32 * MIB
    with pytest.raises(Refused):
        site.ask("grow_volume", site.pool, "disk", 16 * MIB)
    assert [volume.name for volume in site.ask("volumes", site.pool)] == ["disk"]
    site.ask("delete_volume", site.pool, "disk")
    with pytest.raises(Missing):
        site.ask("delete_volume", site.pool, "disk")
    assert site.ask("volumes", site.pool) == ()


def test_an_overlay_lies_on_its_base(site: Site) -> None:
    base = site.make("base", 16)
    overlay = site.make("overlay", 32, "qcow2", over=base)
    assert (overlay.capacity, overlay.backing_path) == (32 * MIB, base.path)
    with pytest.raises(Refused):
        site.ask("delete_volume", site.pool, "base")
    with pytest.raises(Refused):
        site.make("small", 8, "qcow2", over=base)
    with pytest.raises(Refused):
        site.ask("create_volume", site.pool, VolumeSpec("guess", 16 * MIB, "qcow2", base.path))
    with pytest.raises(Missing):
        site.ask("create_volume", site.pool, VolumeSpec("lost", 16 * MIB, "qcow2", base.path + "x", "raw"))


def test_a_volume_is_made_swap_space(site: Site) -> None:
    swap = Swap("6f1e2d3c-0000-4000-8000-00000000005a", 15 * MIB, "swap")
    site.make("swap", 16)
    assert site.ask("swap", site.pool, "swap") is None
    site.ask("make_swap", site.pool, "swap", swap)
    site.ask("make_swap", site.pool, "swap", swap)
    assert site.ask("swap", site.pool, "swap") == swap
    assert (site.ask("volume", site.pool, "swap").capacity, site.ask("volume", site.pool, "swap").format) == (
        16 * MIB,
        "raw",
    )


def test_swap_space_is_not_made_where_it_does_not_belong(site: Site) -> None:
    swap = Swap(NOBODY, 16 * MIB)
    small, qcow2, used = site.make("small", 15), site.make("qcow2", 16, "qcow2"), site.make("used", 16)
    site.ask("define", machine_xml(used))
    for volume in (small, qcow2, used):
        with pytest.raises(Refused):
            site.ask("make_swap", site.pool, volume.name, swap)
        assert site.ask("swap", site.pool, volume.name) is None
    for method, args in (("swap", ()), ("make_swap", (swap,))):
        with pytest.raises(Missing):
            site.ask(method, site.pool, "nothing", *args)
    with pytest.raises(Refused):
        site.ask("make_swap", site.pool, site.make("late", 16).name, swap, fence=fence(-1))
    assert site.ask("swap", site.pool, "late") is None


# --- definitions -----------------------------------------------------------------------------------------


def test_a_domain_is_defined_redefined_and_undefined(site: Site) -> None:
    disk = site.make("disk")
    xml = machine_xml(disk)
    machine = read(xml).uuid
    site.ask("define", xml)
    found = site.known(machine)
    assert (found.uuid, found.name, found.state) == (machine, "contract", PowerState.SHUTOFF)
    assert (found.persistent, found.autostart, found.live_xml) == (True, False, None)
    assert (found.incoming, found.job_running, found.merging) == (False, False, frozenset())
    assert (found.snapshots, found.managed_save) == (0, False)
    assert read(found.inactive_xml).disks[0].path == disk.path
    site.ask("define", marked(found.inactive_xml, CARRIER))
    assert read(site.known(machine).inactive_xml).mark == CARRIER
    assert difference(found.inactive_xml, site.known(machine).inactive_xml) is None
    with pytest.raises(Refused):
        site.ask("delete_volume", site.pool, "disk")
    site.ask("undefine", machine)
    assert site.domain(machine) is None
    site.ask("delete_volume", site.pool, "disk")


def test_definitions_that_are_refused(site: Site) -> None:
    xml = machine_xml()
    site.ask("define", xml)
    for wrong in (
        "rubbish",
        "<network/>",
        machine_xml(),
        machine_xml(name="other", machine_uuid=read(xml).uuid),
        machine_xml(name="other").replace(MACHINE, "pc-q35-99.9"),
    ):
        with pytest.raises(Refused):
            site.ask("define", wrong)
    assert len(site.ask("domains")) == 1


def test_secrets_are_given_only_when_asked_for(site: Site) -> None:
    xml = machine_xml(devices="<graphics type='vnc' port='-1' autoport='yes' passwd='s3cret'/>")
    site.ask("define", xml)
    found = site.known(read(xml).uuid)
    whole = site.ask("definition_with_secrets", found.uuid)
    assert "s3cret" not in found.inactive_xml
    assert "s3cret" in whole
    assert difference(found.inactive_xml, whole) is None


def test_autostart(site: Site) -> None:
    xml = machine_xml()
    machine = read(xml).uuid
    site.ask("define", xml)
    for _ in range(2):
        site.ask("set_autostart", machine, True)
        assert site.known(machine).autostart
    site.ask("define", marked(xml, CARRIER))
    assert site.known(machine).autostart
    site.ask("set_autostart", machine, False)
    assert not site.known(machine).autostart
    site.ask("set_autostart", machine, True)
    site.ask("undefine", machine)
    site.ask("define", xml)
    assert not site.known(machine).autostart


def test_too_late_is_refused_before_any_effect(site: Site) -> None:
    spec = VolumeSpec("late", MIB, "raw")
    with pytest.raises(Refused):
        site.ask("create_volume", site.pool, spec, fence=fence(-1))
    assert site.ask("volume", site.pool, "late") is None
    site.ask("create_volume", site.pool, spec, fence=fence(60))
    xml = machine_xml()
    with pytest.raises(Refused):
        site.ask("define", xml, fence=fence(-1))
    assert site.ask("domains") == ()


# --- secrets ---------------------------------------------------------------------------------------------


def secret(kind: str = "ceph", value: bytes = b"s3cret \x00\xff", migration: str = "m-contract") -> SecretSpec:
    return SecretSpec(str(uuid.uuid4()), kind, migration, Secret(value))


@pytest.mark.parametrize("kind", ["ceph", "iscsi"])
def test_a_secret_is_defined_read_and_undefined(site: Site, kind: str) -> None:
    spec, other = sorted((secret(kind), secret(kind)), key=lambda found: found.uuid)
    assert site.ask("secrets") == ()
    for one in (other, spec):
        site.ask("define_secret", one)
    assert site.ask("secrets") == (
        SecretFacts(spec.uuid, kind, "m-contract"),
        SecretFacts(other.uuid, kind, "m-contract"),
    )
    assert site.ask("secret_value", spec.uuid) == spec.secret
    site.ask("undefine_secret", spec.uuid)
    assert [found.uuid for found in site.ask("secrets")] == [other.uuid]
    for method in ("secret_value", "undefine_secret"):
        with pytest.raises(Missing, match=spec.uuid):
            site.ask(method, spec.uuid)


def test_a_secret_defined_again_has_the_new_value_and_mark(site: Site) -> None:
    spec = secret()
    again = SecretSpec(spec.uuid, spec.kind, "m-later", Secret(b"another"))
    for one in (spec, again, again):
        site.ask("define_secret", one)
    assert site.ask("secrets") == (SecretFacts(spec.uuid, "ceph", "m-later"),)
    assert site.ask("secret_value", spec.uuid) == again.secret


def test_a_secret_that_was_half_made_has_no_value_and_is_made_whole(site: Site) -> None:
    spec = secret("iscsi")
    site.half_define(spec)
    assert site.ask("secrets") == (SecretFacts(spec.uuid, "iscsi", "m-contract"),)
    assert site.ask("secret_value", spec.uuid) is None
    site.ask("define_secret", spec)
    assert site.ask("secret_value", spec.uuid) == spec.secret


def test_a_secret_s_value_is_in_no_error_and_in_no_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    spec = secret()
    with pytest.raises(Refused) as refused:
        site.ask("define_secret", spec, fence=fence(-1))
    assert site.ask("secrets") == ()
    site.ask("define_secret", spec, fence=fence(60))
    value = site.ask("secret_value", spec.uuid)
    for shown in (str(refused.value), repr(spec), repr(value), caplog.text):
        assert "s3cret" not in shown


# --- running ---------------------------------------------------------------------------------------------


def test_a_domain_is_started_resumed_and_destroyed(site: Site) -> None:
    disk = site.make("disk")
    xml = machine_xml(disk)
    machine = read(xml).uuid
    site.ask("define", xml)
    for method in ("resume", "suspend"):
        with pytest.raises(Refused):
            site.ask(method, machine)
    site.ask("start_paused", machine)
    assert site.known(machine).state is PowerState.PAUSED
    assert read(site.known(machine).live_xml or "").disks[0].path == disk.path
    for refused in (
        ("start_paused", machine),
        ("undefine", machine),
        ("grow_volume", site.pool, "disk", 64 * MIB),
        ("delete_volume", site.pool, "disk"),
    ):
        with pytest.raises(Refused):
            site.ask(*refused)
    for _ in range(2):
        site.ask("resume", machine)
        assert site.known(machine).state is PowerState.RUNNING
    for _ in range(2):
        site.ask("suspend", machine)
        assert site.known(machine).state is PowerState.PAUSED
    site.ask("resume", machine)
    site.ask("shutdown", machine)
    for _ in range(2):
        site.ask("destroy", machine)
        assert site.known(machine).state is PowerState.SHUTOFF
    site.ask("shutdown", machine)
    assert site.known(machine).live_xml is None


def test_an_image_in_use_and_a_missing_bridge_refuse_a_start(site: Site) -> None:
    disk = site.make("disk", 16, "qcow2")
    first, second = machine_xml(disk), machine_xml(disk, name="second")
    nic = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='nowhere9'/></interface>"
    lost = machine_xml(name="lost", devices=nic)
    for xml in (first, second, lost):
        site.ask("define", xml)
    site.ask("start_paused", read(first).uuid)
    for xml in (second, lost):
        with pytest.raises(Refused):
            site.ask("start_paused", read(xml).uuid)
        assert site.known(read(xml).uuid).state is PowerState.SHUTOFF


def test_a_retired_definition_does_not_start(site: Site) -> None:
    xml = machine_xml(site.make("disk"))
    machine = read(xml).uuid
    site.ask("define", xml)
    whole = site.known(machine).inactive_xml
    mark = Mark(str(uuid.uuid4()), 2, "retired")
    site.ask("define", retired(whole, mark))
    assert read(site.known(machine).inactive_xml).mark == mark
    with pytest.raises(Refused):
        site.ask("start_paused", machine)
    assert site.known(machine).state is PowerState.SHUTOFF
    site.ask("define", restored(site.known(machine).inactive_xml))
    assert difference(whole, site.known(machine).inactive_xml) is None
    assert read(site.known(machine).inactive_xml).mark is None
    site.ask("start_paused", machine)


# --- carriers and transfers ------------------------------------------------------------------------------


def test_a_carrier_runs_under_the_identity_of_a_defined_domain(site: Site) -> None:
    disk = site.make("disk")
    xml = machine_xml(disk, devices="<graphics type='vnc' port='-1' autoport='yes'/>")
    machine = read(xml).uuid
    site.ask("define", retired(xml, Mark("m-contract", 2, "retired")))
    before = site.known(machine).inactive_xml
    site.ask("start_carrier", carrier_xml(xml, disk))
    found = site.known(machine)
    assert (found.state, found.persistent) == (PowerState.PAUSED, True)
    assert found.inactive_xml == before
    live = read(found.live_xml or "")
    assert (live.mark, live.memory_mb, live.vcpus) == (CARRIER, 32, 1)
    assert "graphics" not in (found.live_xml or "")
    for method, argument in (("start_carrier", carrier_xml(xml, disk)), ("start_paused", machine)):
        with pytest.raises(Exists):
            site.ask(method, argument)
    site.ask("destroy", machine)
    found = site.known(machine)
    assert (found.state, found.inactive_xml) == (PowerState.SHUTOFF, before)


def test_a_carrier_without_a_definition_vanishes(site: Site) -> None:
    disk = site.make("disk")
    xml = machine_xml(disk)
    machine = read(xml).uuid
    site.ask("start_carrier", carrier_xml(xml, disk))
    found = site.known(machine)
    assert not found.persistent
    assert read(found.inactive_xml).mark == read(found.live_xml or "").mark == CARRIER
    site.ask("destroy", machine)
    assert site.domain(machine) is None
    site.ask("delete_volume", site.pool, "disk")
    with pytest.raises(Refused):
        site.ask("start_carrier", carrier_xml(xml, disk))
    assert site.domain(machine) is None


def test_a_transfer_moves_a_carrier(fleet: Fleet) -> None:
    here = (fleet.here.make("root", 64, "qcow2"), fleet.here.make("data", 32))
    there = (fleet.there.make("root-2", 64, "qcow2"), fleet.there.make("data-2", 32))
    xml = machine_xml(*here)
    machine = read(xml).uuid
    for site in (fleet.here, fleet.there):
        site.ask("define", retired(xml, Mark("m-contract", 2, "retired")))
    defined = fleet.there.known(machine).inactive_xml
    fleet.here.ask("start_carrier", carrier_xml(xml, *here))
    watch = fleet.transfer(machine, carrier_xml(xml, *there))
    until(watch.ended)
    assert watch.error() is None
    assert fleet.here.known(machine).state is PowerState.SHUTOFF
    arrived = fleet.there.known(machine)
    assert (arrived.state, arrived.incoming, arrived.job_running) == (PowerState.PAUSED, False, False)
    live = read(arrived.live_xml or "")
    assert live.mark == CARRIER
    assert [disk.path for disk in live.disks] == [volume.path for volume in there]
    fleet.there.ask("destroy", machine)
    assert fleet.there.known(machine).inactive_xml == defined


@pytest.mark.parametrize("killed", ["source", "destination"])
def test_a_transfer_ends_with_either_carrier(fleet: Fleet, killed: str) -> None:
    here, there = fleet.here.make("root", 256), fleet.there.make("root", 256)
    xml = machine_xml(here)
    machine = read(xml).uuid
    fleet.here.ask("start_carrier", carrier_xml(xml, here))
    watch = fleet.transfer(machine, carrier_xml(xml, there), slow=True)
    until(lambda: fleet.there.domain(machine))
    with pytest.raises(Refused):
        fleet.there.ask("resume", machine)
    until(lambda: fleet.here.known(machine).bytes_total)
    sending, receiving = fleet.here.known(machine), fleet.there.known(machine)
    assert sending.job_running
    assert sending.bytes_done <= sending.bytes_total == here.capacity
    assert (receiving.incoming, receiving.job_running) == (True, False)
    if killed == "source":
        fleet.here.ask("destroy", machine)
        until(lambda: fleet.there.domain(machine) is None)
        assert fleet.here.domain(machine) is None
    else:
        fleet.there.ask("destroy", machine)
        until(lambda: not fleet.here.known(machine).job_running)
        assert fleet.here.known(machine).state is PowerState.PAUSED
        assert fleet.there.domain(machine) is None
    until(watch.ended)
    assert watch.error() is not None


def test_a_transfer_into_another_size_is_refused(fleet: Fleet) -> None:
    here, there = fleet.here.make("root", 16), fleet.there.make("root", 32)
    xml = machine_xml(here)
    machine = read(xml).uuid
    fleet.here.ask("start_carrier", carrier_xml(xml, here))
    watch = fleet.transfer(machine, carrier_xml(xml, there))
    until(watch.ended)
    assert isinstance(watch.error(), DriverError)
    assert fleet.here.known(machine).state is PowerState.PAUSED
    assert not fleet.here.known(machine).job_running
    until(lambda: fleet.there.domain(machine) is None)


def test_a_stream_copies_a_volume(fleet: Fleet) -> None:
    fleet.here.make("root", 16)
    fleet.there.make("copy", 16)
    target = StreamTarget(fleet.there.uri, fleet.there.pool, "copy")
    watch = fleet.here.connection.watch("stream", (fleet.here.pool, "root", target))
    until(watch.ended)
    assert watch.error() is None
    segments = watch.news(0)
    assert sum(segment.length for segment in segments) == 16 * MIB
    assert all(len(segment.sha256) == 2 * hashlib.sha256().digest_size for segment in segments)


# --- merges ----------------------------------------------------------------------------------------------


def test_an_overlay_is_merged_into_its_base(site: Site) -> None:
    base = site.make("base", 16)
    overlay = site.make("overlay", 32, "qcow2", over=base)
    xml = machine_xml(overlay)
    machine = read(xml).uuid
    site.ask("define", xml)
    with pytest.raises(Refused):
        site.ask("start_merge", machine, "vda", 0)
    site.ask("start_paused", machine)
    assert site.ask("merge", machine, "vda") is None
    for device, method in (("vda", "pivot_merge"), ("vdz", "start_merge")):
        with pytest.raises(Missing):
            site.ask(method, machine, device, *((0,) if method == "start_merge" else ()))
    site.ask("start_merge", machine, "vda", 0)
    with pytest.raises(Exists):
        site.ask("start_merge", machine, "vda", 0)
    assert site.known(machine).merging == {"vda"}
    until(lambda: site.ask("merge", machine, "vda").ready)
    site.ask("pivot_merge", machine, "vda")
    found = site.known(machine)
    assert found.merging == frozenset()
    for definition in (found.live_xml or "", found.inactive_xml):
        disk = read(definition).disks[0]
        assert (disk.path, disk.format) == (base.path, "raw")
    assert site.ask("volume", site.pool, "base").capacity == 32 * MIB
    site.ask("destroy", machine)
    site.ask("delete_volume", site.pool, "overlay")


def test_a_disk_without_a_backing_file_has_nothing_to_merge(site: Site) -> None:
    xml = machine_xml(site.make("disk", 16, "qcow2"))
    machine = read(xml).uuid
    site.ask("define", xml)
    site.ask("start_paused", machine)
    with pytest.raises(Refused):
        site.ask("start_merge", machine, "vda", 0)
    assert site.ask("merge", machine, "vda") is None


# --- hosts that fail -------------------------------------------------------------------------------------


@pytest.fixture
def fragile(site: Site) -> Iterator[Site]:
    """A host whose daemon runs again afterwards, whatever was done to it."""
    yield site
    site.daemon.start()


def test_what_a_hung_daemon_was_sent_is_done_when_it_wakes_up(fragile: Site) -> None:
    """A call that needs an answer before its effect is never sent whole: only what came in one piece arrives late."""
    xml = machine_xml(fragile.make("disk"))
    fragile.daemon.hang()
    with pytest.raises(Unknown):
        fragile.ask("define", xml, timeout=1)
    with pytest.raises(Unreachable):
        fragile.ask("facts")
    with pytest.raises(Unreachable):
        fragile.connection.open(0.5)
    fragile.daemon.wake()
    fragile.connection.open(30)
    until(lambda: fragile.domain(read(xml).uuid) is not None)


def test_a_killed_daemon_is_told_and_is_reached_again_when_it_is_back(fragile: Site) -> None:
    xml = machine_xml(fragile.make("disk"))
    machine = read(xml).uuid
    fragile.ask("define", xml)
    fragile.ask("start_paused", machine)
    fragile.daemon.kill()
    with pytest.raises((Unknown, Unreachable)):
        fragile.ask("destroy", machine)
    with pytest.raises(Unreachable):
        fragile.connection.open(5)
    with pytest.raises(Unreachable):
        fragile.ask("facts")
    fragile.daemon.start()
    fragile.connection.open(30)
    assert fragile.known(machine).state is PowerState.PAUSED


def test_a_secret_survives_the_daemon_s_end(fragile: Site) -> None:
    spec = secret()
    fragile.ask("define_secret", spec)
    fragile.daemon.kill()
    fragile.daemon.start()
    fragile.connection.open(30)
    assert fragile.ask("secrets") == (SecretFacts(spec.uuid, "ceph", "m-contract"),)
    assert fragile.ask("secret_value", spec.uuid) == spec.secret


def test_a_transfer_to_a_host_that_is_away_is_refused(fleet: Fleet) -> None:
    here, there = fleet.here.make("disk"), fleet.there.make("disk")
    xml = machine_xml(here)
    machine = read(xml).uuid
    fleet.here.ask("define", xml)
    fleet.here.ask("start_carrier", carrier_xml(xml, here))
    fleet.there.daemon.kill()
    try:
        watch = fleet.transfer(machine, carrier_xml(xml, there))
        until(watch.ended)
    finally:
        fleet.there.daemon.start()
    assert isinstance(watch.error(), DriverError)
    left = fleet.here.known(machine)
    assert (left.state, left.job_running) == (PowerState.PAUSED, False)
