"""What is common to all requests, and the rules that all of them obey."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from resizeflow.errors import InstanceInvalidState, InstanceIsLocked, InvalidPort, InvalidVolume
from resizeflow.persistence.models import Instance, Job
from resizeflow.volumes import AttachedVolume

R = TypeVar("R", bound="Request")


@dataclass(frozen=True)
class Request:
    """What somebody wants to be done to an instance; `job` is its unfinished one, if it has one."""

    action: str
    instance: Instance
    job: Job | None
    volumes: tuple[AttachedVolume, ...] = field(default=(), kw_only=True)
    """The Cinder volumes that it was seen with."""
    cinder_away: str | None = field(default=None, kw_only=True)
    """Why they could not be looked at."""
    bad_volume: InvalidVolume | None = field(default=None, kw_only=True)
    """What keeps one of them from being moved."""
    neutron_away: str | None = field(default=None, kw_only=True)
    """Why its ports could not be looked at."""
    bad_port: InvalidPort | None = field(default=None, kw_only=True)
    """What keeps one of them from being moved."""

    @property
    def cannot(self) -> str:
        """How refusals begin, in Nova's words."""
        return f"Cannot '{self.action}' instance {self.instance.name}"


def check(request: R, rules: Iterable[Callable[[R], None]]) -> None:
    """Applies rules in their order: of several faults the first one is told."""
    for rule in rules:
        rule(request)


def not_locked(request: Request) -> None:
    """InstanceIsLocked, 409."""
    if request.instance.locked:
        name = request.instance.name
        raise InstanceIsLocked(f"Instance {name} is locked; `resizeflow instance unlock {shlex.quote(name)}` first.")


def idle(request: Request) -> None:
    """InstanceInvalidState for a task_state, 409: one thing at a time."""
    if request.instance.task_state is not None:
        raise InstanceInvalidState(
            f"{request.cannot} while it is in task_state {request.instance.task_state}; "
            "`resizeflow migration list` shows what is being done to it."
        )


def no_unfinished_job(request: Request) -> None:
    """InstanceInvalidState, 409: a job may go on where Nova's states tell of nothing any more."""
    if request.job is not None:
        short = request.job.migration_id[:8]
        raise InstanceInvalidState(
            f"{request.cannot} while job {request.job.flow} of migration {short} is not done; "
            f"`resizeflow migration watch {short}` follows it."
        )
