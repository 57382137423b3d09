"""A Cinder, simulated or real, as the contract's tests use it."""

from __future__ import annotations

import base64
import os
import sqlite3
import struct
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lab import Volumes
from resizeflow.drivers import connect
from resizeflow.drivers.interface import Fence
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.simulator import Fault, SimulatedWorld
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.drivers.volume import Attachment, VolumeConnection
from tests.contract.contract_sites import Daemon

HOLD = """
import rados, rbd, sys
cluster = rados.Rados(conffile=sys.argv[1], rados_id="cinder")
cluster.connect()
image = rbd.Image(cluster.open_ioctx("volumes"), "volume-" + sys.argv[2])
image.write(b"held", 0)
print("open", flush=True)
sys.stdin.read()
"""
"""Holds an image open as a QEMU does, until its input ends. Debian's python has the modules."""


def new_id() -> str:
    """One that nothing has."""
    return str(uuid.uuid4())


def connector(host: str) -> Mapping[str, Any]:
    """What is said of a host when a volume is connected to it."""
    return {
        "host": host,
        "ip": "198.51.100.11",
        "initiator": f"iqn.2026-11.dev.resizeflow:{host}",
        "multipath": False,
        "platform": "x86_64",
        "os_type": "linux",
        "do_local_attach": False,
    }


def another_key() -> Secret:
    """A key of Ceph's form that nobody has: its kind (AES), when it was made, its length, itself."""
    return Secret(struct.pack("<HIIH16s", 1, 0, 0, 16, os.urandom(16)))


class VolumeSite(ABC):
    """A Cinder and what is behind it."""

    def __init__(self, uri: str, daemon: Daemon) -> None:
        self.connection = connect(uri)
        self.daemon = daemon

    @abstractmethod
    def make(self, kind: str) -> str:
        """A new volume of a kind of connection; its id."""

    @abstractmethod
    def reserve_for_nobody(self, volume_id: str) -> None:
        """Leaves a volume as a Cinder that was killed in the middle of a create."""

    @abstractmethod
    def held_open(self, volume_id: str) -> Any:
        """A context in which a machine has an RBD volume attached and open."""

    @property
    @abstractmethod
    def key(self) -> Secret:
        """That of the Ceph user."""

    def ask(self, method: str, *args: Any, fence: Fence | None = None, timeout: float = 60) -> Any:
        """Calls a method of Cinder."""
        return self.connection.call(method, args, timeout=timeout, fence=fence)

    def status(self, volume_id: str) -> str:
        """Cinder's word for a volume's state."""
        return str(self.ask("cinder_volume", volume_id).status)

    def attached(self, volume_id: str, machine: str, host: str = "here") -> str:
        """A completed attachment; its id."""
        made: str = self.ask("create_attachment", volume_id, machine)
        self.ask("update_attachment", made, connector(host))
        self.ask("complete_attachment", made)
        return made

    def shown(self, attachment_id: str) -> Attachment:
        """An attachment that must be there."""
        found: Attachment | None = self.ask("attachment", attachment_id)
        assert found is not None
        return found

    def opening(self, volume_id: str) -> VolumeConnection:
        """How the one attachment of a volume is opened."""
        (only,) = self.ask("attachments", None, volume_id)
        found: VolumeConnection = self.ask("connection", only.id)
        return found


class SimulatedSite(VolumeSite):
    """The simulator's, with a host for machines."""

    HOST = "here"

    def __init__(self, folder: Path) -> None:
        self.world = SimulatedWorld(folder / "volumes.db").create()
        self.world.add_host(self.HOST)
        daemon = Daemon(
            partial(self.world.hang, CINDER),
            partial(self.world.wake, CINDER),
            partial(self.world.set_up, CINDER, False),
            partial(self.world.set_up, CINDER, True),
        )
        super().__init__(self.world.add_cinder(), daemon)

    def make(self, kind: str) -> str:
        if kind == "multi":
            return self.world.create_cinder_volume("rbd", multiattach=True)
        return self.world.create_cinder_volume(kind)

    def reserve_for_nobody(self, volume_id: str) -> None:
        self.world.fail(CINDER, "create_attachment", fault=Fault.HALF)
        self.swallowed("create_attachment", volume_id, new_id())

    @contextmanager
    def held_open(self, volume_id: str) -> Iterator[None]:
        machine = self.world.create_guest(self.HOST, f"m-{volume_id[:8]}", 1, 64, {"vda": 1})
        self.world.attach_volume(self.HOST, machine, volume_id, "vdb")
        yield
        self.host.call("destroy", (machine,), timeout=5)

    @property
    def key(self) -> Secret:
        (secret,) = (found for found in self.host.call("secrets", (), timeout=5) if found.kind == "ceph")
        value: Secret = self.host.call("secret_value", (secret.uuid,), timeout=5)
        return value

    @property
    def host(self) -> Any:
        """The way to the host."""
        connection = connect(self.world.uri(self.HOST))
        connection.open(5)
        return connection

    def swallowed(self, method: str, *args: Any) -> None:
        """A call to which nobody answers."""
        try:
            self.ask(method, *args)
        except Exception:
            self.connection.open(5)


class RealSite(VolumeSite):
    """Cinder, Ceph, iSCSI and NFS of a lab."""

    def __init__(self, folder: Path, volumes: Volumes) -> None:
        cinder = volumes.cinder
        self.volumes = volumes
        self.configuration = folder / "resizeflow.conf"
        self.configuration.write_text(
            f"[cinder]\nauth_type = noauth\nuser_id = admin\nproject_id = {'1' * 32}\nendpoint = {cinder.endpoint}\n"
        )
        super().__init__(
            f"cinder://{self.configuration}", Daemon(cinder.freeze, cinder.thaw, cinder.kill, cinder.start)
        )

    def make(self, kind: str) -> str:
        return self.volumes.cinder.create_volume(kind)

    def reserve_for_nobody(self, volume_id: str) -> None:
        with sqlite3.connect(self.volumes.cinder.database, timeout=20) as database:
            database.execute("UPDATE volumes SET status = 'reserved' WHERE id = ?", (volume_id,))

    @contextmanager
    def held_open(self, volume_id: str) -> Iterator[None]:
        self.attached(volume_id, new_id())
        command = ["/usr/bin/python3", "-c", HOLD, str(self.volumes.ceph.conf), volume_id]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            yield
            holder.kill()  # a watcher that dies is one for half a minute

    @property
    def key(self) -> Secret:
        return Secret(base64.b64decode(self.volumes.ceph.key()))
