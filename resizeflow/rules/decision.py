"""What a confirm or a revert must satisfy, in Nova's order (nova/compute/api.py `confirm_resize`, `revert_resize`).

Nova asks for the source's service too. Ours does without: what a source that is away still has becomes a debt of the
confirm; a revert looks first and gives way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from resizeflow.errors import InstanceInvalidState, MigrationNotFoundByStatus
from resizeflow.persistence.models import Migration
from resizeflow.rules.request import Request, idle, no_unfinished_job, not_locked
from resizeflow.states import MigrationStatus, VmState


@dataclass(frozen=True)
class Decision(Request):
    """A confirm or a revert of the instance's open migration."""

    migration: Migration | None

    @property
    def resize(self) -> Migration:
        """Raises MigrationNotFoundByStatus."""
        if self.migration is None:
            raise MigrationNotFoundByStatus(
                f"Instance {self.instance.name} has not been resized: there is nothing to {self.action}."
            )
        return self.migration


def resized(decision: Decision) -> None:
    """InstanceInvalidState, 409: only what waits for a decision can be decided."""
    if decision.instance.vm_state is not VmState.RESIZED:
        why = "it has not been resized."
        if decision.migration is not None:
            why = _is_on_its_way(decision.migration)
        raise InstanceInvalidState(f"{decision.cannot} while it is in vm_state {decision.instance.vm_state}: {why}")


def finished(decision: Decision) -> None:
    """MigrationNotFoundByStatus, 400; where it is being decided now InstanceInvalidState, 409 (Nova: 400)."""
    if decision.resize.status is not MigrationStatus.FINISHED:
        raise InstanceInvalidState(f"{decision.cannot}: {_is_on_its_way(decision.resize)}")


def _is_on_its_way(migration: Migration) -> str:
    return f"its migration is {migration.status}; `resizeflow migration watch {migration.id[:8]}` follows it."


DECIDING: tuple[Callable[[Decision], None], ...] = (not_locked, resized, idle, finished, no_unfinished_job)
