"""Which host: filters and a weigher, pure functions over a snapshot of the fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from resizeflow.errors import NoValidHost


@dataclass(frozen=True)
class HostState:
    """A host as the scheduler sees it; free amounts are after allocation ratios, in vCPUs, MiB, GiB."""

    id: str
    name: str
    enabled: bool
    free_vcpus: float
    free_memory_mb: float
    free_disk_gb: float
    disabled_reason: str | None = None
    away: str | None = None
    """Why it does not answer, or was found unfit when it was looked at; None if it answers."""


@dataclass(frozen=True)
class Request:
    """What is asked for: amounts needed on another host and, smaller, on the machine's own."""

    vcpus: int
    memory_mb: int
    disk_gb: int
    source: str
    same_vcpus: int
    same_memory_mb: int
    same_disk_gb: int
    same_host_allowed: bool
    target: str | None = None


@dataclass(frozen=True)
class Selection:
    """The chosen host, those to fall back on in order, and for each host of the fleet why (not)."""

    host: HostState
    alternates: tuple[HostState, ...]
    verdicts: dict[str, str] = field(default_factory=dict)


def enabled(host: HostState, _request: Request) -> str | None:
    """A disabled host takes nothing new."""
    return None if host.enabled else f"disabled{f' ({host.disabled_reason})' if host.disabled_reason else ''}"


def reachable(host: HostState, _request: Request) -> str | None:
    """A host must answer now, not when the machine is already off."""
    return host.away


def same_host(host: HostState, request: Request) -> str | None:
    """The machine's own host only where that is allowed (Nova: allow_resize_to_same_host)."""
    if host.id == request.source and not request.same_host_allowed:
        return "the machine is there now"
    return None


def room(host: HostState, request: Request) -> str | None:
    """Free vCPUs, memory and disk, by the allocation ratios."""
    mine = host.id == request.source
    needs = (
        ("vCPUs", request.same_vcpus if mine else request.vcpus, host.free_vcpus, ""),
        ("memory", request.same_memory_mb if mine else request.memory_mb, host.free_memory_mb, " MiB"),
        ("disk", request.same_disk_gb if mine else request.disk_gb, host.free_disk_gb, " GiB"),
    )
    short = [
        f"{what}: needs {need}{unit}, has {max(free, 0):g}{unit}" for what, need, free, unit in needs if need > free
    ]
    return "; ".join(short) or None


FILTERS: tuple[Callable[[HostState, Request], str | None], ...] = (enabled, same_host, room, reachable)
ALTERNATES = 2


def select(fleet: Sequence[HostState], request: Request) -> Selection:
    """The host with the most free memory of those that pass. Raises NoValidHost telling of each host why not."""
    verdicts: dict[str, str] = {}
    passed: list[HostState] = []
    for host in fleet:
        if request.target and request.target != host.id:
            verdicts[host.name] = "another host was asked for"
            continue
        why_not = next((reason for check in FILTERS if (reason := check(host, request))), None)
        if why_not:
            verdicts[host.name] = why_not
        else:
            passed.append(host)
            verdicts[host.name] = f"fits, {host.free_memory_mb:g} MiB of memory free"
    if not passed:
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(verdicts.items()) if "asked for" not in reason)
        raise NoValidHost(f"No valid host. {why or 'There is no host; add one with `resizeflow host add`'}.")
    best = sorted(passed, key=lambda host: (-host.free_memory_mb, host.name))
    chosen = best[0]
    verdicts[chosen.name] = f"chosen, {chosen.free_memory_mb:g} MiB of memory free"
    alternates = () if request.target else tuple(best[1 : 1 + ALTERNATES])
    return Selection(chosen, alternates, verdicts)
