"""Swap space in volumes: its signature is read and written through libvirt's streams."""

from __future__ import annotations

import struct
from collections.abc import Callable

from resizeflow.drivers import swap
from resizeflow.drivers.interface import Refused
from resizeflow.drivers.libvirt.session import Session
from resizeflow.drivers.libvirt.stream import opened, send_all
from resizeflow.drivers.libvirt.usage import domains_using
from resizeflow.drivers.libvirt.volumes import facts_of, find_volume
from resizeflow.drivers.swap import PAGE, Swap

_QCOW2_L1 = 40
"""Where a qcow2 header says where its first table is (QEMU's docs/interop/qcow2.txt)."""
_QCOW2_OFFSET = 0x00FFFFFFFFFFFE00
_QCOW2_COMPRESSED = 1 << 62


def signature(session: Session, pool: str, name: str) -> Swap | None:
    """The swap signature of a raw or qcow2 volume, None if it has none."""
    doing = f"look for swap space in volume '{name}' of pool '{pool}'"
    with session.asking(doing):
        volume = find_volume(session, pool, name)
        is_qcow2 = facts_of(volume).format == "qcow2"

    def piece(offset: int, length: int) -> bytes:
        with opened(session, doing) as stream:
            volume.download(stream, offset, length, 0)
            return b"".join(iter(lambda: stream.recv(length), b""))

    start = _start_of_qcow2(piece) if is_qcow2 else 0
    return None if start is None else swap.read(piece(start, PAGE))


def make(session: Session, pool: str, name: str, wanted: Swap) -> None:
    """Writes the signature into a raw volume that no domain uses. libvirt does not flush what it has written."""
    doing = f"make swap space of volume '{name}' in pool '{pool}'"
    with session.asking(doing):
        volume = find_volume(session, pool, name)
        facts = facts_of(volume)
        if facts.format != "raw" or facts.capacity < wanted.size:
            raise Refused(f"{session.host}: volume '{name}' is not raw, or smaller than {wanted.size} bytes.")
        if users := domains_using(session, facts.path):
            raise Refused(f"{session.host}: volume '{name}' is in use by domain '{users[0]}'.")
    session.fence()
    with opened(session, doing) as stream:
        volume.upload(stream, 0, PAGE, 0)
        send_all(stream, swap.write(wanted))


def _start_of_qcow2(piece: Callable[[int, int], bytes]) -> int | None:
    """Where the first page of a qcow2 disk lies in its file; None if it was never written, or is compressed."""
    (table,) = struct.unpack(">Q", piece(_QCOW2_L1, 8))
    for _ in ("L1", "L2"):
        (entry,) = struct.unpack(">Q", piece(table, 8))
        table = entry & _QCOW2_OFFSET
        if not table or entry & _QCOW2_COMPRESSED:
            return None
    return int(table)
