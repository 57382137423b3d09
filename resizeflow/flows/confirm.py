"""Confirm: the resize is kept, the source is cleaned up. Forward only, except that CheckDestination may refuse."""

from __future__ import annotations

from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.destination import CheckDestination
from resizeflow.tasks.disks import MergeOverlays, RemoveSourceDisks
from resizeflow.tasks.instance import FinishConfirm
from resizeflow.tasks.network import RemoveSourceBindings
from resizeflow.tasks.source import RemoveSourceDomain
from resizeflow.tasks.volumes import RemoveReturnAttachments

# Nothing is deleted on the source before the destination has been seen whole.
CONFIRM_V1: tuple[type[MoveTask], ...] = (
    CheckDestination,
    MergeOverlays,
    RemoveSourceBindings,
    RemoveReturnAttachments,
    RemoveSourceDomain,
    RemoveSourceDisks,
    FinishConfirm,
)
