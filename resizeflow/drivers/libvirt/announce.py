"""Telling the network where a machine is now, by QEMU itself: libvirt has no call for it.

libvirt notes once, in its log and in what it tells of the domain, that a command went past it (tainted:
custom-monitor); nothing follows from that.
"""

from __future__ import annotations

import json

import libvirt_qemu

from resizeflow.drivers.interface import Refused
from resizeflow.drivers.libvirt.domains import find_domain
from resizeflow.drivers.libvirt.session import Session

ROUNDS = {"initial": 50, "max": 550, "rounds": 5, "step": 100}
"""As after a live migration (QEMU's announce-* migration parameters): milliseconds to the next frame, 800 in all."""


def announce(session: Session, uuid: str) -> None:
    """A frame from each of a machine's addresses (RARP), a few times: switches learn by which port it is reached."""
    with session.asking(f"announce domain {uuid}"):
        domain = find_domain(session, uuid)
        command = json.dumps({"execute": "announce-self", "arguments": ROUNDS})
        session.fence()
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, command, 0))
    if error := answer.get("error"):
        raise Refused(f"{session.host} could not announce domain {uuid}: {error.get('desc', error)}.")
