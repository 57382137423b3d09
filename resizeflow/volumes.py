"""The Cinder volumes of a machine as they are now: looks only, at its definition and at Cinder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from resizeflow.connections import CinderAway
from resizeflow.drivers import definition
from resizeflow.drivers.interface import DriverError, Missing
from resizeflow.drivers.volume import CinderVolume, SecretUse, Unsupported, VolumeService
from resizeflow.errors import InvalidVolume
from resizeflow.looks import Looks
from resizeflow.persistence.models import Host

AVAILABLE, IN_USE, RESERVED = "available", "in-use", "reserved"


@dataclass(frozen=True)
class AttachedVolume:
    """A volume that a machine has as a disk, and its one attachment."""

    volume_id: str
    device: str
    size_gb: int
    attachment_id: str
    secret: SecretUse | None = None
    """The libvirt secret by which a host opens it."""


def examine(looks: Looks, xml: str, *, patience: float | None = None) -> tuple[AttachedVolume, ...]:
    """The volumes of a machine, by its definition, in the order of its disks; Cinder is asked only if there are any.

    Raises InvalidVolume with what keeps one from being moved: each must be `in-use`, attached to this machine exactly
    once, and connected in a way that QEMU opens by itself. Raises `CinderAway`.
    """
    machine = definition.read(xml)
    disks = [disk for disk in machine.disks if disk.network]
    if not disks:
        return ()
    cinder = usable(looks, patience=patience)
    found = []
    for disk in disks:
        if disk.volume_id is None:
            raise InvalidVolume(
                f"Disk {disk.device} of {machine.name} is a network disk whose <serial> is no Cinder volume's id: "
                "resizeflow moves network disks that are Cinder volumes."
            )
        found.append(_examine(cinder, machine.name, machine.uuid, disk.device, disk.volume_id))
    return tuple(found)


def usable(looks: Looks, *, patience: float | None = None) -> VolumeService:
    """Cinder, once it said that it speaks with us. Raises `CinderAway`, also for what is configured wrongly: whatever
    needs a volume waits until that is put right."""
    cinder = looks.volumes(patience=patience)
    try:
        cinder.service()
    except DriverError as error:
        raise CinderAway(f"Cinder cannot be used: {error}") from None
    return cinder


def _examine(cinder: VolumeService, name: str, instance_id: str, device: str, volume_id: str) -> AttachedVolume:
    subject = f"Volume {volume_id} ({device} of {name})"
    try:
        volume = cinder.cinder_volume(volume_id)
        if volume is None:
            raise InvalidVolume(f"{subject} is not known to Cinder.")
        found = cinder.attachments(instance_id, volume_id)
        ours = [one for one in found if not one.blank]
        if not is_used(volume) or len(ours) != 1 or not ours[0].attached:
            raise InvalidVolume(f"{subject} {_why_not(volume, [one.status for one in ours or found])}")
        secret = cinder.connection(ours[0].id).secret
    except Unsupported as error:
        raise InvalidVolume(f"{subject} cannot be moved: {error}.") from None
    except Missing:
        raise InvalidVolume(f"{subject} was detached just now; ask again.") from None
    except DriverError as error:
        raise InvalidVolume(f"{subject} cannot be examined: {error}") from None
    return AttachedVolume(volume_id, device, volume.size_gb, ours[0].id, secret)


def is_used(volume: CinderVolume) -> bool:
    """Whether Cinder says that it is in use. One for several machines becomes `reserved` by each blank attachment made
    (cinder/volume/api.py)."""
    return volume.status == IN_USE or (volume.multiattach and volume.status == "reserved")


def _why_not(volume: CinderVolume, attachments: list[str]) -> str:
    if not attachments and volume.status == "reserved":
        return (
            "is reserved by nobody: Cinder was interrupted when it made an attachment. `resizeflow doctor --repair` "
            "sets it right."
        )
    if len(attachments) != 1:
        why = f"has {len(attachments) or 'no'} attachments to this machine where it has to have one"
    elif is_used(volume):
        why = f"has an attachment to this machine that is {attachments[0]}, not attached"
    else:
        why = f"is {volume.status}, not {IN_USE}"
    return f"{why}; set that right at Cinder, then ask again."


def initiator_of(host: Host) -> str:
    """The name under which the QEMUs of a host log in to iSCSI targets."""
    return f"iqn.2026-11.dev.resizeflow:{host.id}"


def connector_of(host: Host) -> Mapping[str, Any]:
    """What Cinder is told of a host that a volume is connected to (os-brick's connector properties)."""
    addresses = [urlsplit(uri).hostname for uri in (host.data_uri, host.peer_uri, host.uri) if uri]
    return {
        "host": host.name,
        "ip": next(filter(None, addresses), host.name),
        "initiator": initiator_of(host),
        "multipath": False,
        "platform": "x86_64",
        "os_type": "linux",
        "do_local_attach": False,
    }
