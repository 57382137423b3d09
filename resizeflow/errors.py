"""Errors that a person reads: one sentence, what was wrong and what to do, and the exit code of the command.

Exit codes (stable, documented in docs/reference.md): 0 done or accepted; 1 failed and rolled back; 2 wrong usage;
3 needs attention; 4 refused by a rule; 5 interrupted, the job is kept.
"""

from __future__ import annotations


class ResizeflowError(Exception):
    """Base of all errors shown to the operator. `exit_code` is what the command ends with."""

    exit_code = 1


class UsageError(ResizeflowError):
    """The call itself is wrong: an unknown name, an impossible option, an unreadable configuration."""

    exit_code = 2


class NotFound(UsageError):
    """Something named in the call does not exist."""


class NeedsAttention(ResizeflowError):
    """A job waits for a person."""

    exit_code = 3


class RuleError(ResizeflowError):
    """A rule refuses the request; nothing was changed. `http_code` is what Nova answers in the same case."""

    exit_code = 4
    http_code = 400


class Conflict(RuleError):
    """The request does not fit the state that things are in now (Nova: 409)."""

    http_code = 409


class OverQuota(RuleError):
    """The project's quota does not allow the new size (Nova: 403)."""

    http_code = 403


class NoValidHost(RuleError):
    """No host satisfies the request (Nova finds it only after it said yes)."""


class Interrupted(ResizeflowError):
    """The person or the machine stopped us; the job is kept."""

    exit_code = 5
