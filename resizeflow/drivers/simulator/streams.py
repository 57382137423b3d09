"""Copies of volumes through the worker, in a few segments: what has arrived is right only if all before it has."""

from __future__ import annotations

import hashlib

from resizeflow.drivers.hypervisor import StreamSegment, StreamTarget, VolumeFacts
from resizeflow.drivers.interface import Differs, DriverError, Refused
from resizeflow.drivers.simulator.host_session import HostSession
from resizeflow.drivers.simulator.machines import refuse_if_used
from resizeflow.drivers.simulator.store import setting

SEGMENTS = 4


def stream(here: HostSession, pool: str, name: str, target: StreamTarget) -> None:
    """Copies a volume to a peer, a segment at a time."""
    peer = here.peer(target.uri)
    here.refuse_if_late("stream")
    with here.looking("stream") as db:
        shelf = here.shelf(db, pool)
        source = shelf.at(shelf.path_of(name))
        if source.backing_path is not None:
            raise Refused(f"volume '{name}' has a backing file, a stream would copy only its top")
        refuse_if_used(db, here.name, shelf, source, running_only=True)
        content = shelf.content(source.path)
        pause = setting(db, "transfer_seconds") / SEGMENTS
    segments = _segments(content, source.capacity)
    for count, segment in enumerate(segments):
        if count >= len(target.done):
            if here.stopped.wait(pause):
                return
            _receive(peer, target, source, content, count + 1)
            here.emit(segment)
    with peer.looking("volume") as db:
        shelf = peer.shelf(db, target.pool)
        copy = shelf.volume(target.volume)
        if copy is None or (copy.capacity, copy.format) != (source.capacity, source.format):
            raise DriverError(f"volume '{target.volume}' is not of its source's size and format")
        if shelf.content(copy.path) != content or tuple(segments[: len(target.done)]) != target.done:
            raise Differs(f"volume '{target.volume}' differs from its source; copy it anew")


def _receive(there: HostSession, target: StreamTarget, source: VolumeFacts, content: str, count: int) -> None:
    """Takes one more segment."""
    with there.acting("stream", target.volume, source, count, begun=True) as db:
        shelf = there.shelf(db, target.pool)
        volume = shelf.at(shelf.path_of(target.volume))
        refuse_if_used(db, there.name, shelf, volume, running_only=True)
        if source.allocation - volume.allocation > shelf.facts().available:
            raise Refused("cannot write to stream: No space left on device")
        after = _streamed(content, count)
        # An earlier caller may have sent more than it lived to note: that is sent again, over itself.
        begun = [_streamed(content, number) for number in range(count - 1, SEGMENTS + 1)]
        if count > 1 and shelf.content(volume.path) not in begun:
            after = f"{after} (without its beginning)"
        shelf.write(volume.path, after, source.allocation)


def _segments(content: str, capacity: int) -> list[StreamSegment]:
    """The pieces in which a volume is streamed."""
    step = -(-capacity // SEGMENTS)
    return [
        StreamSegment(offset, min(step, capacity - offset), hashlib.sha256(f"{content} {offset}".encode()).hexdigest())
        for offset in range(0, capacity, step)
    ]


def _streamed(content: str, count: int) -> str:
    """What a volume holds when that many segments have arrived."""
    return content if count == SEGMENTS else f"{content} (piece {count})"
