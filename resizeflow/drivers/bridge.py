"""What resizeflow asks of a host's Linux bridges: in which VLANs their members are, on bridges that filter VLANs.

libvirt puts a tap into a bridge and knows nothing of the bridge's VLANs (it learns that with version 11), so this goes
another way to the host, its *shell*: words that run a command there.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from resizeflow.drivers.interface import Effect, act, effects_of, look

VLANS = range(1, 4095)
"""What a VLAN may be numbered."""


class Member(enum.StrEnum):
    """What takes part in a bridge."""

    UPLINK = "uplink"
    """By which VLANs come to the host: a network card, a bond, and all else that is none of the others."""
    TAP = "tap"
    """A machine's."""
    PORT = "port"
    """A pair of virtual devices that has no tags, and is not in the bridge's own VLAN: a container's."""
    SELF = "self"
    """The bridge's own device, by which its host takes part."""


@dataclass(frozen=True)
class BridgeLink:
    """A member of a bridge, and its VLANs; `untagged` are those that leave it without a tag, `pvid` is the one that
    frames without a tag come into."""

    device: str
    member: Member
    vlans: frozenset[int] = frozenset()
    untagged: frozenset[int] = frozenset()
    pvid: int | None = None

    def is_in(self, vlan: int) -> bool:
        """Whether it is in one VLAN, without tags, and in no other."""
        return self.vlans == self.untagged == {vlan} and self.pvid == vlan

    def carries(self, vlan: int) -> bool:
        """Whether it is an uplink that a VLAN is brought to the host by, with tags."""
        return self.member is Member.UPLINK and vlan in self.vlans - self.untagged


class BridgeHost(ABC):
    """The bridges of one host. Every method raises `DriverError`s only."""

    @look
    @abstractmethod
    def bridge_links(self, bridge: str) -> tuple[BridgeLink, ...]:
        """The members of a bridge, itself too, by name. Raises `Missing` if there is no such bridge, `Refused` if it
        does not filter VLANs."""

    @act
    @abstractmethod
    def carry_vlan(self, bridge: str, vlan: int) -> None:
        """Every uplink of the bridge is in the VLAN, with tags; one that is in it already, also without, is left as it
        is. Killed in the middle some are."""

    @act
    @abstractmethod
    def drop_vlan(self, bridge: str, vlan: int) -> None:
        """No uplink of the bridge is in the VLAN any more with tags; what is without is how the host itself is
        reached. Killed in the middle some are."""

    @act
    @abstractmethod
    def set_access_vlan(self, device: str, vlan: int) -> None:
        """A machine's tap is in the VLAN, without tags, and in no other. `Missing` if there is no such device,
        `Refused` if it is no tap. Killed in the middle it is in the VLAN, and may be in an older one."""


EFFECTS: Mapping[str, Effect] = effects_of(BridgeHost)
