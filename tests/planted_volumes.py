"""Breaches planted at the simulated Cinder of a small cloud, and what it has of the cloud's machine."""

from __future__ import annotations

from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.interface import DriverError
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.drivers.simulator.faults import Fault
from resizeflow.drivers.volume import Attachment
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.planted import by_hand, found

OTHER = "5e1f0000-0000-4000-8000-00000000000a"
"""A machine that is somebody else's."""


def cinder(cloud: Cloud, method: str, *args: Any) -> Any:
    """What somebody does at Cinder."""
    return by_hand(cloud, CINDER, method, *args)


def attachments(cloud: Cloud, volume_id: str | None = None) -> tuple[Attachment, ...]:
    """All of a volume, whosever they are."""
    seen: tuple[Attachment, ...] = cinder(cloud, "attachments", None, volume_id or cloud.volumes[0])
    return seen


def undone(cloud: Cloud) -> Submitted:
    """A migration of the past, which did nothing."""
    job = cloud.service.resize("web", "big", host="h2")
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert found(cloud) == []
    return job


def volume_of_web(cloud: Cloud, volume_id: str | None = None) -> tuple[int, str]:
    return 5, f"volume {volume_id or cloud.volumes[0]} of web"


def reserved_by_nobody(cloud: Cloud) -> None:
    """The attachment is gone, and Cinder was killed when somebody made a new one."""
    cinder(cloud, "delete_attachment", attachments(cloud)[0].id)
    cloud.world.fail(CINDER, "create_attachment", fault=Fault.HALF)
    with pytest.raises(DriverError, match="arranged"):
        cinder(cloud, "create_attachment", cloud.volumes[0], cloud.uuid)
    assert (attachments(cloud), cinder(cloud, "cinder_volume", cloud.volumes[0]).status) == ((), "reserved")
