"""What removing a machine must satisfy where nothing has to be confirmed first.

Nova deletes at any time, and leaves what was in flight to periodic tasks; where it misses something, allocations and
files are leaked (bugs 1848343, 1392527). Here what is in flight ends first, one way or the other.
"""

from __future__ import annotations

from collections.abc import Callable

from resizeflow.errors import InstanceInvalidState
from resizeflow.rules.decision import Decision
from resizeflow.rules.request import no_unfinished_job, not_locked


def nothing_in_flight(decision: Decision) -> None:
    """InstanceInvalidState, 409."""
    if decision.migration is not None:
        short = decision.migration.id[:8]
        raise InstanceInvalidState(
            f"{decision.cannot} while its migration {short} is {decision.migration.status}: let that end "
            f"(`resizeflow migration watch {short}`), or undo it (`resizeflow migration rollback {short}`)."
        )


def nothing_unfinished(decision: Decision) -> None:
    """As for all requests; but what an earlier migration left behind on a host keeps nobody."""
    if decision.job is not None and not decision.job.flow.startswith("settle_v"):
        no_unfinished_job(decision)


REMOVING: tuple[Callable[[Decision], None], ...] = (not_locked, nothing_in_flight, nothing_unfinished)
