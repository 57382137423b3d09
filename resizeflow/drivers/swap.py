"""The signature of swap space, as mkswap(8) writes it into the first page (`union swap_header` of Linux)."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

PAGE = 4096
_MAGIC, _HIBERNATED = b"SWAPSPACE2", b"S1SUSPEND\0"
_HEADER = struct.Struct("<1024xIII16s16s")
"""Boot block, version, last page, number of bad pages, UUID, label; then padding, and the magic at the page's end."""


@dataclass(frozen=True)
class Swap:
    """A swap signature: what `/etc/fstab` may call it by, and the bytes that it covers."""

    uuid: str
    size: int
    label: str = ""
    hibernated: bool = False
    """It holds the memory of a guest that was suspended to disk."""


def write(swap: Swap) -> bytes:
    """The first page of fresh swap space. The size counts in whole pages, rounded down."""
    label = swap.label.encode("utf-8", "surrogateescape")
    header = _HEADER.pack(1, swap.size // PAGE - 1, 0, uuid.UUID(swap.uuid).bytes, label)
    return header.ljust(PAGE - len(_MAGIC), b"\0") + _MAGIC


def read(page: bytes) -> Swap | None:
    """The signature in a first page, None if there is none."""
    magic = page[PAGE - len(_MAGIC) : PAGE]
    if magic not in (_MAGIC, _HIBERNATED):
        return None
    version, last, _bad, identity, label = _HEADER.unpack_from(page)
    if version != 1:
        return None
    name = label.rstrip(b"\0").decode("utf-8", "surrogateescape")
    return Swap(str(uuid.UUID(bytes=identity)), (last + 1) * PAGE, name, hibernated=magic == _HIBERNATED)
