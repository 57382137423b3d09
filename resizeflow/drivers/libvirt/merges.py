"""Active block commits: an overlay is merged into its backing file while its domain runs or is paused."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import libvirt

from resizeflow.drivers.hypervisor import MergeFacts, PowerState
from resizeflow.drivers.interface import Exists, Missing, Refused
from resizeflow.drivers.libvirt.domains import find_domain, merging_devices, power_state
from resizeflow.drivers.libvirt.elements import parse
from resizeflow.drivers.libvirt.session import Session


def merge_facts(session: Session, uuid: str, device: str) -> MergeFacts | None:
    """The active block commit of a device, None if none runs.

    Ready is what the definition says: the job's own numbers are equal (0 of 1) right after it has begun.
    """
    with session.asking(f"look at the merge of {device} of domain {uuid}"):
        domain = find_domain(session, uuid)
        live = parse(domain.XMLDesc(0))
        if live.get("id") is None or device not in merging_devices(live):
            return None
        mirror = _disk(live, device).find("mirror")
        job = domain.blockJobInfo(device, 0)
    return MergeFacts(
        ready=mirror is not None and mirror.get("ready") == "yes",
        bytes_done=job.get("cur", 0),
        bytes_total=job.get("end", 0),
    )


def start_merge(session: Session, uuid: str, device: str, bandwidth: int) -> None:
    """Starts the commit of a device's overlay into the one file right below it; bandwidth in bytes/s."""
    with session.asking(f"merge {device} of domain {uuid}"):
        domain = find_domain(session, uuid)
        if power_state(domain) is PowerState.SHUTOFF:
            raise Refused(f"{session.host}: domain '{domain.name()}' is off, it cannot merge.")
        live = parse(domain.XMLDesc(0))
        if _disk_or_none(live, device) is None:
            raise Missing(f"{session.host}: domain '{domain.name()}' has no disk {device}.")
        if device in merging_devices(live):
            raise Exists(f"{session.host}: a merge of {device} of domain '{domain.name()}' runs already.")
        # Shallow: without it libvirt commits into the lowest file, perhaps a template that others lie upon.
        flags = (
            libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
            | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
            | libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        )
        session.fence()
        domain.blockCommit(device, None, None, bandwidth, flags)


def pivot_merge(session: Session, uuid: str, device: str) -> None:
    """Ends a ready merge. Only for a paused domain: libvirtd killed inside a pivot has lost sight of its
    QEMU, which would go on writing if its guest ran."""
    with session.asking(f"pivot {device} of domain {uuid}"):
        domain = find_domain(session, uuid)
        if power_state(domain) is not PowerState.PAUSED:
            raise Refused(f"{session.host}: domain '{domain.name()}' is not paused, a merge must not pivot.")
        live = parse(domain.XMLDesc(0))
        if device not in merging_devices(live):
            raise Missing(f"{session.host}: no merge of {device} of domain '{domain.name()}' runs.")
        mirror = _disk(live, device).find("mirror")
        if mirror is None or mirror.get("ready") != "yes":
            raise Refused(f"{session.host}: the merge of {device} of domain '{domain.name()}' is not ready.")
        session.fence()
        domain.blockJobAbort(device, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def _disk(live: Element, device: str) -> Element:
    disk = _disk_or_none(live, device)
    if disk is None:
        raise LookupError(device)
    return disk


def _disk_or_none(live: Element, device: str) -> Element | None:
    for disk in live.iterfind("devices/disk"):
        target = disk.find("target")
        if target is not None and target.get("dev") == device:
            return disk
    return None
