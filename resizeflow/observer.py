"""Who looks on while a worker works: its metrics, its traces, its log. What they see has been committed.

Most of it is what the event log is told anyway, so nothing has to be said a second time for them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from resizeflow.handover import Attention, Handover, Stopping, Waiting
from resizeflow.persistence.job_board import BoardJob
from resizeflow.persistence.transaction import Transaction

LOG = logging.getLogger(__name__)
ENDS: dict[type[Handover], str] = {
    Waiting: "waiting",
    Stopping: "stopped",
    Attention: "needs-attention",
    Handover: "put-down",
}
"""How a run leaves a flow that has not ended: another run goes on with it, at once or when it can."""
OUTCOMES = ("done", "rolled-back", "lease-lost", *ENDS.values())
"""How a run can end."""


class Observer:
    """Sees nothing, unless a subclass looks. It is called in the thread of what it sees, and must not wait."""

    def begun(self, job: BoardJob) -> None:
        """A worker has taken a job and runs it, in this thread."""

    def ended(self, job: BoardJob) -> None:
        """It has put it down; see `how_it_ended`."""

    def committed(self, tx: Transaction) -> None:
        """A transaction of this process was committed: `tx.events.written` are its lines of the event log, `tx.moved`
        the bytes that were copied since the one before."""

    def not_renewed(self) -> None:
        """The leases of the running jobs could not be prolonged this time."""

    def close(self) -> None:
        """The worker ends."""


class Observers(Observer):
    """Several of them. What goes wrong in one is told, and disturbs neither the others nor the work."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = observers

    def begun(self, job: BoardJob) -> None:
        self._each("begun", job)

    def ended(self, job: BoardJob) -> None:
        self._each("ended", job)

    def committed(self, tx: Transaction) -> None:
        self._each("committed", tx)

    def not_renewed(self) -> None:
        self._each("not_renewed")

    def close(self) -> None:
        self._each("close")

    def _each(self, what: str, *args: Any) -> None:
        for observer in self._observers:
            try:
                getattr(observer, what)(*args)
            except Exception:
                LOG.exception("%s did not see what happened", type(observer).__name__)


def how_it_ended(job: BoardJob) -> str:
    """One of OUTCOMES."""
    if job.held.lost:
        return "lease-lost"
    if job.handover is not None:
        return next(word for kind, word in ENDS.items() if isinstance(job.handover, kind))
    return "rolled-back" if job.held.turned_back else "done"
