"""What reaches a peer without being sent to it: announcements of an address (RARP)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lab.system import TIED, wait_until
from lab.vlans import Peer

LISTEN = """
import socket, sys, time
rarp, mac = 0x8035, bytes.fromhex(sys.argv[1].replace(":", ""))
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(rarp))
link.bind(("eth0", rarp))
print("listening", flush=True)
while True:
    if link.recv(2048)[6:12] == mac:
        print(time.time(), flush=True)
"""


class Announcements:
    """Those of one MAC address that reach a peer, from now on."""

    def __init__(self, peer: Peer, mac: str, log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [*TIED, *peer.within, sys.executable, "-c", LISTEN, mac], stdout=output, stderr=output
            )
        assert wait_until(lambda: bool(log.read_text()), 20), "nobody listens"

    @property
    def times(self) -> list[float]:
        """When each came, in seconds of the epoch."""
        return [float(line) for line in self._log.read_text().splitlines()[1:]]

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
