"""Linux bridges, by iproute2."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from resizeflow.drivers.bridge import VLANS, BridgeHost, BridgeLink, Member
from resizeflow.drivers.interface import Missing, Refused, Unknown
from resizeflow.drivers.shell.runner import Runner

NAME = re.compile(r"[\w.@:-]{1,15}", re.ASCII)
"""Names of devices that mean themselves to a shell, too, which is what ssh hands them to."""
UNTAGGED, PVID = "Egress Untagged", "PVID"


class ShellBridges(BridgeHost):
    """The bridges of a host, for the length of a call. Shapes: iproute2's `ip -j -d link show` and `bridge -j vlan
    show`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def bridge_links(self, bridge: str) -> tuple[BridgeLink, ...]:
        devices = {str(device["ifname"]): device for device in self._listed("ip", "-j", "-d", "link", "show")}
        own = devices.get(bridge)
        if own is None or _kind(own) != "bridge":
            raise Missing(f"There is no bridge {bridge}.")
        if not _data(own).get("vlan_filtering"):
            raise Refused(
                f"Bridge {bridge} does not filter VLANs: `ip link set {bridge} type bridge vlan_filtering 1`."
            )
        vlans = self._vlans()
        links = [_link(bridge, Member.SELF, vlans)]
        for name, device in devices.items():
            if device.get("master") == bridge:
                links.append(_link(name, _member(device), vlans))
        return tuple(sorted((_told_apart(link, devices, links[0].pvid) for link in links), key=lambda one: one.device))

    def carry_vlan(self, bridge: str, vlan: int) -> None:
        for link in self.bridge_links(bridge):
            if link.member is Member.UPLINK and vlan not in link.vlans:
                self._change("add", link.device, vlan)

    def drop_vlan(self, bridge: str, vlan: int) -> None:
        for link in self.bridge_links(bridge):
            if link.carries(vlan):
                self._change("del", link.device, vlan)

    def set_access_vlan(self, device: str, vlan: int) -> None:
        found = {str(one["ifname"]): one for one in self._listed("ip", "-j", "-d", "link", "show")}
        if device not in found:
            raise Missing(f"There is no device {device}.")
        if _member(found[device]) is not Member.TAP:
            raise Refused(f"{device} is no machine's.")
        link = _link(device, Member.TAP, self._vlans())
        if not (vlan in link.vlans & link.untagged and link.pvid == vlan):
            self._change("add", device, vlan, "pvid", "untagged")
        for other in sorted(link.vlans - {vlan}):
            self._change("del", device, other)

    def _vlans(self) -> dict[str, Any]:
        """Those of each member of any bridge, by name."""
        return {str(one["ifname"]): one.get("vlans", ()) for one in self._listed("bridge", "-j", "vlan", "show")}

    def _change(self, verb: str, device: str, vlan: int, *flags: str) -> None:
        if not NAME.fullmatch(device) or vlan not in VLANS:
            raise Refused(f"'{device}' is no name of a device, or {vlan} no VLAN, that is handed to a shell.")
        self._runner.act("bridge", "vlan", verb, "dev", device, "vid", str(vlan), *flags)

    def _listed(self, *command: str) -> list[dict[str, Any]]:
        printed = self._runner.ask(*command)
        try:
            found: list[dict[str, Any]] = json.loads(printed or "[]")
        except ValueError:
            raise Unknown(f"'{' '.join(command)}' did not print JSON: {printed[:80]!r}.") from None
        return [one for one in found if "ifname" in one]


def _info(device: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = device.get("linkinfo") or {}
    return found


def _kind(device: dict[str, Any]) -> str:
    return str(_info(device).get("info_kind", ""))


def _data(device: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _info(device).get("info_data") or {}
    return found


def _member(device: dict[str, Any]) -> Member:
    return Member.TAP if _kind(device) == "tun" else Member.UPLINK


def _told_apart(link: BridgeLink, devices: dict[str, dict[str, Any]], own: int | None) -> BridgeLink:
    """A pair of virtual devices is an uplink only if it has tags, or is in the bridge's `own` VLAN."""
    pair = link.member is Member.UPLINK and _kind(devices[link.device]) == "veth"
    if pair and link.vlans == link.untagged and (own is None or link.pvid != own):
        return replace(link, member=Member.PORT)
    return link


def _link(device: str, member: Member, vlans: dict[str, Any]) -> BridgeLink:
    known = dict(_numbered(vlans.get(device, ())))
    untagged = frozenset(number for number, flags in known.items() if UNTAGGED in flags)
    pvid = next((number for number, flags in known.items() if PVID in flags), None)
    return BridgeLink(device, member, frozenset(known), untagged, pvid)


def _numbered(vlans: Any) -> Iterator[tuple[int, tuple[str, ...]]]:
    for one in vlans:
        for number in range(one["vlan"], one.get("vlanEnd", one["vlan"]) + 1):
            yield number, tuple(one.get("flags", ()))
