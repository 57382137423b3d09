"""Directory pools of a host."""

from __future__ import annotations

import libvirt

from resizeflow.drivers.hypervisor import PoolFacts
from resizeflow.drivers.interface import Refused
from resizeflow.drivers.libvirt.elements import parse, text
from resizeflow.drivers.libvirt.session import Session

_DIRECTORIES = frozenset({"dir", "fs", "netfs"})


def pool_facts(session: Session, name: str) -> PoolFacts:
    """A pool of files, refreshed."""
    with session.asking(f"look at pool '{name}'"):
        pool = find_pool(session, name)
        refresh(pool)
        root = parse(pool.XMLDesc(0))
        _, capacity, _, available = pool.info()
    if root.get("type") not in _DIRECTORIES:
        raise Refused(f"{session.host}: pool '{name}' is of type '{root.get('type')}', not a directory.")
    return PoolFacts(name=name, path=text(root, "target/path") or "", capacity=capacity, available=available)


def find_pool(session: Session, name: str) -> libvirt.virStoragePool:
    """The pool as libvirt's object. Called inside `Session.asking`. Raises `Refused` if it is not active."""
    pool = session.connection.storagePoolLookupByName(name)
    if not pool.isActive():
        raise Refused(f"{session.host}: pool '{name}' is not active.")
    return pool


def refresh(pool: libvirt.virStoragePool) -> None:
    """Makes libvirt look at the directory again, unless it is just filling a volume there and says so."""
    try:
        pool.refresh(0)
    except libvirt.libvirtError as error:
        if "asynchronous jobs" not in str(error):
            raise
