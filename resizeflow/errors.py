"""Errors that a person reads: one sentence, what was wrong and what to do, and the exit code of the command.

Exit codes (stable, documented in docs/reference.md): 0 done or accepted; 1 failed and rolled back; 2 wrong usage;
3 needs attention; 4 refused by a rule; 5 interrupted, the job is kept.
"""

from __future__ import annotations


class ResizeflowError(Exception):
    """Base of all errors shown to the operator. `exit_code` is what the command ends with, `http_code` what an HTTP
    front answers: where Nova refuses the same, Nova's."""

    exit_code = 1
    http_code = 500
    page: str | None = None
    """Of the runbook; None: the one of its class (`resizeflow.runbook`)."""


class UsageError(ResizeflowError):
    """The call itself is wrong: an unknown name, an impossible option, an unreadable configuration."""

    exit_code = 2
    http_code = 400


class DatabaseNotOpened(UsageError):
    """The state database cannot be opened: it is down, or the configuration does not lead to it."""


class NotFound(UsageError):
    """Something named in the call does not exist."""

    http_code = 404


class InstanceNotFound(NotFound):
    """No managed machine of that name or id."""


class ComputeHostNotFound(NotFound):
    """The host asked for is not a managed one. Nova answers 400: the request is found, its argument is wrong."""

    http_code = 400


class FlavorNotFound(NotFound):
    """There is no flavor asked for that the machine's project may use now: missing, deleted, private or disabled."""

    http_code = 400


class NeedsAttention(ResizeflowError):
    """A job waits for a person."""

    exit_code = 3


class LogBroken(ResizeflowError):
    """The event log is not what was written."""

    exit_code = 3


class RuleError(ResizeflowError):
    """A rule refuses the request; nothing was changed. The subclasses have the names of Nova's exceptions
    (nova/exception.py)."""

    exit_code = 4
    http_code = 400


class Conflict(RuleError):
    """The request does not fit the state that things are in now (Nova: 409)."""

    http_code = 409


class InstanceIsLocked(Conflict):
    """A locked machine is neither resized, confirmed nor reverted."""


class InstanceInvalidState(Conflict):
    """The machine's vm_state, task_state, power state or unfinished job does not allow it now."""


class InstanceNotReady(Conflict):
    """The machine is on no host: where the records have it there is no domain."""


class ServiceUnavailable(Conflict):
    """The machine's host is away or fenced."""


class CinderConnectionFailed(Conflict):
    """Cinder does not answer, or is not configured (Nova: 500)."""


class NeutronConnectionFailed(Conflict):
    """Neutron does not answer, or is not configured (Nova: 500)."""


class MigrationPreCheckError(Conflict):
    """The machine has something that a move would lose. Nova finds it on the host, after it said yes."""


class InstanceUpdateConflict(Conflict):
    """Of two requests at once the other one was faster. Nova answers 500 where only its compare-and-swap notices."""


class InvalidMigrationState(Conflict):
    """A job that is done, or past its point of no return, can no longer be resumed or turned back."""

    http_code = 400


class MigrationNotFoundByStatus(RuleError):
    """The machine has no finished resize to confirm or revert."""


class CannotMigrateToSameHost(RuleError):
    """A cold migration to the host where the machine is."""


class UnableToMigrateToSelf(RuleError):
    """A resize on the machine's own host where that is not allowed."""


class CannotResizeToSameFlavor(RuleError):
    """The machine has the flavor asked for."""


class CannotResizeDisk(RuleError):
    """A root disk cannot become none."""


class ResizeError(RuleError):
    """A disk cannot shrink. Nova finds it on the host, after it said yes."""


class FlavorImageConflict(RuleError):
    """The machine's definition cannot be rewritten for the flavor."""


class InvalidVolume(RuleError):
    """A Cinder volume of the machine is not in a state, or of a kind, in which it can be moved."""


class InvalidPort(RuleError):
    """A port of the machine is not bound where the machine is, or of a kind that cannot be moved."""


class OverQuota(RuleError):
    """The project's quota does not allow the new size (Nova: 403)."""

    http_code = 403


class TooManyInstances(OverQuota):
    """What a machine would need of cores, memory, disk or instances exceeds a limit."""


class NoValidHost(RuleError):
    """No host satisfies the request (Nova finds it only after it said yes)."""


class Interrupted(ResizeflowError):
    """The person or the machine stopped us; the job is kept."""

    exit_code = 5
