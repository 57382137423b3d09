"""The content hash of a disk's piece: the same for a hole and for written zeroes, and cheap for both."""

from __future__ import annotations

import hashlib

BLOCK = 1024**2
_ZEROES = bytes(BLOCK)


class ContentHash:
    """sha256 over a piece's blocks of 1 MiB, counted from its start; the last may be shorter.

    A block of zeroes, written or a hole, counts as `Z` and its length, any other as `D`, its length and its
    bytes; lengths are 4 bytes, big endian. So where a file system puts its holes makes no difference.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._block = bytearray()

    def data(self, data: bytes) -> None:
        """Takes the next bytes."""
        view = memoryview(data)
        while view:
            room = BLOCK - len(self._block)
            self._block += view[:room]
            view = view[room:]
            self._end_block_if_full()

    def hole(self, length: int) -> None:
        """Takes a hole of that many bytes."""
        while length > 0:
            if not self._block and length >= BLOCK:
                self._zeroes(BLOCK)
                length -= BLOCK
                continue
            part = min(length, BLOCK - len(self._block))
            self._block += _ZEROES[:part]
            length -= part
            self._end_block_if_full()

    def hexdigest(self) -> str:
        """The hash of all that was taken. Nothing can be taken afterwards."""
        self._end_block()
        return self._hash.hexdigest()

    def _end_block_if_full(self) -> None:
        if len(self._block) == BLOCK:
            self._end_block()

    def _end_block(self) -> None:
        block, self._block = self._block, bytearray()
        if not block:
            return
        if block == _ZEROES[: len(block)]:
            self._zeroes(len(block))
        else:
            self._hash.update(b"D" + len(block).to_bytes(4, "big"))
            self._hash.update(block)

    def _zeroes(self, length: int) -> None:
        self._hash.update(b"Z" + length.to_bytes(4, "big"))
