"""The two programs of a bridge's member, assembled from its VLANs: what comes into the bridge, and what leaves it.

Within the bridge every frame has a tag; what comes from a member that nobody put into a VLAN has none, and leaves by no
other.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass, field

_MOV, _MOV_FROM, _LOAD, _AND = 0xB7, 0xBF, 0x61, 0x57
_EQUAL, _UNEQUAL, _ABOVE, _BELOW = 0x15, 0x55, 0x25, 0xA5
_CALL, _EXIT = 0x85, 0x95
_VLAN_PUSH, _VLAN_POP = 18, 19
_PRESENT, _TCI = 20, 24
"""Where a frame's `struct __sk_buff` says whether it has a tag, and which."""
_NEXT, _DROP = -1, 2
_8021Q = 0x0081
"""The tag's protocol, in the network's order of bytes."""


@dataclass(frozen=True)
class Vlans:
    """What a member is in: VLANs with tags, VLANs without, and the one that frames without a tag come into."""

    tagged: frozenset[int] = frozenset()
    untagged: frozenset[int] = frozenset()
    pvid: int | None = None


@dataclass
class _Code:
    """Instructions, in their order."""

    parts: list[bytes] = field(default_factory=list)

    def add(self, code: int, to: int = 0, *, source: int = 0, jump: int = 0, value: int = 0) -> None:
        self.parts.append(struct.pack("<BBhi", code, source << 4 | to, jump, value))

    def end(self, verdict: int) -> None:
        self.add(_MOV, 0, value=verdict)
        self.add(_EXIT)

    def in_ranges(self, vlans: Collection[int], then: "_Code") -> None:
        """If the frame's VLAN (in register 7) is one of these, `then`, which ends; else what follows."""
        for first, last in ranges(vlans):
            self.add(_BELOW, 7, jump=1 + len(then.parts), value=first)
            self.add(_ABOVE, 7, jump=len(then.parts), value=last)
            self.parts += then.parts

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


def coming_in(vlans: Vlans) -> bytes:
    """A frame that comes from a member into the bridge."""
    code, bare = _begun(), _Code()
    if vlans.pvid is None:
        bare.end(_DROP)
    else:
        bare.add(_MOV_FROM, 1, source=6)
        bare.add(_MOV, 2, value=_8021Q)
        bare.add(_MOV, 3, value=vlans.pvid)
        bare.add(_CALL, value=_VLAN_PUSH)
        bare.end(_NEXT)
    code.add(_UNEQUAL, 8, jump=len(bare.parts), value=0)
    code.parts += bare.parts
    code.in_ranges(vlans.tagged | vlans.untagged, _ending(_NEXT))
    code.end(_DROP)
    return bytes(code)


def going_out(vlans: Vlans) -> bytes:
    """A frame that leaves the bridge by a member."""
    code, pop = _begun(), _Code()
    code.add(_UNEQUAL, 8, jump=2, value=0)
    code.end(_DROP)
    pop.add(_MOV_FROM, 1, source=6)
    pop.add(_CALL, value=_VLAN_POP)
    pop.end(_NEXT)
    code.in_ranges(vlans.untagged, pop)
    code.in_ranges(vlans.tagged, _ending(_NEXT))
    code.end(_DROP)
    return bytes(code)


def ranges(vlans: Collection[int]) -> list[tuple[int, int]]:
    """Numbers as ranges, both ends included."""
    found: list[tuple[int, int]] = []
    for number in sorted(vlans):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _begun() -> _Code:
    """The frame in register 6, its VLAN in 7, whether it has one in 8."""
    code = _Code()
    code.add(_MOV_FROM, 6, source=1)
    code.add(_LOAD, 8, source=6, jump=_PRESENT)
    code.add(_LOAD, 7, source=6, jump=_TCI)
    code.add(_AND, 7, value=0xFFF)
    return code


def _ending(verdict: int) -> _Code:
    code = _Code()
    code.end(verdict)
    return code
