"""The libvirt driver between real hosts: disks that move, directly and through the worker."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from lab.system import wait_until
from resizeflow.drivers.hypervisor import PowerState, StreamSegment, StreamTarget, VolumeSpec
from resizeflow.drivers.interface import DriverError, Missing, Refused
from resizeflow.drivers.libvirt.watch import LibvirtWatch
from tests.lab.driven import GIB, MIB, POOL, REPOSITORY, Driven, allocated, definition, is_alive, same, write

pytest_plugins = ["tests.lab.driven_hosts"]
pytestmark = pytest.mark.lab

# --- transfer --------------------------------------------------------------------------------------------


def carried(one: Driven, two: Driven, identity: str = "") -> tuple[str, tuple[Any, ...]]:
    """A carrier with two disks on the first host, and what to hand to `transfer` but its bandwidth."""
    identity = identity or str(uuid.uuid4())
    disks = (("a.qcow2", "qcow2"), ("b.raw", "raw"))
    for host in (one, two):
        for name, form in disks:
            host.create(name, 2 * GIB, form)
    write(one.path("a.qcow2"), "qcow2", "write -P 1 0 30M", "write -P 2 1500M 30M")
    write(one.path("b.raw"), "raw", "write -P 3 1000M 30M")
    here, there = (definition(identity, *((host.path(name), form) for name, form in disks)) for host in (one, two))
    one("start_carrier", here)
    return identity, (identity, two.host.peer_uri, f"tcp://{two.host.address}", there)


def assert_arrived(one: Driven, two: Driven, identity: str) -> None:
    """The carrier is at the destination, complete, with the same content and the same holes."""
    assert one.state(identity) in (None, PowerState.SHUTOFF)
    facts = two.domain(identity)
    assert facts is not None
    assert facts.live_xml is not None
    assert (facts.state, facts.incoming, facts.job_running) == (PowerState.PAUSED, False, False)
    assert 'migration="m1"' in facts.live_xml
    two("destroy", identity)
    for name in ("a.qcow2", "b.raw"):
        assert same(one.path(name), two.path(name))
        assert abs(allocated(one.path(name)) - allocated(two.path(name))) < 2 * MIB


@pytest.mark.parametrize("defined", [False, True])
def test_a_transfer_is_seen_at_both_ends_and_arrives(one: Driven, two: Driven, defined: bool) -> None:
    identity = str(uuid.uuid4())
    machine = definition(identity, (Path("/retired/a.qcow2"), "qcow2"), extra="<video/>")
    if defined:
        one("define", machine)
        two("define", machine)
    before = one.domain(identity), two.domain(identity)
    _, arguments = carried(one, two, identity)
    watch = one.connection.watch("transfer", (*arguments, 0))
    seen = []
    while not watch.ended():
        seen.append((one.domain(identity), two.domain(identity)))
    assert watch.error() is None
    both = [(a, b) for a, b in seen if a and b and a.job_running and b.state is PowerState.PAUSED]
    assert both
    assert not any(there.job_running or source.incoming for source, there in both)
    receives = [there.incoming for _, there in both]
    assert receives[0]
    assert receives == sorted(receives, reverse=True)  # the source may hear last that it is over
    done = [source.bytes_done for source, _ in both]
    assert done == sorted(done)
    assert 0 < done[-1] <= both[-1][0].bytes_total == 4 * GIB
    assert one.domain(identity) == before[0]
    assert_arrived(one, two, identity)
    assert two.domain(identity) == before[1]


def test_a_transfer_goes_on_when_its_worker_is_killed(one: Driven, two: Driven) -> None:
    identity, arguments = carried(one, two)
    script = (
        "import sys, time; from resizeflow.drivers.libvirt.client import LibvirtConnection\n"
        f"watch = LibvirtConnection({one.host.uri!r}).watch('transfer', {(*arguments, 400 * MIB)!r})\n"
        "print(watch._child.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())

        def sending() -> bool:
            facts = one.domain(identity)
            return facts is not None and facts.job_running

        assert wait_until(sending, 60, 0.01)
        worker.kill()
    assert wait_until(lambda: not is_alive(pid), 20)
    assert sending()
    assert wait_until(lambda: one.domain(identity) is None, 60)
    assert_arrived(one, two, identity)


def test_destroying_the_carrier_at_the_source_ends_a_transfer(one: Driven, two: Driven) -> None:
    identity, arguments = carried(one, two)
    watch = one.connection.watch("transfer", (*arguments, 20 * MIB))

    def receiving() -> bool:
        facts = two.domain(identity)
        return facts is not None and facts.incoming

    assert wait_until(receiving, 60)
    with pytest.raises(Refused, match="still being"):
        two("resume", identity)
    one("destroy", identity)
    assert wait_until(lambda: two.domain(identity) is None, 60)
    assert wait_until(watch.ended, 60)
    assert isinstance(watch.error(), DriverError)


# --- streams ---------------------------------------------------------------------------------------------


def streamed(watch: LibvirtWatch, enough: int | None = None) -> list[StreamSegment]:
    """The segments of a stream, to its end or until there are enough."""
    segments: list[StreamSegment] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (enough is None or len(segments) < enough):
        segments += watch.news(1)
        if watch.ended():
            segments += watch.news(0)
            break
    return segments


@pytest.mark.parametrize(("name", "form"), [("disk.raw", "raw"), ("disk.qcow2", "qcow2")])
def test_a_stream_copies_bytes_and_holes_and_goes_on_where_it_was(
    one: Driven, two: Driven, name: str, form: str
) -> None:
    for host in (one, two):
        host.create(name, 2 * GIB, form)
    write(
        one.path(name), form,
        "write -P 1 0 90M", "write -P 2 1500M 70M", "write -P 3 700M 3k", "write -P 0 710M 5M",
    )  # fmt: skip
    target = StreamTarget(two.host.uri, POOL, name, bandwidth=80 * MIB)
    watch = one.connection.watch("stream", (POOL, name, target))
    done = streamed(watch, enough=2)[:2]
    watch.stop()
    assert len(done) == 2
    assert not same(one.path(name), two.path(name))

    target = StreamTarget(two.host.uri, POOL, name, done=tuple(done))
    watch = one.connection.watch("stream", (POOL, name, target))
    rest = streamed(watch)
    assert watch.error() is None
    assert rest[0].offset == done[-1].offset + done[-1].length
    assert rest[-1].offset + rest[-1].length == one.path(name).stat().st_size
    assert one.path(name).stat().st_size == two.path(name).stat().st_size
    assert same(one.path(name), two.path(name), "-f", "raw", "-F", "raw")
    assert allocated(two.path(name)) <= allocated(one.path(name)) + MIB
    there = two.volume(name)
    assert there is not None
    assert (there.format, there.capacity) == (form, 2 * GIB)

    with two.path(name).open("r+b") as file:
        file.seek(64 * MIB + 5)
        file.write(b"!")
    target = StreamTarget(two.host.uri, POOL, name, done=(*done, *rest))
    watch = one.connection.watch("stream", (POOL, name, target))
    assert streamed(watch) == []
    assert "differs from its source between 67108864" in str(watch.error())


def test_what_cannot_be_streamed_is_refused(one: Driven, two: Driven) -> None:
    for host in (one, two):
        host.create("base", GIB, "qcow2")
    one("create_volume", POOL, VolumeSpec("over", GIB, "qcow2", str(one.path("base")), "qcow2"))
    two.create("used", GIB, "raw")
    two.create("gap", GIB, "raw")
    two("start_carrier", definition(str(uuid.uuid4()), (two.path("used"), "raw"), name="user"))
    gap = StreamSegment(MIB, MIB, "")
    for source, volume, done, why, error in (
        ("over", "base", (), "backing file", Refused),
        ("base", "none", (), "h2.*'none'", Missing),
        ("none", "base", (), "h1.*'none'", Missing),
        ("base", "used", (), "domain 'user'", Refused),
        ("base", "gap", (), "longer", Refused),
        ("base", "base", (gap,), "gap at 0", Refused),
    ):
        watch = one.connection.watch("stream", (POOL, source, StreamTarget(two.host.uri, POOL, volume, done=done)))
        assert streamed(watch) == []
        assert isinstance(watch.error(), error)
        assert watch.error() is not None
        with pytest.raises(error, match=why):
            raise watch.error() or AssertionError


def test_a_stream_goes_no_further_than_its_worker_takes_note(one: Driven, two: Driven) -> None:
    for host in (one, two):
        host.create("v", 8 * GIB, "raw")
    watch = one.connection.watch("stream", (POOL, "v", StreamTarget(two.host.uri, POOL, "v")))
    time.sleep(2)
    assert two.path("v").stat().st_size < GIB
    assert len(streamed(watch)) == 128
    assert watch.error() is None


def test_a_full_destination_ends_a_stream_and_a_transfer(one: Driven, two: Driven) -> None:
    small = two.path("small")
    small.mkdir()
    pid = two.host.libvirtd_pid()
    inside = ["nsenter", "-t", str(pid), "-m"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", "size=32m", "small", small], check=True)
    two.host.virsh("pool-create-as", "small", "dir", "--target", str(small))
    try:
        identity = str(uuid.uuid4())
        one.create("v", GIB, "raw")
        write(one.path("v"), "raw", "write -P 1 0 90M")
        two("create_volume", "small", VolumeSpec("v", GIB, "raw"))
        watch = one.connection.watch("stream", (POOL, "v", StreamTarget(two.host.uri, "small", "v")))
        streamed(watch)
        assert "No space left" in str(watch.error())
        two("delete_volume", "small", "v")

        two("create_volume", "small", VolumeSpec("v", GIB, "raw"))
        one("start_carrier", definition(identity, (one.path("v"), "raw")))
        there = definition(identity, (small / "v", "raw"))
        arguments = (identity, two.host.peer_uri, f"tcp://{two.host.address}", there, 0)
        watch = one.connection.watch("transfer", arguments)
        assert wait_until(watch.ended, 60)
        assert "No space left" in str(watch.error())
        facts = one.domain(identity)
        assert facts is not None
        assert (facts.state, facts.job_running) == (PowerState.PAUSED, False)
        assert two.domain(identity) is None
    finally:
        two.host.virsh("pool-destroy", "small")
        subprocess.run([*inside, "umount", small], check=True)
        small.rmdir()
