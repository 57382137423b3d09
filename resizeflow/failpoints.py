"""Named points at which a run can be made to die, for tests and for operators who rehearse.

Every act and every commit passes three or two points by construction (`resizeflow.gate`,
`resizeflow.persistence.database`); nobody adds them by hand. Off, a point costs one comparison. One environment
variable arms one of them:

    RESIZEFLOW_FAILPOINT='StartDestination.start_paused#1.after=kill'

Actions: `kill` (SIGKILL to ourselves), `stop` (SIGSTOP), `hang` (sleeps for ever), `delay:SECONDS`, `raise`
(an error as if the driver had refused), `lose-reply` (only at an act's `after`: the effect has happened, the caller
sees a time-out). `RESIZEFLOW_FAILPOINT_LOG=FILE` writes the name of every point passed to a file: the list of
points is discovered, not written down.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

VARIABLE = "RESIZEFLOW_FAILPOINT"
LOG_VARIABLE = "RESIZEFLOW_FAILPOINT_LOG"


class FailpointError(Exception):
    """What an armed point with `raise` raises; drivers' callers see it as a refusal."""


class ReplyLost(Exception):
    """What an armed point with `lose-reply` raises."""


_armed, _, _action = os.environ.get(VARIABLE, "").partition("=")
_log = os.environ.get(LOG_VARIABLE)


def hit(name: str) -> None:
    """Passes the point `name`: nothing happens unless it is armed."""
    if not _armed and not _log:
        return
    if _log:
        with Path(_log).open("a", encoding="utf-8") as log:
            log.write(f"{name}\n")
    if name == _armed:
        _act(name, _action)


def _act(name: str, action: str) -> None:
    verb, _, argument = action.partition(":")
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif verb == "hang":
        while True:
            time.sleep(3600)
    elif verb == "delay":
        time.sleep(float(argument))
    elif verb == "raise":
        raise FailpointError(f"failpoint {name}")
    elif verb == "lose-reply":
        raise ReplyLost(f"failpoint {name}")
    else:
        raise ValueError(f"{VARIABLE}: unknown action {action!r}; use kill, stop, hang, delay:S, raise, lose-reply.")
