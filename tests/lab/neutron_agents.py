"""Open vSwitch agents of simulated hosts: a process that follows what runs on the hosts, and tells a real Neutron.

An agent that lives plugs a port in when a machine with it is on its host, paused or running, and the port is bound to
that host; when the machine is gone, the port is down. A process of its own, because tests fork.
"""

from __future__ import annotations

import contextlib
import re
import select
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.neutron import ALIVE, Neutron
from lab.system import TIED

EVERY = 0.03
"""Seconds between two looks."""
PATIENCE = 2.0
"""Seconds for which Neutron is waited for."""
PORT = re.compile(r"""interfaceid=["']([^"']+)["']""")
BOUND = """SELECT p.id, p.status, b.host, a.heartbeat_timestamp >= ? FROM ports p
    JOIN ml2_port_bindings b ON b.port_id = p.id AND b.status = 'ACTIVE' JOIN agents a ON a.host = b.host
    WHERE p.network_id = ?"""


class Agents:
    """The agents of a simulated world's hosts, for the ports of a network, from `with` to its end. `still` keeps them
    from looking."""

    def __init__(self, world: Path, neutron: Neutron, network: str) -> None:
        facts = (str(world), str(neutron.database), neutron.endpoint, network)
        self._command = [*TIED, sys.executable, "-m", __name__, *facts]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """They have no file open, and tell nothing."""
        self._say("wait")
        try:
            yield
        finally:
            self._say("go")

    def _say(self, word: str) -> None:
        if self._process.stdin is None or self._process.stdout is None:
            raise LookupError("the agents have no pipes")
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()


def follow(world: Path, neutron: Path, endpoint: str, network: str) -> None:
    """Until the end of the input, which says when to wait and when to go on."""
    while True:
        if select.select([sys.stdin], [], [], EVERY)[0]:
            for word in iter(sys.stdin.readline, ""):
                print(word, end="", flush=True)
                if word == "go\n":
                    break
            else:
                return
        with contextlib.suppress(OSError, sqlite3.Error):
            tell_all(world, neutron, endpoint, network)


def tell_all(world: Path, neutron: Path, endpoint: str, network: str) -> None:
    """What is otherwise than Neutron has it."""
    with contextlib.closing(sqlite3.connect(world)) as hosts:
        live = hosts.execute("SELECT host, live_xml FROM domains WHERE live_xml IS NOT NULL").fetchall()
    here = {(host, port) for host, xml in live for port in PORT.findall(xml)}
    with contextlib.closing(sqlite3.connect(neutron)) as database:
        bound = database.execute(BOUND, (ALIVE, network)).fetchall()
    for port, status, host, alive in bound:
        if alive and ((host, port) in here) != (status == "ACTIVE"):
            state = "up" if (host, port) in here else "down"
            url = f"{endpoint}/agents/{host}/ports/{port}/{state}"
            urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=PATIENCE).close()  # noqa: S310


if __name__ == "__main__":
    follow(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
