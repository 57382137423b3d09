"""Copying a volume between hosts through this process, holes kept; a killed copy can be gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from resizeflow.drivers.hypervisor import StreamSegment, StreamTarget, VolumeFacts
from resizeflow.drivers.interface import Differs, DriverError, Refused
from resizeflow.drivers.libvirt.content import ContentHash
from resizeflow.drivers.libvirt.session import Session, open_session
from resizeflow.drivers.libvirt.usage import domains_using
from resizeflow.drivers.libvirt.volumes import facts_of, find_volume, physical_size

SEGMENT = 64 * 1024**2
_CHUNK = 1024**2
_AT_HOLE = -3
_MAY_RUN_AHEAD = 0.05


class _Disk:
    """One end of a copy: a volume of a host that no running domain uses."""

    def __init__(self, session: Session, pool: str, name: str) -> None:
        self.session = session
        self.label = f"volume '{name}' of pool '{pool}'"
        self._pool = pool
        self._name = name
        with session.asking(f"look at {self.label}"):
            self.volume = find_volume(session, pool, name)
            self.facts = facts_of(self.volume)
            self.size = physical_size(self.volume)
            users = domains_using(session, self.facts.path, running_only=True)
        if users:
            raise Refused(f"{session.host}: {self.label} is in use by running domain '{users[0]}'.")

    def look_again(self) -> tuple[VolumeFacts, int]:
        """What the volume is now, and the length of its file."""
        with self.session.asking(f"look at {self.label}"):
            volume = find_volume(self.session, self._pool, self._name)
            return facts_of(volume), physical_size(volume)

    @contextmanager
    def stream(self, doing: str) -> Iterator[libvirt.virStream]:
        """A stream to or from the volume."""
        with opened(self.session, f"{doing} {self.label}") as stream:
            yield stream


class _Throttle:
    """Keeps the mean speed at a limit in bytes/s; 0 is none."""

    def __init__(self, bandwidth: int) -> None:
        self._bandwidth = bandwidth
        self._began = time.monotonic()
        self._sent = 0

    def sent(self, length: int) -> None:
        """Waits as long as what was sent so far should have taken."""
        if not self._bandwidth:
            return
        self._sent += length
        ahead = self._sent / self._bandwidth - (time.monotonic() - self._began)
        if ahead > _MAY_RUN_AHEAD:
            time.sleep(ahead)


def stream(session: Session, pool: str, name: str, target: StreamTarget) -> None:
    """Copies the file of a volume into that of an existing volume, byte for byte whatever its format.

    Each piece of 64 MiB is emitted once the destination has taken all of it. At the end the whole
    destination is read back and compared, because libvirt takes a short upload for a complete one. Nothing
    has been flushed to the destination's disk then: libvirt's streams cannot, an ending carrier does it.

    Raises `Refused` for a volume with a backing chain, one in use, or a `done` that is not a beginning of it;
    `DriverError` if the copy turned out different: it is to be made anew, without `done`.
    """
    other = open_session(target.uri, session.emit)
    try:
        source = _Disk(session, pool, name)
        if source.facts.backing_path is not None:
            raise Refused(f"{session.host}: {source.label} has a backing file, a stream would copy only its top.")
        destination = _Disk(other, target.pool, target.volume)
        if destination.size > source.size:
            raise Refused(
                f"{other.host}: {destination.label} is longer ({destination.size} bytes)"
                f" than what would be written to it ({source.size})."
            )
        segments = list(target.done)
        start = _end_of(segments, source)
        throttle = _Throttle(target.bandwidth)
        session.fence()
        for offset in range(start, source.size, SEGMENT):
            length = min(SEGMENT, source.size - offset)
            segment = StreamSegment(offset, length, _copy(source, destination, offset, length, throttle))
            segments.append(segment)
            session.emit(segment)
        _verify(source, destination, segments)
    finally:
        other.close()


def _end_of(segments: list[StreamSegment], source: _Disk) -> int:
    """Where the recorded segments end: they lie one after the other from 0."""
    end = 0
    for segment in segments:
        if segment.offset != end or segment.length <= 0:
            raise Refused(f"{source.session.host}: the record of {source.label} has a gap at {end}.")
        end += segment.length
    if end > source.size:
        raise Refused(f"{source.session.host}: the record of {source.label} is longer than the volume.")
    return end


def _copy(source: _Disk, destination: _Disk, offset: int, length: int, throttle: _Throttle) -> str:
    """Copies one piece and returns the hash of what was read."""
    content = ContentHash()
    with destination.stream("write") as upload:
        flags = libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM
        destination.volume.upload(upload, offset, length, flags)
        for piece in _pieces(source, offset, length):
            source.session.hold_still()
            if isinstance(piece, int):
                content.hole(piece)
                upload.sendHole(piece)
            else:
                content.data(piece)
                send_all(upload, piece)
                throttle.sent(len(piece))
    return content.hexdigest()


def _read(disk: _Disk, offset: int, length: int) -> str:
    """The hash of one piece of a volume."""
    content = ContentHash()
    for piece in _pieces(disk, offset, length):
        if isinstance(piece, int):
            content.hole(piece)
        else:
            content.data(piece)
    return content.hexdigest()


def _pieces(disk: _Disk, offset: int, length: int) -> Iterator[bytes | int]:
    """What a piece of a volume consists of: bytes, and lengths of holes. Raises if it is short."""
    left = length
    with disk.stream("read") as download:
        disk.volume.download(download, offset, length, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
        while True:
            got = download.recvFlags(_CHUNK, libvirt.VIR_STREAM_RECV_STOP_AT_HOLE)
            if got == _AT_HOLE:
                hole = min(download.recvHole(), left)
                left -= hole
                yield hole
            elif got:
                left -= len(got)
                yield got
            else:
                break
    if left:
        raise DriverError(f"{disk.session.host}: {disk.label} ended {left} bytes early at {offset + length - left}.")


def _verify(source: _Disk, destination: _Disk, segments: list[StreamSegment]) -> None:
    """Reads the copy back. Raises `Differs` at the first difference."""
    host = destination.session.host
    expected, size = source.look_again()
    facts, copied = destination.look_again()
    if (copied, facts.capacity, facts.format) != (size, expected.capacity, expected.format):
        raise DriverError(
            f"{host}: {destination.label} is {facts.format} of {facts.capacity} bytes in {copied}, not"
            f" {expected.format} of {expected.capacity} in {size} like its source."
        )
    for segment in segments:
        if _read(destination, segment.offset, segment.length) != segment.sha256:
            raise Differs(
                f"{host}: {destination.label} differs from its source between"
                f" {segment.offset} and {segment.offset + segment.length}; copy it anew."
            )


@contextmanager
def opened(session: Session, doing: str) -> Iterator[libvirt.virStream]:
    """A stream that is finished, or aborted if anything goes wrong. Most errors come at the finish."""
    with session.asking(doing, begun=True):
        stream = session.connection.newStream(0)
        try:
            yield stream
            stream.finish()
        except BaseException:
            _abort(stream)
            raise


def send_all(stream: libvirt.virStream, data: bytes) -> None:
    """Sends all of it, in as many parts as libvirt takes."""
    while data:
        data = data[stream.send(data) :]


def _abort(stream: libvirt.virStream) -> None:
    try:
        stream.abort()
    except libvirt.libvirtError:
        return
