"""What a resize would do, before anybody decides: host and reasons, bytes, steps, checks, downtime."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from resizeflow import rules
from resizeflow.drivers import definition
from resizeflow.flows import TASKS
from resizeflow.persistence.models import Disk, Flavor, Host, Instance
from resizeflow.scheduler import Selection
from resizeflow.volumes import AttachedVolume


@dataclass(frozen=True)
class PlannedDisk:
    """A disk of the machine and what would happen to it; sizes in bytes."""

    device: str
    role: str
    allocation: int
    capacity: int
    new_capacity: int
    way: str
    """`overlay` (same host), `host to host` or `through the worker`; swap space is `made anew` or `removed`, the config
    drive is `kept` where it is on the same host."""


@dataclass(frozen=True)
class Plan:
    """A dry run's answer. `steps` and `checks` are sentences in order; `downtime` what the outage consists of. Of
    `volumes` nothing moves: Cinder attaches them to the destination."""

    instance: str
    kind: str
    old_flavor: Flavor
    new_flavor: Flavor
    source: Host
    destination: str
    verdicts: dict[str, str]
    disks: Sequence[PlannedDisk]
    volumes: Sequence[AttachedVolume]
    volume_backed: bool
    bytes_to_move: int
    checks: Sequence[str]
    steps: Sequence[tuple[str, str]]
    downtime: Sequence[str]


CHECKS = (
    "rules: state, lock, flavor, disks not smaller, nothing that cannot move",
    "volumes: Cinder answers; each is in use, attached to this machine once, and opened by QEMU itself",
    "ports: each is plugged into a bridge; Neutron's are bound to the machine's host, and plugged in by libvirt itself",
    "quota: what the new flavor needs more is free",
    "host: enabled, zone, traits, aggregates, server group, room by the allocation ratios; it answers",
    "destination: machine and guest type, CPU, bridges, Neutron's agent, secrets of volumes, room in the pool, no "
    "clash of names",
)


def steps_of(flow: str) -> list[tuple[str, str]]:
    """The tasks of a flow and the first sentence of what each says of itself."""
    return [(task.__name__, (inspect.getdoc(task) or "").splitlines()[0]) for task in TASKS[flow]]


def make(
    instance: Instance,
    new: Flavor,
    selection: Selection,
    disks: Sequence[Disk],
    allocations: dict[str, int],
    *,
    volumes: Sequence[AttachedVolume],
    xml: str,
    running: bool,
    way: str,
    shutdown_timeout: float,
    bandwidth: int,
) -> Plan:
    """Puts a plan together from what was looked up: bytes taken by path, the machine's definition."""
    same = selection.host.id == instance.host_id
    planned = [
        PlannedDisk(
            disk.device,
            disk.role,
            allocations.get(disk.path, disk.capacity),
            disk.capacity,
            _new_capacity(instance.flavor, new, disk, disks),
            _way(disk, new, same, way),
        )
        for disk in disks
    ]
    if new.swap_mb and not any(disk.role == "swap" for disk in disks):
        device = definition.free_device(xml, beside=definition.read(xml).first_disk)
        planned.append(PlannedDisk(device, "swap", 0, 0, new.swap_mb * rules.MIB, "made anew"))
    copied = [disk.allocation for disk in planned if disk.way == way]
    bytes_to_move = sum(copied)
    return Plan(
        instance=instance.name,
        kind="migration" if new.id == instance.flavor_id else "resize",
        old_flavor=instance.flavor,
        new_flavor=new,
        source=instance.host,
        destination=selection.host.name,
        verdicts=selection.verdicts,
        disks=planned,
        volumes=volumes,
        volume_backed=instance.volume_backed,
        bytes_to_move=bytes_to_move,
        checks=CHECKS,
        steps=steps_of("resize_v1"),
        downtime=_downtime(running, _copy(same, copied, bandwidth), shutdown_timeout),
    )


def _way(disk: Disk, new: Flavor, same: bool, way: str) -> str:
    if disk.role == "swap":
        return "made anew" if new.swap_mb else "removed"
    if same:
        return "kept" if disk.role == "config" else "overlay"
    return way


def _new_capacity(old: Flavor, new: Flavor, disk: Disk, disks: Sequence[Disk]) -> int:
    first = next((other.device for other in disks if other.role == "ephemeral"), None)
    return rules.new_capacity(old, new, disk.role, first_ephemeral=disk.device == first, actual=disk.capacity)


def _copy(same: bool, copied: Sequence[int], bandwidth: int) -> str:
    if same:
        return "no copy: the disks stay where they are"
    if not copied:
        return "no copy: its disks are volumes"
    limit = f" at no more than {bandwidth >> 20} MiB/s per disk" if bandwidth else ""
    return f"the copy of {sum(copied) >> 20} MiB{limit}"


def _downtime(running: bool, copy: str, shutdown_timeout: float) -> list[str]:
    if not running:
        return ["none: the machine is off and stays off"]
    return [f"a clean shutdown, at most {shutdown_timeout:g} s", copy, "a boot on the destination"]
