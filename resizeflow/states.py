"""The state values of Nova's resize, by Nova's names (nova/compute/vm_states.py, task_states.py)."""

from __future__ import annotations

import enum


class VmState(enum.StrEnum):
    """Where the machine is in its life, seen from outside."""

    ACTIVE = "active"
    STOPPED = "stopped"
    RESIZED = "resized"
    ERROR = "error"


class TaskState(enum.StrEnum):
    """What is being done to the machine; None when nothing is."""

    RESIZE_PREP = "resize_prep"
    RESIZE_MIGRATING = "resize_migrating"
    RESIZE_MIGRATED = "resize_migrated"
    RESIZE_FINISH = "resize_finish"
    RESIZE_REVERTING = "resize_reverting"
    RESIZE_CONFIRMING = "resize_confirming"
    """Never set: a confirm shows in the migration's status alone (so it does in Nova)."""
    DELETING = "deleting"
    """A finished resize is confirmed, then the machine is forgotten."""


class MigrationStatus(enum.StrEnum):
    """How far a migration has come."""

    PRE_MIGRATING = "pre-migrating"
    MIGRATING = "migrating"
    POST_MIGRATING = "post-migrating"
    FINISHED = "finished"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    REVERTING = "reverting"
    REVERTED = "reverted"
    ERROR = "error"


TERMINAL = frozenset({MigrationStatus.CONFIRMED, MigrationStatus.REVERTED, MigrationStatus.ERROR})
"""A migration in one of these is history: it holds nothing and no job of it is left."""
UNDECIDED = frozenset({MigrationStatus.FINISHED, MigrationStatus.CONFIRMING, MigrationStatus.REVERTING})
"""Finished, neither confirmed nor reverted: old and new size are both paid for."""


class Outcome(enum.StrEnum):
    """How something ended that a line of the event log tells of."""

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"
    """Nothing happened."""
    UNKNOWN = "unknown"
    """No answer: it is looked at again."""
    WAITING = "waiting"
    NEEDS_ATTENTION = "needs-attention"


class Direction(enum.StrEnum):
    """Which way a job goes; it turns back once and never forward again."""

    FORWARD = "forward"
    BACK = "back"


class OnCrash(enum.StrEnum):
    """What becomes of a job whose worker died."""

    RESUME = "resume"
    """The next worker goes on."""
    ROLLBACK = "rollback"
    """The next worker undoes it, unless it is past its pivot."""


class JobState(enum.StrEnum):
    QUEUED = "queued"
    """Nobody works on it; `not_before` says from when it may be taken."""
    RUNNING = "running"
    """A worker holds its lease."""
    NEEDS_ATTENTION = "needs-attention"
    """A person must decide; `reason` says what."""
    DONE = "done"
