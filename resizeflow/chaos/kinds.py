"""The kinds of cases, for the command's help."""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "kills": "killed at every point, then resumed, or rolled back",
    "failures": "every effect refused once, every reply lost once, on the way and on the way back",
    "rollbacks": "a failure turns the flow back, killed at every point of that",
    "stops": "stopped at every point while another worker ends the job, then woken",
    "reboots": "killed at every point, and a host loses its power and boots before the job is taken up",
    "pairs": "killed at every point, and killed again at every point of the recovery",
}
SINGLE = ("kills", "failures", "rollbacks")
"""What goes wrong once."""
