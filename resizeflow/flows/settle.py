"""Settling the debts of a closed migration on hosts that answer again."""

from __future__ import annotations

from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.debts import SettleDebts

# One task: what was left behind is removed.
SETTLE_V1: tuple[type[MoveTask], ...] = (SettleDebts,)
