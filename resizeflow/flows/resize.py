"""Resize, and cold migration: the same flow with the same flavor."""

from __future__ import annotations

from resizeflow.tasks.allocation import SelectDestination
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.capture import CaptureSource
from resizeflow.tasks.destination import DefineDestination, StartDestination
from resizeflow.tasks.disks import ResizeDisks
from resizeflow.tasks.instance import FinishResize, MoveInstance, OpenMigration
from resizeflow.tasks.network import BindPorts
from resizeflow.tasks.prepare import PrepareDestination
from resizeflow.tasks.source import PowerOffSource, RetireSource
from resizeflow.tasks.transfer import TransferDisks
from resizeflow.tasks.volumes import ConnectVolumes, DetachSourceVolumes, ReserveVolumes

# The machine runs on its source until PowerOffSource, nowhere until StartDestination, then on its destination.
#
# Up to StartDestination's pivot every task can be undone, in reverse order; after it the flow only goes forward.
RESIZE_V1: tuple[type[MoveTask], ...] = (
    OpenMigration,
    SelectDestination,
    PrepareDestination,
    CaptureSource,
    BindPorts,
    ReserveVolumes,
    PowerOffSource,
    RetireSource,
    TransferDisks,
    DetachSourceVolumes,
    ConnectVolumes,
    MoveInstance,
    ResizeDisks,
    DefineDestination,
    StartDestination,
    FinishResize,
)
