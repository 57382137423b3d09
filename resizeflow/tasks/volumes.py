"""Cinder volumes: the places in the flows where they move. Machines with network disks are not adopted yet, so
each of these finds nothing to do and says so in the log."""

from __future__ import annotations

from resizeflow.persistence.models import Migration
from resizeflow.tasks.base import MoveTask


class _NoVolumes(MoveTask):
    def do(self, migration: Migration) -> None:
        self.tell(f"{migration.instance_name} has no volumes")


class ReserveVolumes(_NoVolumes):
    """Reserves each volume for the destination."""


class DetachSourceVolumes(_NoVolumes):
    """Detaches each volume from the source, keeping it ours."""


class ConnectVolumes(_NoVolumes):
    """Connects each volume to the destination."""


class RemoveReturnAttachments(_NoVolumes):
    """Confirm: gives up the way back of each volume."""

    forward_only = True


class DetachDestinationVolumes(_NoVolumes):
    """Revert: detaches each volume the machine has now from the destination."""


class ConnectSourceVolumes(_NoVolumes):
    """Revert: connects each volume to the source again."""
