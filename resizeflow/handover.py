"""Leaving a flow without lying to TaskFlow.

A `Handover` is a BaseException: TaskFlow does not catch it, so it leaves the engine with the atom RUNNING or
REVERTING, exactly as a kill would, and a later run goes on from there (docs/architecture.md).
"""

from __future__ import annotations


class Handover(BaseException):
    """The job is put down, not failed: `reason` for people, `delay` seconds before anybody takes it up again."""

    counts = True
    """Whether it counts as an attempt without progress; too many of them need a person."""

    def __init__(self, reason: str, *, delay: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delay = delay


class Waiting(Handover):
    """Something outside must happen first (a host comes back); it may take as long as it takes."""

    counts = False


class LeaseLost(Handover):
    """Another worker has the job, or may have it: nothing more may be touched or written."""


class TurnBack(Handover):
    """The job's direction is back although this run goes forward: it is loaded anew and rolls back."""

    counts = False


class Stopping(Handover):
    """This worker was asked to stop: the job is kept for the next one."""

    counts = False


class Attention(Handover):
    """Nothing can go on without a person's decision."""
