"""A real Neutron of its own: it ends with its owner, keeps what it knew, and tells what Nova wants to know."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lab.neutron import Neutron
from lab.processes import alive
from lab.system import wait_until
from resizeflow.chaos.cloud import Cloud
from resizeflow.clock import Clock
from resizeflow.event_receiver import Receiver
from resizeflow.persistence.models import ServerEvent

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
OWNER = """
import sys
from lab.neutron import Neutron
neutron = Neutron()
neutron.start()
print(neutron.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    """A machine that is known to a worker."""
    return Cloud(memory_path).build()


@pytest.fixture
def receiver(cloud: Cloud) -> Iterator[Receiver]:
    """As a worker listens."""
    receiver = Receiver(cloud.database, "127.0.0.1:0", Clock())
    receiver.open()
    yield receiver
    receiver.close()


def test_it_ends_with_its_owner() -> None:
    """Also if that is killed: server, folder, and who held them."""
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        (server,) = writing_to(folder / "output")
        owner.kill()
    assert wait_until(lambda: not alive(server) and not folder.exists(), timeout=60)


def writing_to(file: Path) -> list[int]:
    """The processes that print to a file."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):
            if path.readlink() == file:
                found.append(int(path.parts[2]))
    return found


def test_it_keeps_what_it_knew(cloud: Cloud) -> None:
    with Neutron() as neutron:
        neutron.add_agents("h1", "h2")
        port = neutron.create_port(neutron.create_network(), cloud.uuid, "h1")
        neutron.plug(port, "h1")
        for end in (neutron.kill, neutron.stop):
            end()
            neutron.start()
            found = neutron.client().network.get_port(port)
            assert (found.status, found.binding_host_id, found.binding_vif_type) == ("ACTIVE", "h1", "ovs")


def test_it_tells_a_worker_what_it_tells_nova(cloud: Cloud, receiver: Receiver) -> None:
    """That a port is plugged in, by the address that its section `[nova]` has."""
    with Neutron(events=receiver.url) as neutron:
        neutron.add_agents("h1", "h2")
        port = neutron.create_port(neutron.create_network(), cloud.uuid, "h1")
        neutron.plug(port, "h1")
        assert wait_until(lambda: ("network-vif-plugged", port, "completed") in told(cloud), timeout=60)


def told(cloud: Cloud) -> list[tuple[str, str, str]]:
    with cloud.database.read() as tx:
        return [(row.name, row.tag, row.status) for row in tx.session.scalars(sa.select(ServerEvent))]
