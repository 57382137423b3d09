"""What resizeflow asks of Cinder: one small interface, each method marked with the kind of its effect.

An attachment is Cinder's record of a volume at a machine on a host. A *blank* one (`reserved`, no connector) keeps the
volume the machine's; with a host's connector it is *connected* (`attaching`), completed it is `attached`. Cinder gives
the id and knows no key against repetition, so an attachment whose answer was lost is found by volume and machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resizeflow.drivers.interface import Effect, Refused, act, effects_of, look
from resizeflow.drivers.secret import Secret

OPENED_BY_QEMU = ("rbd", "iscsi", "nfs")
"""Kinds of connection that QEMU opens by itself; others need an agent on the host."""


class Unsupported(Refused):
    """A kind of connection that cannot be made without an agent on the host."""


@dataclass(frozen=True)
class ServiceFacts:
    """Cinder as it describes itself: the newest and the oldest microversion it speaks."""

    newest: str
    oldest: str


@dataclass(frozen=True)
class CinderVolume:
    """A volume; `status` is Cinder's word (`in-use`, `reserved`, `available`, ...), the size in GiB."""

    id: str
    name: str
    status: str
    size_gb: int
    multiattach: bool = False
    encrypted: bool = False


@dataclass(frozen=True)
class Attachment:
    """An attachment; `status` is Cinder's word."""

    id: str
    volume_id: str
    instance_id: str | None
    status: str
    half: bool = False
    """Cinder died when it connected it: the status says so, but not how it is opened. It can be connected again."""

    @property
    def blank(self) -> bool:
        """Whether it only reserves the volume."""
        return self.status == "reserved"

    @property
    def connected(self) -> bool:
        """Whether it has a host's connector."""
        return self.status in ("attaching", "attached") and not self.half

    @property
    def attached(self) -> bool:
        """Whether it is completed."""
        return self.status == "attached"


@dataclass(frozen=True)
class SecretUse:
    """The libvirt secret that a disk names: its UUID and type (`ceph`, `iscsi`)."""

    uuid: str
    kind: str


@dataclass(frozen=True)
class VolumeConnection:
    """How QEMU opens a connected volume.

    `name` is the pool and image (RBD), the target and LUN joined by `/` (iSCSI), the absolute path of the file (NFS);
    `hosts` are addresses with ports. `password` is the CHAP password: it goes to a host's libvirt and nowhere else.
    """

    kind: str
    name: str
    hosts: tuple[tuple[str, int | None], ...]
    format: str = "raw"
    user: str | None = None
    secret: SecretUse | None = None
    password: str | None = field(default=None, repr=False)
    readonly: bool = False


def read_connection(attachment_id: str, info: Mapping[str, Any]) -> VolumeConnection:
    """Cinder's connection_info of an attachment. Raises `Unsupported`, without repeating what may be secret in it.

    Shapes: those of Cinder's drivers (cinder/volume/drivers/rbd.py, nfs.py, volume/targets/iscsi.py), flattened by its
    API. The libvirt secret of an iSCSI volume has the attachment's id: it comes and goes with it.
    """
    kind = str(info.get("driver_volume_type"))
    if info.get("encrypted"):
        raise Unsupported("it is encrypted, which needs a key manager that resizeflow does not speak to")
    try:
        return _READERS[kind](attachment_id, info)
    except KeyError as error:
        if kind in _READERS:
            raise Unsupported(f"its {kind} connection lacks {error}") from None
        raise Unsupported(
            f"it is connected by {kind}, which needs an agent on the host; QEMU opens {', '.join(OPENED_BY_QEMU)}"
        ) from None


def _rbd(_attachment_id: str, info: Mapping[str, Any]) -> VolumeConnection:
    ports = [int(port) for port in info["ports"]]
    authenticated = info.get("auth_enabled")
    return VolumeConnection(
        kind="rbd",
        name=info["name"],
        hosts=tuple(zip(info["hosts"], ports, strict=True)),
        user=info["auth_username"] if authenticated else None,
        secret=SecretUse(info["secret_uuid"], "ceph") if authenticated else None,
        readonly=info.get("access_mode") == "ro",
    )


def _iscsi(attachment_id: str, info: Mapping[str, Any]) -> VolumeConnection:
    if len(info.get("target_portals") or ()) > 1 or info.get("enforce_multipath"):
        raise Unsupported("it is connected by several iSCSI paths (multipath), which needs an agent on the host")
    address, _, port = info["target_portal"].rpartition(":")
    password = info.get("auth_password")
    return VolumeConnection(
        kind="iscsi",
        name=f"{info['target_iqn']}/{info['target_lun']}",
        hosts=((address.strip("[]"), int(port)),),
        user=info.get("auth_username") if password else None,
        secret=SecretUse(attachment_id, "iscsi") if password else None,
        password=password,
        readonly=info.get("access_mode") == "ro",
    )


def _nfs(_attachment_id: str, info: Mapping[str, Any]) -> VolumeConnection:
    address, _, export = info["export"].rpartition(":")
    return VolumeConnection(
        kind="nfs",
        name=f"{export.rstrip('/')}/{info['name']}",
        hosts=((address.strip("[]"), None),),
        format=info.get("format") or "raw",
        readonly=info.get("access_mode") == "ro",
    )


_READERS = {"rbd": _rbd, "iscsi": _iscsi, "nfs": _nfs}


class VolumeService(ABC):
    """Cinder. Every method raises `DriverError`s only; `Missing` where what it names is not there."""

    # --- looks -------------------------------------------------------------------------------------------

    @look
    @abstractmethod
    def service(self) -> ServiceFacts:
        """That Cinder is there, speaks a version that we speak, and knows us. Raises `Refused` with what is wrong."""

    @look
    @abstractmethod
    def cinder_volume(self, volume_id: str) -> CinderVolume | None:
        """A volume, None if there is none of that id."""

    @look
    @abstractmethod
    def attachment(self, attachment_id: str) -> Attachment | None:
        """An attachment, None if there is none of that id."""

    @look
    @abstractmethod
    def attachments(self, instance_id: str | None, volume_id: str | None = None) -> tuple[Attachment, ...]:
        """All attachments of a machine (None: of anybody) (to one volume), in the order of their ids."""

    @look
    @abstractmethod
    def connection(self, attachment_id: str) -> VolumeConnection:
        """How QEMU opens a connected attachment, password included. Raises `Unsupported`, `Refused` if it is blank."""

    @look
    @abstractmethod
    def watchers(self, connection: VolumeConnection, key: Secret | None) -> tuple[str, ...]:
        """The addresses of those that have an RBD image open; `key` is its user's. Raises `Refused` if it cannot be
        found out, with what is missing for it."""

    # --- acts --------------------------------------------------------------------------------------------

    @act
    @abstractmethod
    def create_attachment(self, volume_id: str, instance_id: str) -> str:
        """Makes a blank attachment; its id. Each call makes one more. `Refused` unless the volume is available, or
        attached or reserved for that machine already."""

    @act
    @abstractmethod
    def update_attachment(self, attachment_id: str, connector: Mapping[str, Any]) -> None:
        """Connects a blank attachment to the host of a connector. `Refused` while another one of the volume is."""

    @act
    @abstractmethod
    def complete_attachment(self, attachment_id: str) -> None:
        """The machine uses it: `attached`, the volume `in-use`. Cinder checks nothing."""

    @act
    @abstractmethod
    def delete_attachment(self, attachment_id: str) -> None:
        """Disconnects and deletes an attachment. Missing is `Missing`."""

    @act
    @abstractmethod
    def reset_volume(self, volume_id: str, status: str, attach_status: str) -> None:
        """Sets what Cinder believes of a volume (an administrator's call), for one that it left reserved by nobody.
        With `detached` Cinder forgets every attachment of the volume, whosever it is."""


EFFECTS: Mapping[str, Effect] = effects_of(VolumeService)
