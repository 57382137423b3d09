"""What resizeflow asks of a host: one small interface, each method marked with the kind of its effect.

Units: memory in MiB, disks in bytes, time in seconds.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from resizeflow.drivers.interface import Effect, act, effects_of, look, watch
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.swap import Swap


@dataclass(frozen=True)
class HostFacts:
    """A host as it describes itself."""

    uuid: str
    hostname: str
    vcpus: int
    memory_mb: int
    machines: frozenset[str]
    """Machine types that QEMU there knows, canonical names and aliases (`pc-q35-7.2`, `q35`)."""
    domain_types: frozenset[str]
    """`kvm`, `qemu`: what a domain's `type` may be."""
    bridges: frozenset[str]


@dataclass(frozen=True)
class PoolFacts:
    name: str
    path: str
    capacity: int
    available: int


@dataclass(frozen=True)
class VolumeFacts:
    """A file in a directory pool. `capacity` is what a guest sees, `allocation` what it takes on the host."""

    name: str
    path: str
    capacity: int
    allocation: int
    format: str
    backing_path: str | None = None


@dataclass(frozen=True)
class VolumeSpec:
    """A volume to be made: empty, or (with `backing_path`) an overlay that shows the backing file's content."""

    name: str
    capacity: int
    format: str
    backing_path: str | None = None
    backing_format: str | None = None


class PowerState(enum.StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"
    OTHER = "other"
    """Just starting, in shutdown, crashed with its QEMU still there, suspended by the guest: neither off nor fit to be
    moved."""


@dataclass(frozen=True)
class DomainFacts:
    """A domain as its host has it now.

    `live_xml` is what runs (None when shut off), `inactive_xml` what would start next (for a transient domain
    the same as `live_xml`); neither holds secrets. `incoming` is a destination still receiving a migration;
    `job_running` a source still sending one, with `bytes_done` of `bytes_total` (virtual sizes, holes count as
    done). `merging` names the devices with an active block commit.
    """

    uuid: str
    name: str
    state: PowerState
    persistent: bool
    autostart: bool
    inactive_xml: str
    live_xml: str | None = None
    incoming: bool = False
    job_running: bool = False
    bytes_done: int = 0
    bytes_total: int = 0
    merging: frozenset[str] = frozenset()
    snapshots: int = 0
    managed_save: bool = False


@dataclass(frozen=True)
class SecretFacts:
    """A libvirt secret: `kind` is `ceph`, `iscsi` or another of libvirt's; `migration` is the one of ours that made it,
    None if somebody else did."""

    uuid: str
    kind: str
    migration: str | None = None


@dataclass(frozen=True)
class SecretSpec:
    """A libvirt secret to be made, marked with the migration that needs it."""

    uuid: str
    kind: str
    migration: str
    secret: Secret


@dataclass(frozen=True)
class MergeFacts:
    """An active block commit of one device: `ready` when a pivot would succeed at once."""

    ready: bool
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True)
class StreamSegment:
    """A piece of a disk that the destination has: where it starts, its length, and the sha256 of its content.

    The hash is over its blocks of 1 MiB, the last may be shorter: `Z` and the length for a block of zeroes or
    a hole, `D`, the length and the bytes for any other; lengths are 4 bytes, big endian. So it does not depend
    on where a file system keeps its holes.
    """

    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class StreamTarget:
    """The other end of a stream copy. `done` are the segments an earlier run has recorded: it goes on after them."""

    uri: str
    pool: str
    volume: str
    done: tuple[StreamSegment, ...] = field(default=())
    bandwidth: int = 0
    """Bytes a second; 0 is no limit."""


class Hypervisor(ABC):
    """One host. Every method raises `DriverError`s only; `Missing` where what it names is not there."""

    # --- looks -------------------------------------------------------------------------------------------

    @look
    @abstractmethod
    def facts(self) -> HostFacts:
        """Who and how large the host is."""

    @look
    @abstractmethod
    def check_cpu(self, xml: str) -> None:
        """Nothing if a guest can have here the CPU that its definition asks for. Raises `Refused` with what is missing;
        what a definition lets the host leave out (`check='none'`) is not missing, as at its start."""

    @look
    @abstractmethod
    def pool(self, pool: str) -> PoolFacts:
        """A directory pool, refreshed. Raises `Missing`; `Refused` if it is not active or not a directory."""

    @look
    @abstractmethod
    def volume(self, pool: str, name: str) -> VolumeFacts | None:
        """A volume of a pool, None if there is none of that name. Sizes are read anew."""

    @look
    @abstractmethod
    def volumes(self, pool: str) -> tuple[VolumeFacts, ...]:
        """All volumes of a pool, refreshed."""

    @look
    @abstractmethod
    def swap(self, pool: str, name: str) -> Swap | None:
        """The swap signature in a volume (raw or qcow2), None if it has none. Missing is `Missing`."""

    @look
    @abstractmethod
    def domain(self, uuid: str) -> DomainFacts | None:
        """A domain by its UUID, running or defined; None if the host knows none."""

    @look
    @abstractmethod
    def domains(self) -> tuple[DomainFacts, ...]:
        """All domains of the host, running or defined."""

    @look
    @abstractmethod
    def definition_with_secrets(self, uuid: str) -> str:
        """The inactive definition with its passwords. It may be handed to `define` of a host and to nothing else."""

    @look
    @abstractmethod
    def merge(self, uuid: str, device: str) -> MergeFacts | None:
        """The active block commit of a device, None if none runs."""

    @look
    @abstractmethod
    def secrets(self) -> tuple[SecretFacts, ...]:
        """All secrets of the host, without their values."""

    @look
    @abstractmethod
    def secret_value(self, uuid: str) -> Secret | None:
        """The value of a secret, None if it has none yet. It may be handed to `define_secret` of a host and to
        `watchers` of Cinder, and to nothing else. Raises `Missing`; `Refused` if it is private."""

    # --- acts: volumes -----------------------------------------------------------------------------------

    @act
    @abstractmethod
    def create_volume(self, pool: str, spec: VolumeSpec) -> None:
        """Makes a sparse volume. Raises `Exists`."""

    @act
    @abstractmethod
    def grow_volume(self, pool: str, name: str, capacity: int) -> None:
        """Grows a volume that no running domain uses; the same size again is fine, a smaller one is `Refused`."""

    @act
    @abstractmethod
    def make_swap(self, pool: str, name: str, swap_space: Swap) -> None:
        """Writes a swap signature into a raw volume that no domain uses, as mkswap does. What else is in the volume
        stays. Refused if the volume is smaller than the signature says."""

    @act
    @abstractmethod
    def delete_volume(self, pool: str, name: str) -> None:
        """Deletes a volume. `Refused` if any domain of the host names it or has it in its chain (libvirt itself
        would delete a file in use). Missing is `Missing`."""

    # --- acts: domains -----------------------------------------------------------------------------------

    @act
    @abstractmethod
    def define(self, xml: str) -> None:
        """Defines, or redefines, a persistent domain; a running one keeps running as it is."""

    @act
    @abstractmethod
    def undefine(self, uuid: str) -> None:
        """Forgets a shut-off domain; its disks stay."""

    @act
    @abstractmethod
    def set_autostart(self, uuid: str, on: bool) -> None:
        """Whether the host starts the domain when it boots."""

    @act
    @abstractmethod
    def start_paused(self, uuid: str) -> None:
        """Starts a defined domain with its CPUs stopped."""

    @act
    @abstractmethod
    def start_carrier(self, xml: str) -> None:
        """Starts a transient domain with its CPUs stopped; a defined domain of that UUID keeps its definition.
        Raises `Exists` if a domain of that UUID is active."""

    @act
    @abstractmethod
    def resume(self, uuid: str) -> None:
        """Lets a paused domain's CPUs run; a running one is left as it is."""

    @act
    @abstractmethod
    def suspend(self, uuid: str) -> None:
        """Stops a running domain's CPUs, memory kept; a paused one is left as it is."""

    @act
    @abstractmethod
    def announce(self, uuid: str) -> None:
        """Has an active domain tell the network where its addresses are now, so that switches send frames there at
        once; `Refused` for one that is off."""

    @act
    @abstractmethod
    def shutdown(self, uuid: str) -> None:
        """Asks the guest to shut down (ACPI) and returns at once; it may not listen."""

    @act
    @abstractmethod
    def destroy(self, uuid: str) -> None:
        """Ends a domain's QEMU, hard; any job of it ends too. Off already is fine."""

    @act
    @abstractmethod
    def define_secret(self, spec: SecretSpec) -> None:
        """Makes a secret that survives the host's boot, with its value; one of that UUID gets the value and the mark.
        Killed in the middle it may be there without a value."""

    @act
    @abstractmethod
    def undefine_secret(self, uuid: str) -> None:
        """Forgets a secret. Missing is `Missing`."""

    @act
    @abstractmethod
    def start_merge(self, uuid: str, device: str, bandwidth: int) -> None:
        """Starts the commit of a device's overlay into its backing file; bandwidth in bytes/s, 0 no limit."""

    @act
    @abstractmethod
    def pivot_merge(self, uuid: str, device: str) -> None:
        """Ends a ready merge: the domain uses the backing file from now on. Only for a paused domain."""

    # --- start and watch ---------------------------------------------------------------------------------

    @watch
    @abstractmethod
    def transfer(self, uuid: str, peer_uri: str, data_uri: str, xml: str, bandwidth: int) -> None:
        """Migrates a carrier with its storage, host to host, into volumes that exist at the destination.

        `peer_uri` is how this host reaches the destination's libvirtd, `data_uri` where the bytes go
        (`tcp://198.51.100.12`), `xml` the carrier's definition there, `bandwidth` bytes/s per disk (0 none).
        It goes on when its caller dies. The truth about it is in `domain()` of both hosts, never in the answer.
        """

    @watch
    @abstractmethod
    def stream(self, pool: str, name: str, target: StreamTarget) -> None:
        """Copies a volume through the worker, holes kept. Emits a `StreamSegment` for each piece that arrived."""


EFFECTS: Mapping[str, Effect] = effects_of(Hypervisor)
