"""The simulated world itself: that it is durable, shared, faulty on demand, and tells what data arrived."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resizeflow.drivers import connect
from resizeflow.drivers.definition import Mark, Placement, carrier, read, resized, retired
from resizeflow.drivers.hypervisor import PowerState, StreamSegment, StreamTarget, VolumeSpec
from resizeflow.drivers.interface import Connection, DriverError, Exists, Fence, Refused, Unknown, Unreachable
from resizeflow.drivers.simulator import ALWAYS, Cause, Fault, SimulatedConnection, SimulatedWorld
from resizeflow.drivers.simulator.world import POOL

GIB = 2**30
PATIENCE = 60.0
"""Seconds that a slow machine gets for what takes a moment."""
NOBODY = "00000000-0000-4000-8000-000000000000"
CARRIER = Mark("m-1", 4, "carrier")


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    world = SimulatedWorld(tmp_path / "world.db").create()
    world.add_host("h1", bridges=["br0"])
    world.add_host("h2", bridges=["br0"])
    return world


def host(world: SimulatedWorld, name: str) -> Connection:
    connection = connect(world.uri(name))
    connection.open(1)
    return connection


def fence(seconds: float = 60, epoch: int = 1) -> Fence:
    return Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, "j-1", epoch)


def ask(connection: Connection, method: str, *args: Any, fence: Fence | None = None) -> Any:
    return connection.call(method, args, timeout=5, fence=fence)


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


def off_guest(world: SimulatedWorld, disks: dict[str, int] | None = None) -> str:
    return world.create_guest("h1", "shop", 2, 1024, disks or {"vda": 1, "vdb": 2}, running=False)


def begin_transfer(world: SimulatedWorld, uuid: str) -> tuple[Connection, Connection, str]:
    """A carrier on h1, volumes on h2, and the carrier's definition there."""
    h1, h2 = host(world, "h1"), host(world, "h2")
    machine = ask(h1, "domain", uuid).inactive_xml
    places = {disk.device: Placement(disk.path or "", disk.format) for disk in read(machine).disks}
    for disk in read(machine).disks:
        name = Path(disk.path or "").name
        source = ask(h1, "volume", POOL, name)
        ask(h2, "create_volume", POOL, VolumeSpec(name, source.capacity, disk.format))
    xml = carrier(machine, disks=places, mark=CARRIER)
    ask(h1, "start_carrier", xml)
    return h1, h2, xml


# --- the file --------------------------------------------------------------------------------------------


def test_addresses_that_are_none() -> None:
    for uri in ("sim:///x", "sim://?host=a", "qemu:///system", "sim:///x?host=a&host=b"):
        with pytest.raises(ValueError, match="sim:///FILE"):
            SimulatedConnection(uri)


def test_no_file_and_no_host_are_unreachable(world: SimulatedWorld, tmp_path: Path) -> None:
    for uri in (f"sim://{tmp_path}/none?host=h1", world.uri("h9")):
        with pytest.raises(Unreachable):
            connect(uri).open(1)


def test_a_world_is_not_made_twice(world: SimulatedWorld) -> None:
    with pytest.raises(sqlite3.OperationalError):
        SimulatedWorld(world.path).create()


def test_a_call_needs_an_open_connection_and_a_watch_is_not_called(world: SimulatedWorld) -> None:
    connection = connect(world.uri("h1"))
    with pytest.raises(Unreachable):
        ask(connection, "facts")
    connection.open(1)
    with pytest.raises(ValueError, match="watched"):
        ask(connection, "stream")
    with pytest.raises(ValueError, match="called"):
        connection.watch("facts", ())
    connection.close()
    with pytest.raises(Unreachable):
        ask(connection, "facts")


def grow_many(uri: str, name: str) -> None:
    connection = connect(uri)
    connection.open(1)
    for number in range(50):
        ask(connection, "create_volume", POOL, VolumeSpec(f"{name}-{number}", GIB, "raw"))


def test_several_processes_share_the_world(world: SimulatedWorld) -> None:
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=grow_many, args=(world.uri("h1"), f"w{n}")) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(ask(host(world, "h1"), "volumes", POOL)) == 200
    assert [effect.seq for effect in world.effects()] == list(range(1, 201))


# --- faults ----------------------------------------------------------------------------------------------


def test_a_host_that_is_down(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.set_up("h1", False)
    with pytest.raises(Unreachable):
        ask(h1, "facts")
    world.set_up("h1", True)
    with pytest.raises(Unreachable, match="not connected"):
        ask(h1, "facts")
    h1.open(1)
    assert ask(h1, "facts").hostname == "h1"


def test_a_refusal_once_and_always(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.fail("h1", "create_volume", "No space left on device")
    spec = VolumeSpec("a", GIB, "raw")
    with pytest.raises(Refused, match="No space left"):
        ask(h1, "create_volume", POOL, spec)
    ask(h1, "create_volume", POOL, spec)
    world.fail("h1", "delete_volume", "broken", times=ALWAYS)
    for _ in range(3):
        with pytest.raises(Refused, match="broken"):
            ask(h1, "delete_volume", POOL, "a")
    world.heal()
    ask(h1, "delete_volume", POOL, "a")


def test_a_lost_reply_has_its_effect_and_costs_the_connection(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.fail("h1", "create_volume", "no answer", fault=Fault.LOSE_REPLY)
    with pytest.raises(Unknown, match="no answer"):
        ask(h1, "create_volume", POOL, VolumeSpec("a", GIB, "raw"))
    with pytest.raises(Unreachable):
        ask(h1, "volume", POOL, "a")
    h1.open(1)
    assert ask(h1, "volume", POOL, "a").capacity == GIB


def test_a_call_that_never_arrived_looks_the_same_as_a_lost_reply(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.fail("h1", "create_volume", "broken pipe", times=2, fault=Fault.LOSE_CALL)
    for _ in range(2):
        with pytest.raises(Unknown, match="broken pipe"):
            ask(h1, "create_volume", POOL, VolumeSpec("a", GIB, "raw"))
        h1.open(1)
        assert ask(h1, "volume", POOL, "a") is None
    ask(h1, "create_volume", POOL, VolumeSpec("a", GIB, "raw"))


def test_a_connection_that_keepalive_has_dropped(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.fail(None, "create_volume", "keepalive", fault=Fault.UNREACHABLE)
    with pytest.raises(Unreachable, match="keepalive"):
        ask(h1, "create_volume", POOL, VolumeSpec("a", GIB, "raw"))
    with pytest.raises(Unreachable, match="not connected"):
        ask(h1, "facts")
    h1.open(1)
    assert world.effects() == ()
    ask(h1, "create_volume", POOL, VolumeSpec("a", GIB, "raw"))


def test_a_host_comes_back_after_so_many_attempts(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.set_up("h1", False, attempts=2)
    h1.close()
    for _ in range(2):
        with pytest.raises(Unreachable, match="down"):
            h1.open(1)
    h1.open(1)
    assert ask(h1, "facts").hostname == "h1"
    assert world.snapshot()["hosts"]["h1"]["up"]


def test_a_hung_host_does_what_it_was_sent_when_it_wakes_up(world: SimulatedWorld) -> None:
    first, second = host(world, "h1"), host(world, "h1")
    uuid = world.create_guest("h1", "a", 1, 256, {"vda": 1})
    world.hang("h1")
    with pytest.raises(Unknown):
        ask(first, "facts")
    with pytest.raises(Unknown):
        ask(second, "destroy", uuid, fence=fence(-1, epoch=7))
    for connection in (first, second):
        with pytest.raises(Unreachable, match="does not answer"):
            connection.open(1)
    assert world.running(uuid) == ("h1",)
    world.wake("h1")
    assert world.running(uuid) == ()
    assert [(e.method, e.epoch, e.caused) for e in world.effects()] == [("destroy", 7, Cause.LATE)]
    first.open(1)
    assert ask(first, "domain", uuid).state is PowerState.SHUTOFF


def test_a_host_that_hangs_at_a_call_has_done_it_before_it_answers_again(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.fault_at("TransferDisks.create_volume#1.checked", "hang:2")
    with pytest.raises(Unknown, match="no answer"):
        ask(h1, "create_volume", POOL, VolumeSpec("a", GIB, "raw"))
    for _ in range(2):
        with pytest.raises(Unreachable):
            h1.open(1)
    h1.open(1)
    assert ask(h1, "volume", POOL, "a").capacity == GIB


def test_what_hung_in_a_host_is_lost_with_its_power(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    world.hang("h1")
    with pytest.raises(Unknown):
        ask(h1, "create_volume", POOL, VolumeSpec("a", GIB, "raw"))
    world.crash("h1")
    world.set_up("h1", True)
    h1.open(1)
    assert ask(h1, "volumes", POOL) == ()


def test_disks_that_are_only_half_made(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    base = VolumeSpec("base", GIB, "qcow2")
    ask(h1, "create_volume", POOL, base)
    for method, arguments in (
        ("create_volume", (POOL, VolumeSpec("over", GIB, "qcow2", ask(h1, "volume", POOL, "base").path, "qcow2"))),
        ("grow_volume", (POOL, "base", 3 * GIB)),
    ):
        world.fail("h1", method, "killed", fault=Fault.HALF)
        with pytest.raises(Unknown, match="killed"):
            ask(h1, method, *arguments)
        h1.open(1)
    over, base = ask(h1, "volume", POOL, "over"), ask(h1, "volume", POOL, "base")
    assert (over.capacity, over.format, over.backing_path) == (0, "raw", None)
    assert base.capacity == 2 * GIB
    with pytest.raises(ValueError, match="half"):
        world.fail("h1", "destroy", fault=Fault.HALF)


def test_a_transfer_and_a_stream_that_die_in_the_middle(world: SimulatedWorld) -> None:
    uuid = off_guest(world)
    h1, h2, xml = begin_transfer(world, uuid)
    world.fail("h1", "transfer", fault=Fault.HALF)
    watch = h1.watch("transfer", (uuid, world.uri("h2"), "", xml, 0))
    until(watch.ended)
    assert isinstance(watch.error(), Refused)
    assert ask(h1, "domain", uuid).state is PowerState.PAUSED
    assert ask(h2, "domain", uuid) is None
    assert world.content("h2", "shop-vda.qcow2") == "made:shop-vda (partial)"
    ask(h1, "destroy", uuid)
    target = StreamTarget(world.uri("h2"), POOL, "shop-vda.qcow2")
    world.fail(None, "stream", fault=Fault.HALF)
    done, error = streamed(h1, target)
    assert (done, type(error)) == ((), Unknown)
    assert world.content("h2", "shop-vda.qcow2").endswith("(half)")
    assert world.content("h1", "shop-vda.qcow2") == "made:shop-vda"
    _, error = streamed(h1, target)
    assert error is None
    assert world.content("h2", "shop-vda.qcow2") == "made:shop-vda"


def test_too_late_is_refused_and_an_old_epoch_is_not(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    uuid = off_guest(world)
    with pytest.raises(Refused, match="too late"):
        ask(h1, "set_autostart", uuid, True, fence=fence(-1))
    ask(h1, "set_autostart", uuid, True, fence=fence(epoch=9))
    ask(h1, "set_autostart", uuid, False, fence=fence(epoch=3))
    ask(h1, "set_autostart", uuid, True)
    assert [(e.method, e.job, e.epoch, e.caused) for e in world.effects()] == [
        ("set_autostart", "j-1", 9, Cause.CALL),
        ("set_autostart", "j-1", 3, Cause.CALL),
        ("set_autostart", None, None, Cause.CALL),
    ]


def test_what_ends_by_itself_is_logged_under_the_epoch_that_began_it(world: SimulatedWorld) -> None:
    guest = world.create_guest("h1", "a", 1, 256, {"vda": 1})
    ask(host(world, "h1"), "shutdown", guest, fence=fence(epoch=4))
    until(lambda: world.running(guest) == ())
    uuid = off_guest(world)
    h1, _, xml = begin_transfer(world, uuid)
    watch = h1.watch("transfer", (uuid, world.uri("h2"), "", xml, 0), fence=fence(epoch=5))
    until(watch.ended)
    assert [(e.host, e.method, e.epoch, e.caused) for e in world.effects() if e.job is not None] == [
        ("h1", "shutdown", 4, Cause.CALL),
        ("h1", "shutdown", 4, Cause.WORLD),
        ("h1", "transfer", 5, Cause.CALL),
        ("h1", "transfer", 5, Cause.WORLD),
    ]


def test_a_crashed_host_boots_what_has_autostart(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    kept = world.create_guest("h1", "kept", 1, 256, {"vda": 1})
    gone = world.create_guest("h1", "gone", 1, 256, {"vda": 1})
    fenced = world.create_guest("h1", "fenced", 1, 256, {"vda": 1})
    for uuid in (kept, fenced):
        ask(h1, "set_autostart", uuid, True)
    ask(h1, "define", retired(ask(h1, "definition_with_secrets", fenced), Mark("m-1", 1, "retired")))
    world.crash("h1")
    assert world.running(kept) == ()
    world.set_up("h1", True)
    assert [world.running(uuid) for uuid in (kept, gone, fenced)] == [("h1",), (), ()]
    assert world.content("h1", "kept-vda.qcow2") == "made:kept-vda run:h1 run:h1"


def test_a_broken_file_is_an_unknown_answer(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    with sqlite3.connect(world.path) as db:
        db.execute("DROP TABLE volumes")
    with pytest.raises(Unknown):
        ask(h1, "volumes", POOL)


# --- machines and their data -----------------------------------------------------------------------------


def test_a_guest_that_listens_goes_off_and_a_deaf_one_does_not(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    listening = world.create_guest("h1", "a", 1, 256, {"vda": 1})
    deaf = world.create_guest("h1", "b", 1, 256, {"vda": 1}, listens=False)
    for uuid in (listening, deaf):
        ask(h1, "shutdown", uuid)
    until(lambda: ask(h1, "domain", listening).state is PowerState.SHUTOFF)
    assert ask(h1, "domain", deaf).state is PowerState.RUNNING


def test_a_machine_with_more_than_disks(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    uuid = world.create_guest(
        "h1", "shop", 1, 256, {}, running=False, uuid=NOBODY, devices="<hostdev mode='subsystem' type='pci'/>"
    )
    world.set_domain("h1", uuid, snapshots=2, managed_save=True)
    found = ask(h1, "domain", NOBODY)
    assert (found.snapshots, found.managed_save) == (2, True)
    assert read(found.inactive_xml).host_devices == 1
    for method in ("start_paused", "undefine"):
        with pytest.raises(Refused, match="save"):
            ask(h1, method, uuid)


def test_an_image_in_use_is_locked_on_all_hosts_of_a_storage(world: SimulatedWorld) -> None:
    world.add_host("n1", storage="nfs")
    world.add_host("n2", storage="nfs")
    uuid = world.create_guest("n1", "shop", 1, 256, {"vda": 1})
    n1, n2 = host(world, "n1"), host(world, "n2")
    machine = ask(n1, "definition_with_secrets", uuid)
    ask(n2, "define", machine)
    with pytest.raises(Refused, match="lock"):
        ask(n2, "start_paused", uuid)
    overlay = VolumeSpec("over", GIB, "qcow2", read(machine).disks[0].path, "qcow2")
    ask(n2, "create_volume", POOL, overlay)
    path = ask(n2, "volume", POOL, "over").path
    ask(n2, "define", machine.replace(read(machine).disks[0].path or "", path))
    with pytest.raises(Refused, match="lock"):
        ask(n2, "start_paused", uuid)
    ask(n1, "destroy", uuid)
    ask(n2, "start_paused", uuid)


def test_what_a_guest_writes_goes_to_its_overlay_and_a_merge_brings_it_down(world: SimulatedWorld) -> None:
    h1 = host(world, "h1")
    uuid = off_guest(world, {"vda": 1})
    machine = ask(h1, "definition_with_secrets", uuid)
    base = read(machine).disks[0].path or ""
    ask(h1, "create_volume", POOL, VolumeSpec("over", 3 * GIB, "qcow2", base, "qcow2"))
    assert world.content("h1", "over") == "made:shop-vda"
    place = Placement(ask(h1, "volume", POOL, "over").path, "qcow2")
    mark = Mark("m-1", 1, "destination")
    ask(h1, "define", resized(machine, vcpus=4, memory_mb=2048, disks={"vda": place}, mark=mark))
    ask(h1, "start_paused", uuid)
    ask(h1, "resume", uuid)
    ask(h1, "resume", uuid)
    assert world.content("h1", "over") == "made:shop-vda run:h1"
    assert world.content("h1", "shop-vda.qcow2") == "made:shop-vda"
    ask(h1, "start_merge", uuid, "vda", 0)
    assert "(partial)" in world.content("h1", "shop-vda.qcow2")
    with pytest.raises(Exists):
        ask(h1, "start_merge", uuid, "vda", 0)
    until(lambda: ask(h1, "merge", uuid, "vda").ready)
    with pytest.raises(Refused, match="not paused"):
        ask(h1, "pivot_merge", uuid, "vda")
    ask(h1, "destroy", uuid)
    assert ask(h1, "merge", uuid, "vda") is None
    ask(h1, "start_paused", uuid)
    ask(h1, "start_merge", uuid, "vda", 0)
    until(lambda: ask(h1, "merge", uuid, "vda").ready)
    ask(h1, "pivot_merge", uuid, "vda")
    ask(h1, "delete_volume", POOL, "over")
    assert world.content("h1", "shop-vda.qcow2") == "made:shop-vda run:h1"
    assert ask(h1, "volume", POOL, "shop-vda.qcow2").capacity == 3 * GIB


# --- transfers -------------------------------------------------------------------------------------------


def test_a_transfer_brings_the_data_and_flattens_chains(world: SimulatedWorld) -> None:
    uuid = off_guest(world)
    h1, h2, xml = begin_transfer(world, uuid)
    watch = h1.watch("transfer", (uuid, world.uri("h2"), "", xml, 0))
    until(watch.ended)
    assert watch.error() is None
    there = ask(h2, "domain", uuid)
    assert (there.state, there.incoming, there.persistent) == (PowerState.PAUSED, False, False)
    assert read(there.live_xml).mark == CARRIER
    here = ask(h1, "domain", uuid)
    assert (here.state, here.persistent, here.live_xml) == (PowerState.SHUTOFF, True, None)
    assert world.content("h2", "shop-vdb.qcow2") == world.content("h1", "shop-vdb.qcow2") == "made:shop-vdb"
    ask(h2, "destroy", uuid)
    assert ask(h2, "domain", uuid) is None


def transfer_and_report(uri: str, uuid: str, peer: str, xml: str, ready: Any) -> None:
    watch = connect(uri).watch("transfer", (uuid, peer, "", xml, 0))
    connection = connect(uri)
    connection.open(1)
    until(lambda: bool(ask(connection, "domain", uuid).job_running))
    ready.set()
    until(watch.ended)


def test_a_transfer_goes_on_when_its_caller_is_killed(world: SimulatedWorld) -> None:
    world.set_speed(transfer_seconds=3600)
    uuid = off_guest(world)
    h1, h2, xml = begin_transfer(world, uuid)
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    caller = fork.Process(target=transfer_and_report, args=(world.uri("h1"), uuid, world.uri("h2"), xml, ready))
    caller.start()
    assert ready.wait(PATIENCE)
    os.kill(caller.pid or 0, signal.SIGKILL)
    caller.join()
    assert ask(h1, "domain", uuid).job_running
    assert ask(h2, "domain", uuid).incoming
    assert "transfers of" in world.snapshot()["jobs"][0]
    with pytest.raises(Refused, match="incoming"):
        ask(h2, "resume", uuid)
    again = h1.watch("transfer", (uuid, world.uri("h2"), "", xml, 0))
    until(again.ended)
    assert isinstance(again.error(), Refused)
    world.set_speed(transfer_seconds=0)
    until(lambda: not ask(h2, "domain", uuid).incoming)
    assert world.content("h2", "shop-vda.qcow2") == "made:shop-vda"


def test_a_transfer_whose_destination_crashes_leaves_the_source_paused(world: SimulatedWorld) -> None:
    world.set_speed(transfer_seconds=3600)
    uuid = off_guest(world)
    h1, h2, xml = begin_transfer(world, uuid)
    watch = h1.watch("transfer", (uuid, world.uri("h2"), "", xml, 0))
    until(lambda: bool(ask(h1, "domain", uuid).job_running))
    world.crash("h2")
    until(lambda: not ask(h1, "domain", uuid).job_running)
    assert ask(h1, "domain", uuid).state is PowerState.PAUSED
    until(watch.ended)
    assert isinstance(watch.error(), Unreachable)
    world.set_up("h2", True)
    h2.open(1)
    assert ask(h2, "domain", uuid) is None


def test_a_full_destination_ends_the_transfer(world: SimulatedWorld) -> None:
    uuid = off_guest(world)
    h1, h2, xml = begin_transfer(world, uuid)
    world.set_free_bytes("h2", 2**20)
    assert ask(h2, "pool", POOL).available == 2**20
    watch = h1.watch("transfer", (uuid, world.uri("h2"), "", xml, 0))
    until(watch.ended)
    assert isinstance(watch.error(), Refused)
    assert ask(h1, "domain", uuid).state is PowerState.PAUSED
    assert ask(h2, "domain", uuid) is None
    assert "(partial)" in world.content("h2", "shop-vda.qcow2")


def test_a_transfer_whose_start_was_not_answered_runs(world: SimulatedWorld) -> None:
    uuid = off_guest(world)
    h1, h2, xml = begin_transfer(world, uuid)
    world.fail("h1", "transfer", "no answer", fault=Fault.LOSE_REPLY)
    watch = h1.watch("transfer", (uuid, world.uri("h2"), "", xml, 0))
    until(watch.ended)
    assert isinstance(watch.error(), Unknown)
    until(lambda: not ask(h2, "domain", uuid).incoming)


# --- streams ---------------------------------------------------------------------------------------------


def streamed(h1: Connection, target: StreamTarget) -> tuple[tuple[StreamSegment, ...], DriverError | None]:
    watch = h1.watch("stream", (POOL, "shop-vda.qcow2", target))
    until(watch.ended)
    return watch.news(0), watch.error()


def test_a_stream_copies_and_goes_on_after_what_was_done(world: SimulatedWorld) -> None:
    off_guest(world)
    h1, h2 = host(world, "h1"), host(world, "h2")
    world.set_speed(transfer_seconds=1)
    ask(h2, "create_volume", POOL, VolumeSpec("copy", GIB, "qcow2"))
    first = h1.watch("stream", (POOL, "shop-vda.qcow2", StreamTarget(world.uri("h2"), POOL, "copy")))
    done = first.news(PATIENCE)
    first.stop()
    assert done
    world.set_speed(transfer_seconds=0.02)
    rest, error = streamed(h1, StreamTarget(world.uri("h2"), POOL, "copy", done))
    assert error is None
    assert [segment.offset for segment in done + rest] == [0, GIB // 4, GIB // 2, 3 * GIB // 4]
    assert world.content("h2", "copy") == "made:shop-vda"


def test_a_stream_that_leaves_out_what_is_not_there_is_noticed(world: SimulatedWorld) -> None:
    off_guest(world)
    h1, h2 = host(world, "h1"), host(world, "h2")
    ask(h2, "create_volume", POOL, VolumeSpec("copy", GIB, "qcow2"))
    done, error = streamed(h1, StreamTarget(world.uri("h2"), POOL, "copy"))
    assert error is None
    ask(h2, "delete_volume", POOL, "copy")
    ask(h2, "create_volume", POOL, VolumeSpec("copy", GIB, "qcow2"))
    _, error = streamed(h1, StreamTarget(world.uri("h2"), POOL, "copy", done[:2]))
    assert error is not None
    assert "differs" in str(error)


# --- what tests compare ----------------------------------------------------------------------------------


def test_a_snapshot_compares_worlds(world: SimulatedWorld) -> None:
    uuid = off_guest(world)
    h1 = host(world, "h1")
    before = world.snapshot()
    machine = ask(h1, "definition_with_secrets", uuid)
    ask(h1, "define", retired(machine, Mark("m-1", 1, "retired")))
    assert world.snapshot() != before
    ask(h1, "define", machine.replace("><", ">\n<"))
    assert world.snapshot() == before
    for method in ("start_paused", "resume", "suspend", "destroy"):
        ask(h1, method, uuid)
    assert world.snapshot() != before
    assert world.snapshot(contents=False)["hosts"] == before["hosts"]


def test_a_call_without_effect_is_not_logged(world: SimulatedWorld) -> None:
    uuid = world.create_guest("h1", "shop", 1, 256, {"vda": 1})
    h1 = host(world, "h1")
    for method in ("resume", "destroy", "destroy", "shutdown"):
        ask(h1, method, uuid)
    with pytest.raises(Refused):
        ask(h1, "resume", uuid)
    assert [(effect.method, effect.subject) for effect in world.effects()] == [("destroy", uuid)]
