"""Named points at which a run can be made to die, for tests and for operators who rehearse.

Every act and every commit passes three or two points by construction (`resizeflow.gate`,
`resizeflow.persistence.database`); nobody adds them by hand. Off, a point costs one comparison. One environment
variable arms one of them, or several with semicolons between:

    RESIZEFLOW_FAILPOINT='StartDestination.start_paused#1.after=kill'

Actions: `kill` (SIGKILL to ourselves), `stop` (SIGSTOP), `hang` (sleeps for ever), `delay:SECONDS`, `raise` (at an act:
as if the driver had refused; at a commit: as if the database were away, or its answer lost), `lose-reply` (only at an
act's `after`: the effect has happened, the caller sees a time-out). `RESIZEFLOW_FAILPOINT_LOG=FILE` writes the name of
every point passed to a file: the list of points is discovered, not written down.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "RESIZEFLOW_FAILPOINT"
LOG_VARIABLE = "RESIZEFLOW_FAILPOINT_LOG"


class FailpointError(Exception):
    """What an armed point with `raise` raises; drivers' callers see it as a refusal."""


class ReplyLost(Exception):
    """What an armed point with `lose-reply` raises."""


further: dict[str, Callable[[str, str], None]] = {}
"""More actions by their verb, each called with the point's name and what follows the colon: a simulated world arranges
its faults so."""
_armed: dict[str, str] = {}
_log: str | None = None


def arm(points: str, log: str | None = None) -> None:
    """Arms points as the variable would, in place of those armed before; `log` is the file that collects names."""
    global _log  # noqa: PLW0603 - one per process, as the environment is
    _armed.clear()
    _armed.update((name, action) for name, _, action in (point.partition("=") for point in points.split(";")) if name)
    _log = log


arm(os.environ.get(VARIABLE, ""), os.environ.get(LOG_VARIABLE))


def hit(name: str) -> None:
    """Passes the point `name`: nothing happens unless it is armed."""
    if not _armed and not _log:
        return
    if _log:
        with Path(_log).open("a", encoding="utf-8") as log:
            log.write(f"{name}\n")
    if name in _armed:
        _act(name, _armed[name])


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
    elif verb in further:
        further[verb](name, argument)
    else:
        raise ValueError(f"{VARIABLE}: unknown action {action!r}; use kill, stop, hang, delay:S, raise, lose-reply.")
