"""Revert: the machine goes back to its source, as it was when it left. What it wrote on its own disks is discarded."""

from __future__ import annotations

from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.instance import FinishRevert, MoveInstanceBack
from resizeflow.tasks.leaving import PowerOffDestination, RemoveDestination, RetireDestination
from resizeflow.tasks.returning import CheckSource, RestoreSource, StartSource
from resizeflow.tasks.volumes import ConnectSourceVolumes, DetachDestinationVolumes

# Until StartSource's pivot it can turn back to the finished resize, then it only goes forward.
REVERT_V1: tuple[type[MoveTask], ...] = (
    CheckSource,
    PowerOffDestination,
    RetireDestination,
    DetachDestinationVolumes,
    ConnectSourceVolumes,
    MoveInstanceBack,
    RestoreSource,
    StartSource,
    RemoveDestination,
    FinishRevert,
)
