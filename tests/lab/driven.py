"""A lab host with a driver, and what the tests of the libvirt driver do with images and definitions."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

from lab import Host
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts, VolumeSpec
from resizeflow.drivers.interface import Fence, Missing
from resizeflow.drivers.libvirt.client import LibvirtConnection

POOL = Host.pool
MIB = 1024**2
GIB = 1024**3
REPOSITORY = Path(__file__).parents[2]


class Driven:
    """A host of the lab and the driver's connection to it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.connection = LibvirtConnection(host.uri)
        self.connection.open(10)

    def __call__(self, method: str, *args: Any, timeout: float = 30) -> Any:
        """Calls a look or an act, on a new connection if a test has broken the last one."""
        self.connection.open(10)
        return self.connection.call(method, args, timeout=timeout)

    def path(self, volume: str) -> Path:
        """Where a volume of the pool lies."""
        return self.host.pool_path / volume

    def domain(self, identity: str) -> DomainFacts | None:
        """A domain by its UUID."""
        facts = self("domain", identity)
        assert facts is None or isinstance(facts, DomainFacts)
        return facts

    def state(self, identity: str) -> PowerState | None:
        """A domain's power state, None if there is no such domain."""
        facts = self.domain(identity)
        return facts.state if facts else None

    def volume(self, name: str) -> VolumeFacts | None:
        """A volume of the pool."""
        facts = self("volume", POOL, name)
        assert facts is None or isinstance(facts, VolumeFacts)
        return facts

    def create(self, name: str, capacity: int, form: str) -> None:
        """Makes a volume in the pool."""
        self("create_volume", POOL, VolumeSpec(name, capacity, form))

    def clean(self) -> None:
        """Removes every domain and every volume."""
        for facts in self("domains"):
            self("destroy", facts.uuid)
            with contextlib.suppress(Missing):
                self("undefine", facts.uuid)
        for file in self.host.pool_path.iterdir():
            file.unlink()
        assert self("volumes", POOL) == ()


def definition(identity: str, *disks: tuple[Path, str], extra: str = "", name: str = "") -> str:
    """A small machine."""
    devices = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file='{path}'/>"
        f"<target dev='vd{letter}' bus='virtio'/></disk>"
        for letter, (path, form) in zip("abc", disks, strict=False)
    )
    return (
        f"<domain type='qemu'><name>{name or 'm-' + identity[:8]}</name><uuid>{identity}</uuid>"
        f"<metadata><m:mark xmlns:m='urn:test' migration='m1'/></metadata><memory unit='MiB'>32</memory>"
        f"<vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}{extra}"
        f"<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )


def write(path: Path, form: str, *commands: str) -> None:
    """Writes patterns into an image."""
    run = ["qemu-io", "-f", form, str(path)]
    for command in commands:
        run += ["-c", command]
    subprocess.run(run, check=True, capture_output=True)


def same(left: Path, right: Path, *options: str) -> bool:
    """Whether two images show a guest the same content."""
    return subprocess.run(["qemu-img", "compare", *options, left, right], check=False).returncode == 0


def allocated(path: Path) -> int:
    """Bytes that a file takes."""
    return path.stat().st_blocks * 512


def fence(seconds: float) -> Fence:
    """One that lets effects begin for so long."""
    return Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, "j-driven", 1)


def child_pid(connection: LibvirtConnection) -> int:
    """The process behind a connection."""
    assert connection._child is not None
    return connection._child.pid


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
