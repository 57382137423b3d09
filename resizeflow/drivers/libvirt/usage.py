"""Who uses a file. libvirt deletes, truncates and overwrites files in use without a word: we look first."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element

import libvirt

from resizeflow.drivers.libvirt.elements import parse, text, values
from resizeflow.drivers.libvirt.pools import refresh
from resizeflow.drivers.libvirt.session import Session

_POOLS = (
    libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE
    | libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_DIR
    | libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_FS
    | libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_NETFS
    | libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_LOGICAL
    | libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_DISK
)
"""Pools of files, and of devices that have backing files. To refresh one of Ceph's would hang when that is away."""


def domains_using(session: Session, path: str, *, running_only: bool = False) -> tuple[str, ...]:
    """The host's domains that name a file anywhere in their definitions, or have it in a backing chain.

    Live definitions show their chains, inactive ones do not: those are followed through the volumes of all
    active pools of files.
    """
    wanted = posixpath.normpath(path)
    chains = dict(_backing_files(session.connection))
    flags = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE if running_only else 0
    found = []
    for domain in session.connection.listAllDomains(flags):
        if wanted in _with_chains(_files(session.connection, domain, live_only=running_only), chains):
            found.append(domain.name())
    return tuple(sorted(found))


def overlays_on(session: Session, path: str) -> tuple[str, ...]:
    """Paths of the volumes whose backing file is this one."""
    wanted = posixpath.normpath(path)
    return tuple(sorted(top for top, below in _backing_files(session.connection) if below == wanted))


def _backing_files(connection: libvirt.virConnect) -> Iterable[tuple[str, str]]:
    """(file, its backing file) of every volume of the active pools, as the files are now."""
    for pool in connection.listAllStoragePools(_POOLS):
        try:
            refresh(pool)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_OPERATION_INVALID):
                continue  # gone, or stopped, since it was listed
            raise
        for volume in pool.listAllVolumes():
            root = _description(volume)
            if root is None:
                continue
            top, below = text(root, "target/path"), text(root, "backingStore/path")
            if top and below:
                yield posixpath.normpath(top), posixpath.normpath(below)


def _files(connection: libvirt.virConnect, domain: libvirt.virDomain, *, live_only: bool) -> set[str]:
    """Every path that a domain's definitions name, live and inactive."""
    paths: set[str] = set()
    for flags in (0,) if live_only else (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
        root = _description(domain, flags)
        if root is None:
            return set()
        paths.update(posixpath.normpath(value) for value in values(root) if value.startswith("/"))
        for source in root.iterfind("devices/disk//source[@volume]"):
            paths.update(_volume_path(connection, source.get("pool", ""), source.get("volume", "")))
    return paths


def _volume_path(connection: libvirt.virConnect, pool: str, volume: str) -> tuple[str, ...]:
    try:
        found = connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
        return (posixpath.normpath(found.path()),)
    except libvirt.libvirtError:
        return ()


def _with_chains(paths: set[str], chains: Mapping[str, str]) -> set[str]:
    """The files and everything below them."""
    seen: set[str] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            if path in chains:
                todo.append(chains[path])
    return seen


def _description(thing: libvirt.virDomain | libvirt.virStorageVol, flags: int = 0) -> Element | None:
    """Its XML, None if it has vanished since it was listed."""
    try:
        return parse(thing.XMLDesc(flags))
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return None
        raise
