"""Removing a machine whose resize is finished: it is confirmed, then forgotten (Nova's delete in VERIFY_RESIZE)."""

from __future__ import annotations

from resizeflow.flows.confirm import CONFIRM_V1
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.removal import ForgetInstance

# Nothing of the way back is left on the source, and the machine's own record goes last.
REMOVE_V1: tuple[type[MoveTask], ...] = (*CONFIRM_V1, ForgetInstance)
