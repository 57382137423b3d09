"""What a revert that discards writes must satisfy: a resize that is past its point of no return and cannot finish.

Nova has no way out of there but an administrator's `reset-state`, which repairs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from resizeflow.errors import InstanceInvalidState, ServiceUnavailable
from resizeflow.persistence.models import Host
from resizeflow.rules.decision import Decision
from resizeflow.rules.request import not_locked


def past_its_pivot(decision: Decision) -> None:
    """InstanceInvalidState, 409: before the pivot a rollback loses nothing."""
    job = decision.job
    if job is None or not job.flow.startswith("resize_v"):
        raise InstanceInvalidState(f"{decision.cannot}: no resize of it is under way, so there is none to give up.")
    if job.pivot_at is None:
        short = job.migration_id[:8]
        raise InstanceInvalidState(
            f"{decision.cannot}: its resize is not past its point of no return; nothing is discarded when "
            f"`resizeflow migration rollback {short}` undoes it."
        )


def answers_or_is_fenced(decision: Decision, destination: Host, away: str | None) -> None:
    """ServiceUnavailable, 409: the revert has to prove that the machine is off at its destination before it starts the
    source. Who asks now is told now, while the resize still goes on by itself when the host is back. A fence from
    before the pivot says nothing: the machine was started there after it."""
    pivot_at = decision.job.pivot_at if decision.job else None
    proven = destination.fenced_at is not None and (pivot_at is None or destination.fenced_at > pivot_at)
    if away is not None and not proven:
        raise ServiceUnavailable(
            f"{decision.cannot}: the {away}. Make sure that nothing runs there, say so with "
            f"`resizeflow host set {destination.name} --fenced`, and ask again."
        )


GIVING_UP: tuple[Callable[[Decision], None], ...] = (not_locked, past_its_pivot)
