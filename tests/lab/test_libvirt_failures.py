"""The libvirt driver when hosts, workers or time fail it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from lab.system import run, wait_until
from resizeflow.drivers.hypervisor import PowerState
from resizeflow.drivers.interface import DriverError, Refused, Unknown, Unreachable
from resizeflow.drivers.libvirt.client import LibvirtConnection
from tests.lab.driven import REPOSITORY, Driven, child_pid, definition, fence, is_alive

pytest_plugins = ["tests.lab.driven_hosts"]
pytestmark = pytest.mark.lab


def test_an_act_that_comes_too_late_is_refused(one: Driven) -> None:
    identity = str(uuid.uuid4())
    connection = one.connection
    connection.open(10)
    with pytest.raises(Refused, match="too late"):
        connection.call("define", (definition(identity),), timeout=5, fence=fence(-0.1))
    assert one.domain(identity) is None
    connection.call("define", (definition(identity),), timeout=5, fence=fence(5))
    assert one.domain(identity) is not None


@pytest.mark.parametrize(
    "uri",
    ["qemu+unix:///system?socket=/none", "none:///system", "qemu+ssh://127.0.0.1:9/system", "not a uri"],
)
def test_a_wrong_uri_is_told_long_before_the_deadline(uri: str) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match="cannot connect"):
        LibvirtConnection(uri).open(60)
    assert time.monotonic() - began < 30


def test_a_hung_host_costs_no_more_than_the_deadline(hung: Driven) -> None:
    connection = hung.connection
    pid = child_pid(connection)
    began = time.monotonic()
    with pytest.raises(Unknown, match="within 1 s"):
        connection.call("facts", (), timeout=1)
    assert not is_alive(pid)
    with pytest.raises(Unreachable, match="did not answer within 1 s"):
        connection.open(1)
    with pytest.raises(Unreachable, match="not connected"):
        connection.call("facts", (), timeout=1)
    assert time.monotonic() - began < 20
    hung.host.unhang_libvirtd()
    connection.open(10)
    connection.call("facts", (), timeout=30)


def test_a_hung_host_is_noticed_before_a_long_deadline(hung: Driven) -> None:
    began = time.monotonic()
    with pytest.raises(Unknown, match="keepalive"):
        hung.connection.call("facts", (), timeout=90)
    assert time.monotonic() - began < 45


def test_an_act_given_to_a_hung_host_happens_when_it_wakes_up(hung: Driven) -> None:
    """Not what one would wish, but what every caller has to expect of `Unknown`."""
    identity = str(uuid.uuid4())
    with pytest.raises(Unknown):
        hung.connection.call("define", (definition(identity),), timeout=1)
    hung.host.unhang_libvirtd()
    assert wait_until(lambda: hung.domain(identity) is not None, 60)


def test_the_turn_counts_toward_the_deadline(hung: Driven) -> None:
    connection = hung.connection

    def long_call() -> None:
        with pytest.raises(Unknown):
            connection.call("facts", (), timeout=3)

    other = threading.Thread(target=long_call)
    other.start()
    assert wait_until(connection._turn.locked, 30)
    with pytest.raises(Unreachable, match="busy"):
        connection.call("facts", (), timeout=0.5)
    assert other.is_alive(), "it was waited for"
    other.join()


def test_a_daemon_killed_in_the_middle_of_a_call_leaves_it_unknown(one: Driven) -> None:
    identity = str(uuid.uuid4())
    one("define", definition(identity))
    one("start_paused", identity)
    # A QEMU that is stopped does not end when it is asked to: the call lasts.
    (machine,) = one.host.qemu_pids()
    os.kill(machine, signal.SIGSTOP)

    def kill_libvirtd() -> None:
        if wait_until(lambda: is_asked_to_end(machine), 15):
            one.host.kill_libvirtd()

    killer = threading.Thread(target=kill_libvirtd)
    killer.start()
    with pytest.raises(Unknown, match="connection"):
        one.connection.call("destroy", (identity,), timeout=60)
    killer.join()
    os.kill(machine, signal.SIGCONT)
    with pytest.raises(Unreachable, match="not connected"):
        one.connection.call("facts", (), timeout=5)
    with pytest.raises(Unreachable, match="cannot connect"):
        one.connection.open(5)
    one.host.start_libvirtd()
    one("destroy", identity)
    assert one.state(identity) is PowerState.SHUTOFF


def is_asked_to_end(pid: int) -> bool:
    """Whether a process that is stopped has been sent SIGTERM."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["ShdPnd"], 16) >> signal.SIGTERM - 1 & 1)


def test_a_connection_lost_between_calls_is_told_and_not_made_anew(one: Driven) -> None:
    pid = child_pid(one.connection)
    one.host.kill_libvirtd()
    assert wait_until(lambda: not is_alive(pid), 60)
    one.host.start_libvirtd()
    with pytest.raises(Unreachable):
        one.connection.call("facts", (), timeout=5)
    one.connection.open(10)
    one.connection.call("facts", (), timeout=30)


def test_a_stopped_child_is_dropped_by_the_host_and_does_nothing_when_it_goes_on(one: Driven) -> None:
    identity = str(uuid.uuid4())
    one.connection.open(10)
    pid = child_pid(one.connection)
    assert has_connection(pid)
    os.kill(pid, signal.SIGSTOP)
    failed: list[DriverError] = []

    def late_call() -> None:
        try:
            one.connection.call("define", (definition(identity),), timeout=30)
        except DriverError as error:
            failed.append(error)

    caller = threading.Thread(target=late_call)
    caller.start()
    assert wait_until(lambda: not has_connection(pid), 60), "the lab's libvirtd drops a silent client after 3 s"
    os.kill(pid, signal.SIGCONT)
    caller.join()
    assert [type(error) for error in failed] == [Unknown]
    assert one.domain(identity) is None


def has_connection(pid: int) -> bool:
    """Whether a libvirtd still holds the other end of one of a process's sockets."""
    own = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for line in run(["ss", "-xHn"]).splitlines() if "/libvirt-sock " in line]
    return any(f"socket:[{line[-1]}]" in own for line in lines)


def test_a_child_goes_with_its_worker_even_in_the_middle_of_a_call(hung: Driven) -> None:
    hung.host.unhang_libvirtd()
    script = (
        "from resizeflow.drivers.libvirt.client import LibvirtConnection\n"
        f"connection = LibvirtConnection({hung.host.uri!r}); connection.open(10)\n"
        "print(connection._child.pid, flush=True); input()\n"
        "connection.call('facts', (), timeout=60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        pid = int(worker.stdout.readline())
        hung.host.hang_libvirtd()
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        time.sleep(0.5)
        assert is_alive(pid)
        worker.kill()
    assert wait_until(lambda: not is_alive(pid), 30)


def test_a_watch_of_a_hung_host_ends(hung: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resizeflow.drivers.libvirt.watch._CONNECT_TIMEOUT", 1.0)
    watch = hung.connection.watch("transfer", (str(uuid.uuid4()), "", "", "", 0))
    assert wait_until(watch.ended, 60)
    assert isinstance(watch.error(), Unreachable)
