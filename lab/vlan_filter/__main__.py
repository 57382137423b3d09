"""iproute2's commands on bridges whose VLANs are filtered here: `python -m lab.vlan_filter TABLE COMMAND...`.

TABLE is a file of the network namespace that this runs in. `ip` is passed on, what it says of bridges amended; of
`bridge` there are `vlan show`, `vlan add` and `vlan del`, with the kernel's refusals.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.vlan_filter import bpf
from lab.vlan_filter.program import Vlans, coming_in, going_out

Flags = dict[str, list[str]]
"""The flags of a member by its VLANs."""
UNTAGGED, PVID = "Egress Untagged", "PVID"


class RefusedError(Exception):
    """What the kernel would say."""


def main() -> int:
    """Runs one command; 255 and a sentence if it is refused, as iproute2 does."""
    table, *command = sys.argv[1:]
    try:
        if command[:1] == ["bridge"]:
            _bridge(Path(table), command[1:])
        else:
            _ip(Path(table), command)
    except RefusedError as error:
        print(error, file=sys.stderr)
        return 255
    except subprocess.CalledProcessError as error:
        print(error.stderr.strip(), file=sys.stderr)
        return error.returncode
    return 0


def _ip(path: Path, command: list[str]) -> None:
    """Passed on; a bridge that is in a VLAN itself says that it filters them."""
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "-j" not in command:
        print(printed, end="")
        return
    found = json.loads(printed or "[]")
    with _table(path) as table:
        for device in found:
            information = device.get("linkinfo", {})
            if information.get("info_kind") == "bridge" and str(device["ifindex"]) in table:
                information["info_data"]["vlan_filtering"] = 1
    print(json.dumps(found))


def _bridge(path: Path, command: list[str]) -> None:
    words = [word for word in command if word != "-j"]
    with _table(path) as table:
        if words[:2] == ["vlan", "show"]:
            print(json.dumps(_shown(table)))
        elif words[:1] == ["vlan"] and words[1] in ("add", "del"):
            _change(table, words[1], words[2:])
        else:
            raise RefusedError(f"Command {' '.join(words)!r} is unknown here.")


@contextlib.contextmanager
def _table(path: Path) -> Iterator[dict[str, Flags]]:
    """The VLANs of each member, by its index; one that is gone is forgotten. Written back if it was changed."""
    path.touch()
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        written = file.read()
        table: dict[str, Flags] = json.loads(written or "{}")
        there = {str(index) for index, _ in socket.if_nameindex()}
        table = {index: flags for index, flags in table.items() if index in there}
        yield table
        now = json.dumps(table)
        if now != written:
            file.seek(0)
            file.write(now)
            file.truncate()


def _shown(table: dict[str, Flags]) -> list[dict[str, Any]]:
    names = {str(index): name for index, name in socket.if_nameindex()}
    return [
        {
            "ifname": names[index],
            "vlans": [
                {"vlan": int(vlan), **({"flags": flags} if flags else {})}
                for vlan, flags in sorted(vlans.items(), key=lambda item: int(item[0]))
            ],
        }
        for index, vlans in table.items()
        if vlans
    ]


def _change(table: dict[str, Flags], verb: str, words: list[str]) -> None:
    options = dict(zip(words[::2], words[1::2], strict=False))
    device = options["dev"]
    own = "self" in words
    try:
        index = socket.if_nametoindex(device)
    except OSError:
        raise RefusedError(f'Cannot find bridge device "{device}"') from None
    if not own and not Path(f"/sys/class/net/{device}/brport").exists():
        raise RefusedError("RTNETLINK answers: Operation not supported")
    first, _, last = options["vid"].partition("-")
    vlans = table.setdefault(str(index), {})
    for number in map(str, range(int(first), int(last or first) + 1)):
        if verb == "del":
            vlans.pop(number, None)
            continue
        flags = [flag for flag, word in ((PVID, "pvid"), (UNTAGGED, "untagged")) if word in words]
        if PVID in flags:
            for others in vlans.values():
                others[:] = [flag for flag in others if flag != PVID]
        vlans[number] = flags
    _enforce(index, vlans, own=own)


def _enforce(index: int, vlans: Flags, *, own: bool) -> None:
    """The programs of a member; what the bridge's own device receives is what leaves the bridge."""
    untagged = frozenset(int(vlan) for vlan, flags in vlans.items() if UNTAGGED in flags)
    pvid = next((int(vlan) for vlan, flags in vlans.items() if PVID in flags), None)
    now = Vlans(frozenset(map(int, vlans)) - untagged, untagged, pvid)
    incoming, outgoing = (bpf.EGRESS, bpf.INGRESS) if own else (bpf.INGRESS, bpf.EGRESS)
    for code, place in ((coming_in(now), incoming), (going_out(now), outgoing)):
        program = bpf.load(code)
        bpf.attach(program, index, place)
        os.close(program)


if __name__ == "__main__":
    sys.exit(main())
