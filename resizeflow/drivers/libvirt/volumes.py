"""Volumes of a host's directory pools."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, tostring

import libvirt

from resizeflow.drivers.hypervisor import VolumeFacts, VolumeSpec
from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.libvirt.elements import add, number, parse, text
from resizeflow.drivers.libvirt.pools import find_pool, refresh
from resizeflow.drivers.libvirt.session import Session
from resizeflow.drivers.libvirt.usage import domains_using, overlays_on


def volume_facts(session: Session, pool_name: str, name: str) -> VolumeFacts | None:
    """A volume, its sizes read from the file; None if there is no such file."""
    with session.asking(f"look at volume '{name}' of pool '{pool_name}'"):
        pool = find_pool(session, pool_name)
        try:
            return facts_of(pool.storageVolLookupByName(name))
        except libvirt.libvirtError:
            # Not known, or known but gone: libvirt learns of files made or removed by others only here.
            if not session.alive:
                raise
            refresh(pool)
        try:
            return facts_of(pool.storageVolLookupByName(name))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                return None
            raise


def all_volume_facts(session: Session, pool_name: str) -> tuple[VolumeFacts, ...]:
    """All volumes of a pool, refreshed; one that vanishes meanwhile is left out."""
    with session.asking(f"list the volumes of pool '{pool_name}'"):
        pool = find_pool(session, pool_name)
        refresh(pool)
        return tuple(sorted(_listed(session, pool), key=lambda volume: volume.name))


def find_volume(session: Session, pool_name: str, name: str) -> libvirt.virStorageVol:
    """The volume as libvirt's object, refreshed. Called inside `Session.asking`."""
    pool = find_pool(session, pool_name)
    refresh(pool)
    return pool.storageVolLookupByName(name)


def physical_size(volume: libvirt.virStorageVol) -> int:
    """The length of the file in bytes, whatever its format."""
    _, _, physical = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)
    return int(physical)


def create(session: Session, pool_name: str, spec: VolumeSpec) -> None:
    """Makes a sparse volume, or an overlay."""
    with session.asking(f"create volume '{spec.name}' in pool '{pool_name}'"):
        pool = find_pool(session, pool_name)
        if spec.backing_path is not None:
            _check_overlay(session, spec)
        xml = _volume_xml(spec)
        session.fence()
        pool.createXML(xml, 0)


def grow(session: Session, pool_name: str, name: str, capacity: int) -> None:
    """Grows a volume that no running domain uses; libvirt itself would truncate a raw one under its QEMU."""
    with session.asking(f"grow volume '{name}' of pool '{pool_name}'"):
        volume = find_volume(session, pool_name, name)
        now = facts_of(volume)
        if capacity == now.capacity:
            return
        if capacity < now.capacity:
            raise Refused(
                f"{session.host}: volume '{name}' of pool '{pool_name}' has {now.capacity} bytes"
                f" and cannot shrink to {capacity}."
            )
        users = domains_using(session, now.path, running_only=True)
        if users:
            raise Refused(f"{session.host}: volume '{name}' is in use by running domain '{users[0]}'.")
        session.fence()
        volume.resize(capacity, 0)


def delete(session: Session, pool_name: str, name: str) -> None:
    """Deletes a volume that no domain of the host needs, running or not, and no other volume lies upon."""
    with session.asking(f"delete volume '{name}' of pool '{pool_name}'"):
        volume = find_volume(session, pool_name, name)
        users = domains_using(session, volume.path())
        if users:
            raise Refused(f"{session.host}: volume '{name}' is in use by domain '{users[0]}'.")
        overlays = overlays_on(session, volume.path())
        if overlays:
            raise Refused(f"{session.host}: volume '{name}' is the backing file of '{overlays[0]}'.")
        session.fence()
        volume.delete(0)


def _listed(session: Session, pool: libvirt.virStoragePool) -> Iterator[VolumeFacts]:
    for volume in pool.listAllVolumes():
        try:
            yield facts_of(volume)
        except libvirt.libvirtError:
            if not session.alive:
                raise


def facts_of(volume: libvirt.virStorageVol) -> VolumeFacts:
    root = parse(volume.XMLDesc(0))
    form = root.find("target/format")
    probed = form.get("type", "raw") if form is not None else "raw"
    return VolumeFacts(
        name=text(root, "name") or "",
        path=text(root, "target/path") or "",
        capacity=number(root, "capacity"),
        allocation=number(root, "allocation"),
        format="raw" if probed == "iso" else probed,  # to QEMU a CD image is a raw one
        backing_path=text(root, "backingStore/path"),
    )


def _check_overlay(session: Session, spec: VolumeSpec) -> None:
    """libvirt accepts an overlay smaller than what it covers, and one of a guessed format: both lose data."""
    if not spec.backing_format:
        raise Refused(f"{session.host}: overlay '{spec.name}' needs the format of its backing file.")
    try:
        volume = session.connection.storageVolLookupByPath(spec.backing_path)
        # The caller's format counts: libvirt guesses from the content, which for a raw disk is the guest's.
        covered = physical_size(volume) if spec.backing_format == "raw" else facts_of(volume).capacity
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise
        raise Missing(f"{session.host}: no pool has the backing file '{spec.backing_path}'.") from None
    if spec.capacity < covered:
        raise Refused(
            f"{session.host}: overlay '{spec.name}' of {spec.capacity} bytes is smaller than"
            f" its backing file's {covered}."
        )


def _volume_xml(spec: VolumeSpec) -> str:
    volume = Element("volume")
    add(volume, "name", spec.name)
    add(volume, "capacity", str(spec.capacity), unit="bytes")
    add(volume, "allocation", "0")  # without it libvirt fills a raw volume with zeroes
    add(add(volume, "target"), "format", type=spec.format)
    if spec.backing_path is not None:
        backing = add(volume, "backingStore")
        add(backing, "path", spec.backing_path)
        add(backing, "format", type=spec.backing_format or "")
    return tostring(volume, encoding="unicode")
