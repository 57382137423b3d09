"""What a resize or a cold migration must satisfy, in Nova's order (nova/compute/api.py `resize`)."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from resizeflow.drivers.hypervisor import DomainFacts
from resizeflow.errors import (
    CannotMigrateToSameHost,
    CannotResizeDisk,
    CannotResizeToSameFlavor,
    ComputeHostNotFound,
    FlavorNotFound,
    InstanceInvalidState,
    InstanceNotReady,
    OverQuota,
    ResizeError,
    ServiceUnavailable,
    UnableToMigrateToSelf,
)
from resizeflow.persistence.flavors import projects_of
from resizeflow.persistence.models import Flavor, Host
from resizeflow.rules import machine
from resizeflow.rules.ports import neutron_answers, ports_movable
from resizeflow.rules.request import Request, idle, no_unfinished_job, not_locked
from resizeflow.rules.volumes import cinder_answers, volumes_movable
from resizeflow.states import VmState


@dataclass(frozen=True)
class Move(Request):
    """A resize, or without `flavor_name` a cold migration, and what the records say about it."""

    flavor_name: str | None
    flavor: Flavor | None
    """The one of that name; the machine's own for a cold migration."""
    host_name: str | None
    target: Host | None
    """The host of that name."""
    same_host_allowed: bool
    over_quota: OverQuota | None
    away: str | None = None
    """Why the machine's host did not answer when it was looked at."""
    domain: DomainFacts | None = None
    """The machine there."""

    @property
    def old(self) -> Flavor:
        return self.instance.flavor

    @property
    def new(self) -> Flavor:
        """Raises FlavorNotFound."""
        if self.flavor is None:
            raise FlavorNotFound(
                f"There is no flavor {self.flavor_name!r}; `resizeflow flavor list` shows what there is."
            )
        return self.flavor

    @property
    def machine(self) -> DomainFacts:
        """Raises InstanceNotReady."""
        if self.domain is None:
            row = self.instance
            raise InstanceNotReady(
                f"Host {row.host.name} has no domain {row.name} ({row.id}) any more; "
                f"`resizeflow instance remove {shlex.quote(row.name)}` forgets it."
            )
        return self.domain


def resizable_state(move: Move) -> None:
    """InstanceInvalidState for a vm_state, 409: ACTIVE and STOPPED machines only."""
    if move.instance.vm_state is VmState.RESIZED:
        raise InstanceInvalidState(f"{move.cannot} while it is in vm_state resized: confirm or revert first.")
    if move.instance.vm_state not in (VmState.ACTIVE, VmState.STOPPED):
        raise InstanceInvalidState(f"{move.cannot} while it is in vm_state {move.instance.vm_state}.")


def launched(move: Move) -> None:
    """InstanceInvalidState, 409."""
    if move.instance.launched_at is None:
        raise InstanceInvalidState(f"{move.cannot}: it has never been launched; start it first.")


def source_not_fenced(move: Move) -> None:
    """ServiceUnavailable, 409, as for a service that is forced down. A disabled host may be left."""
    host = move.instance.host
    if host.fenced_at is not None:
        raise ServiceUnavailable(
            f"The instance's host {host.name} is fenced; `resizeflow host set {host.name} --not-fenced` when it is "
            "in use again."
        )


def source_answers(move: Move) -> None:
    """ServiceUnavailable, 409."""
    if move.away is not None:
        raise ServiceUnavailable(f"The instance's {move.away}. Nothing was changed; try again when it is back.")


def steady(move: Move) -> None:
    """InstanceNotReady, 409, where the host has no such machine; InstanceInvalidState, 409, where it is paused."""
    machine.steady(move.machine)


def to_another_host(move: Move) -> None:
    """CannotMigrateToSameHost, 400."""
    if move.flavor_name is None and move.target is not None and move.target.id == move.instance.host_id:
        raise CannotMigrateToSameHost(
            f"Instance {move.instance.name} is on host {move.target.name} already; choose another one."
        )


def known_host(move: Move) -> None:
    """ComputeHostNotFound, 400."""
    if move.host_name is not None and move.target is None:
        raise ComputeHostNotFound(f"There is no host {move.host_name!r}; `resizeflow host list` shows what there is.")


def flavor_granted(move: Move) -> None:
    """FlavorNotFound, 400: missing, deleted, or private to other projects."""
    new, project = move.new, move.instance.project_id
    if move.flavor_name is not None and not new.is_public and project not in projects_of(new):
        raise FlavorNotFound(
            f"Flavor {new.name} is private and project {project} has no access to it; "
            f"`resizeflow flavor set {new.name} --project {project}` grants it."
        )


def root_disk_stays(move: Move) -> None:
    """CannotResizeDisk, 400. A machine that boots from a volume has no root disk of a flavor's."""
    if move.new.root_gb == 0 and move.old.root_gb != 0 and not move.instance.volume_backed:
        raise CannotResizeDisk(
            f"Resize to zero disk flavor is not allowed: {move.new.name} has no root disk, the machine has one."
        )


def flavor_enabled(move: Move) -> None:
    """FlavorNotFound, 400; a machine that has a disabled flavor may be migrated."""
    if move.new.disabled and move.new.id != move.old.id:
        raise FlavorNotFound(
            f"Flavor {move.new.name} is disabled; `resizeflow flavor set {move.new.name} --enable` allows it again."
        )


def flavor_differs(move: Move) -> None:
    """CannotResizeToSameFlavor, 400."""
    if move.flavor_name is not None and move.new.id == move.old.id:
        raise CannotResizeToSameFlavor(
            f"When resizing, instances must change flavor: the machine has flavor {move.new.name} already."
        )


def within_quota(move: Move) -> None:
    """TooManyInstances, 403."""
    if move.over_quota is not None:
        raise move.over_quota


def definable(move: Move) -> None:
    """FlavorImageConflict, 400."""
    machine.definable(move.machine, move.old, move.new)


def movable(move: Move) -> None:
    """MigrationPreCheckError, 409."""
    machine.movable(move.machine)


def root_not_smaller(move: Move) -> None:
    """ResizeError, 400. A machine that boots from a volume has no root disk of a flavor's."""
    if move.new.root_gb < move.old.root_gb and not move.instance.volume_backed:
        raise ResizeError(
            f"Flavor {move.new.name} has a root disk of {move.new.root_gb} GiB, the machine's has {move.old.root_gb} "
            "GiB: a disk cannot shrink; choose a flavor with at least as much."
        )


def ephemeral_not_smaller(move: Move) -> None:
    """ResizeError, 400. Swap has no such rule: it is made anew."""
    if move.new.ephemeral_gb < move.old.ephemeral_gb:
        raise ResizeError(
            f"Flavor {move.new.name} has {move.new.ephemeral_gb} GiB of ephemeral disk, the machine has "
            f"{move.old.ephemeral_gb} GiB: a disk cannot shrink; choose a flavor with at least as much."
        )


def same_host_allowed(move: Move) -> None:
    """UnableToMigrateToSelf, 400."""
    if move.target is not None and move.target.id == move.instance.host_id and not move.same_host_allowed:
        raise UnableToMigrateToSelf(
            f"Instance {move.instance.name} cannot be resized on its own host {move.target.name}: "
            "allow_resize_to_same_host is false; choose another host."
        )


Rule = Callable[[Move], None]

BEFORE_LOOKING: tuple[Rule, ...] = (
    not_locked,
    resizable_state,
    idle,
    no_unfinished_job,
    launched,
    source_not_fenced,
)
"""What the records alone decide: nobody waits for a host to be told that the machine is locked."""

RULES: tuple[Rule, ...] = (
    *BEFORE_LOOKING,
    source_answers,
    steady,
    cinder_answers,
    neutron_answers,
    to_another_host,
    known_host,
    flavor_granted,
    root_disk_stays,
    flavor_enabled,
    flavor_differs,
    within_quota,
    definable,
    # What Nova finds on the hosts, after it said yes.
    movable,
    volumes_movable,
    ports_movable,
    root_not_smaller,
    ephemeral_not_smaller,
    same_host_allowed,
)
"""All of them; which host takes it, if one does, is the scheduler's to say."""
