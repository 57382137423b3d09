"""Two hosts that can reach each other, simulated or real, as the contract's tests use them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resizeflow.drivers import connect
from resizeflow.drivers.definition import Mark, Placement, carrier
from resizeflow.drivers.hypervisor import DomainFacts, SecretSpec, VolumeFacts, VolumeSpec
from resizeflow.drivers.interface import Connection, Fence, Watch

MIB = 2**20
CARRIER = Mark("m-contract", 3, "carrier")
MACHINE = "pc-q35-7.2"


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for a condition, or fails."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come about")
        time.sleep(0.01)


@dataclass(frozen=True)
class Daemon:
    """What can be done to a host's libvirtd, or its like."""

    hang: Callable[[], None]
    wake: Callable[[], None]
    kill: Callable[[], None]
    start: Callable[[], None]


@dataclass
class Site:
    """One host. What tests make there is swept away after each."""

    uri: str
    peer_uri: str
    """How the other host reaches it."""
    data_uri: str
    pool: str
    daemon: Daemon
    half_define: Callable[[SecretSpec], None]
    """Does what a killed `define_secret` leaves."""
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = connect(self.uri)

    def ask(self, method: str, *args: Any, fence: Fence | None = None, timeout: float = 60) -> Any:
        """Calls a method of the host."""
        return self.connection.call(method, args, timeout=timeout, fence=fence)

    def domain(self, machine: str) -> DomainFacts | None:
        """A domain by its UUID."""
        found: DomainFacts | None = self.ask("domain", machine)
        return found

    def known(self, machine: str) -> DomainFacts:
        """A domain that must be there."""
        found = self.domain(machine)
        assert found is not None
        return found

    def make(
        self, name: str, megabytes: int = 16, volume_format: str = "raw", *, over: VolumeFacts | None = None
    ) -> VolumeFacts:
        """A new volume, blank or an overlay."""
        backing = (None, None) if over is None else (over.path, over.format)
        self.ask("create_volume", self.pool, VolumeSpec(name, megabytes * MIB, volume_format, *backing))
        made: VolumeFacts = self.ask("volume", self.pool, name)
        return made

    def sweep(self) -> None:
        """Removes every domain, every secret and every volume."""
        self.connection.open(20)
        for secret in self.ask("secrets"):
            self.ask("undefine_secret", secret.uuid)
        for domain in self.ask("domains"):
            self.ask("destroy", domain.uuid)
            if domain.persistent:
                self.ask("undefine", domain.uuid)
        left = list(self.ask("volumes", self.pool))
        while left:
            backings = {volume.backing_path for volume in left}
            for volume in left:
                if volume.path not in backings:
                    self.ask("delete_volume", self.pool, volume.name)
            left = [volume for volume in left if volume.path in backings]


@dataclass
class Fleet:
    """The two hosts, and how to make transfers between them slow."""

    here: Site
    there: Site
    set_slow: Callable[[bool], None]
    slow_bandwidth: int

    def transfer(self, machine: str, xml: str, *, slow: bool = False) -> Watch:
        """Starts a transfer of a carrier."""
        self.set_slow(slow)
        there = (self.there.peer_uri, self.there.data_uri)
        bandwidth = self.slow_bandwidth if slow else 0
        return self.here.connection.watch("transfer", (machine, *there, xml, bandwidth))


def machine_xml(
    *volumes: VolumeFacts, name: str = "contract", machine_uuid: str | None = None, devices: str = ""
) -> str:
    """A small machine with these volumes as vda, vdb …"""
    disks = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='{volume.format}'/>"
        f"<source file='{volume.path}'/><target dev='vd{letter}' bus='virtio'/></disk>"
        for letter, volume in zip("abcdef", volumes, strict=False)
    )
    return (
        f"<domain type='qemu'><name>{name}</name><uuid>{machine_uuid or uuid.uuid4()}</uuid>"
        f"<memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='{MACHINE}'>hvm</type></os>"
        f"<devices>{disks}{devices}</devices></domain>"
    )


def carrier_xml(xml: str, *volumes: VolumeFacts) -> str:
    """The carrier of a machine with these volumes."""
    places = {f"vd{letter}": Placement(v.path, v.format) for letter, v in zip("abcdef", volumes, strict=False)}
    return carrier(xml, disks=places, mark=CARRIER)
