"""A peer that pings all the time, and what became of its pings."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

from lab.system import TIED, wait_until
from lab.vlans import Peer

ANSWER = re.compile(r"\[(?P<time>\d+\.\d+)\] \d+ bytes from .* icmp_seq=(?P<number>\d+) .*time=(?P<took>[\d.]+) ms")
SENT = re.compile(r"(?P<number>\d+) packets transmitted")


class Pings:
    """Ten pings a second from a peer to an address, from now on. It knows the other's MAC address, and asks nobody."""

    def __init__(self, peer: Peer, address: str, mac: str, log: Path) -> None:
        peer.knows(address, mac)
        self.peer = peer
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [*TIED, *peer.within, "ping", "-n", "-D", "-i", "0.1", address], stdout=output, stderr=output
            )

    @property
    def answers(self) -> list[float]:
        """When each answer came, in seconds of the epoch."""
        return [float(found["time"]) for found in ANSWER.finditer(self._log.read_text())]

    @property
    def sent(self) -> int:
        """How many there were, once it has stopped."""
        found = SENT.search(self._log.read_text())
        return int(found["number"]) if found else 0

    def wait(self, more: int = 5, *, timeout: float = 60) -> None:
        """Until so many more answers have come."""
        before = len(self.answers)
        assert wait_until(lambda: len(self.answers) >= before + more, timeout), f"no answers: {self._log}"

    def first_after(self, moment: float, *, timeout: float = 60) -> float:
        """When the first answer came after a moment."""
        assert wait_until(lambda: any(time > moment for time in self.answers), timeout), f"no answers: {self._log}"
        return next(time for time in self.answers if time > moment)

    def stop(self) -> None:
        """Ends it; it counts up what it sent."""
        self._process.send_signal(2)
        self._process.wait(10)

    def longest_silence(self) -> tuple[float, float]:
        """The last answer before the longest time without, and the first one after it."""
        times = self.answers
        return max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])
