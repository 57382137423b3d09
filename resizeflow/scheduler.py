"""Which host: filters and weighers, pure functions over a snapshot of the fleet.

Filters go by records, because a fleet may have a thousand hosts. What only a look at a host can tell is asked of the
best that are left, in order, until one and its alternates have passed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from resizeflow.config import Scheduling
from resizeflow.errors import NoValidHost
from resizeflow.persistence.aggregates import ZONE, Properties
from resizeflow.persistence.groups import Others

NAMED = 3
"""Hosts that a refusal names; more are counted."""


@dataclass(frozen=True)
class HostState:
    """A host as records show it; free amounts are after allocation ratios, in vCPUs, MiB, GiB."""

    id: str
    name: str
    enabled: bool
    free_vcpus: float
    free_memory_mb: float
    free_disk_gb: float
    disabled_reason: str | None = None
    fenced: bool = False
    """A person said that nothing runs there; what came to it would make that untrue."""
    traits: frozenset[str] = frozenset()
    properties: Properties = field(default_factory=dict)
    """Of the aggregates that it is in."""
    moves: int = 0
    """In flight from it or to it."""


@dataclass(frozen=True)
class Needs:
    """What a flavor's extra specs ask of a host."""

    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=dict)
    """That one of its aggregates must have."""

    @classmethod
    def of(cls, extra_specs: Mapping[str, str]) -> Needs:
        """From `trait:NAME` = required or forbidden, and `aggregate:PROPERTY` = a value."""
        named = [(*key.split(":", 1), value) for key, value in extra_specs.items()]
        return cls(
            frozenset(name for kind, name, value in named if kind == "trait" and value == "required"),
            frozenset(name for kind, name, value in named if kind == "trait" and value == "forbidden"),
            {name: value for kind, name, value in named if kind == "aggregate"},
        )


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
    zone: str | None = None
    """The zone that the machine is pinned to."""
    others: Others | None = None
    """The other members of its server group."""
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True)
class Selection:
    """The chosen host, those to fall back on in order, and for each host of the fleet why (not), the best first."""

    host: HostState
    alternates: tuple[HostState, ...]
    verdicts: dict[str, str] = field(default_factory=dict)


# --- filters: what speaks against a host, in one clause; None if nothing ------------------------------------


def target(host: HostState, request: Request) -> str | None:
    """The host that was asked for, and no other."""
    return "another host was asked for" if request.target and request.target != host.id else None


def enabled(host: HostState, _request: Request) -> str | None:
    """A disabled host takes nothing new."""
    return None if host.enabled else f"disabled{f' ({host.disabled_reason})' if host.disabled_reason else ''}"


def not_fenced(host: HostState, _request: Request) -> str | None:
    """A fenced host runs nothing: other machines' safety rests on it (Nova: forced down)."""
    return "fenced" if host.fenced else None


def same_host(host: HostState, request: Request) -> str | None:
    """The machine's own host only where that is allowed (Nova: allow_resize_to_same_host)."""
    if host.id == request.source and not request.same_host_allowed:
        return "the machine is there now"
    return None


def vcpus(host: HostState, request: Request) -> str | None:
    """Free vCPUs, by the allocation ratio."""
    return _room("vCPUs", request.same_vcpus if host.id == request.source else request.vcpus, host.free_vcpus, "")


def memory(host: HostState, request: Request) -> str | None:
    """Free memory, by the allocation ratio."""
    needed = request.same_memory_mb if host.id == request.source else request.memory_mb
    return _room("memory", needed, host.free_memory_mb, " MiB")


def disk(host: HostState, request: Request) -> str | None:
    """Free disk, by the allocation ratio."""
    needed = request.same_disk_gb if host.id == request.source else request.disk_gb
    return _room("disk", needed, host.free_disk_gb, " GiB")


def _room(what: str, need: int, free: float, unit: str) -> str | None:
    return f"{what}: needs {need}{unit}, has {max(free, 0):g}{unit}" if need > free else None


def zone(host: HostState, request: Request) -> str | None:
    """The zone that the machine is pinned to (Nova's AvailabilityZoneFilter, now a part of placement)."""
    if request.zone is None or request.zone in host.properties.get(ZONE, ()):
        return None
    return f"not in zone {request.zone}"


def traits(host: HostState, request: Request) -> str | None:
    """Traits that the flavor requires or forbids."""
    clauses = [f"no trait {name}" for name in sorted(request.needs.required - host.traits)]
    clauses += [f"forbidden trait {name}" for name in sorted(request.needs.forbidden & host.traits)]
    return ", ".join(clauses) or None


def aggregates(host: HostState, request: Request) -> str | None:
    """Properties that one of its aggregates must have (Nova's AggregateInstanceExtraSpecsFilter)."""
    wanted = sorted(request.needs.properties.items())
    missing = [f"{name}={value}" for name, value in wanted if value not in host.properties.get(name, ())]
    return f"in no aggregate with {', '.join(missing)}" if missing else None


def group(host: HostState, request: Request) -> str | None:
    """The server group's policy. To stay where it is makes nothing worse (Nova's filter says the same)."""
    if request.others is None or host.id == request.source:
        return None
    return request.others.against(host.id)


FILTERS: Mapping[str, Callable[[HostState, Request], str | None]] = {
    "not asked for": target,
    "disabled": enabled,
    "fenced": not_fenced,
    "the machine's own": same_host,
    "outside the zone": zone,
    "traits": traits,
    "aggregates": aggregates,
    "server group": group,
    "no vCPUs free": vcpus,
    "no room for memory": memory,
    "no room for disk": disk,
}
"""By the words under which the hosts that do not pass are counted."""


def against(host: HostState, request: Request) -> dict[str, str]:
    """All that records have against a host, by the filter's words; empty if it passes."""
    if (clause := target(host, request)) is not None:
        return {"not asked for": clause}
    return {words: clause for words, check in FILTERS.items() if (clause := check(host, request)) is not None}


# --- weighers: more is better -------------------------------------------------------------------------------


def weigh(hosts: Sequence[HostState], settings: Scheduling) -> list[tuple[float, HostState]]:
    """The hosts with their weights, the best first; those that weigh the same by name.

    Each weigher counts by how far a host is between the worst and the best of these hosts, times its multiplier
    (nova/weights.py `normalize`).
    """
    weighers: tuple[tuple[float, Callable[[HostState], float]], ...] = (
        (settings.ram_weight_multiplier, lambda host: host.free_memory_mb),
        (settings.cpu_weight_multiplier, lambda host: host.free_vcpus),
        (settings.disk_weight_multiplier, lambda host: host.free_disk_gb),
        (settings.moves_weight_multiplier, lambda host: -host.moves),
    )
    weights = [0.0] * len(hosts)
    for multiplier, weigher in weighers:
        for number, share in enumerate(_normalized([weigher(host) for host in hosts])):
            weights[number] += multiplier * share
    return sorted(zip(weights, hosts, strict=True), key=lambda weighed: (-weighed[0], weighed[1].name))


def _normalized(values: Sequence[float]) -> Iterator[float]:
    least, most = min(values, default=0), max(values, default=0)
    return ((value - least) / (most - least) if most > least else 0.0 for value in values)


# --- the choice ---------------------------------------------------------------------------------------------


def select(
    fleet: Sequence[HostState],
    request: Request,
    settings: Scheduling,
    look: Callable[[HostState], str | None],
) -> Selection:
    """The best host and its alternates, as many as a job has attempts; a host that was asked for has none.

    `look` tells what speaks against a host when it is looked at. Raises NoValidHost with the reasons.
    """
    refused: dict[str, dict[str, str]] = {}
    passed: list[HostState] = []
    for host in fleet:
        if reasons := against(host, request):
            refused[host.name] = reasons
        else:
            passed.append(host)
    fit: list[HostState] = []
    verdicts: dict[str, str] = {}
    for weight, host in weigh(passed, settings):
        if len(fit) == settings.max_attempts:
            verdicts[host.name] = f"fits by its records, weight {weight:.2f}, not looked at"
        elif (reason := look(host)) is not None:
            refused[host.name] = {reason: reason}
        else:
            verdicts[host.name] = f"{f'alternate {len(fit)}' if fit else 'chosen'}, weight {weight:.2f}"
            fit.append(host)
    if not fit:
        raise NoValidHost(
            f"No valid host. {_summary(refused) or 'There is no host; add one with `resizeflow host add`'}."
        )
    verdicts |= {name: "; ".join(refused[name].values()) for name in sorted(refused)}
    return Selection(fit[0], tuple(fit[1:]), verdicts)


def _summary(refused: Mapping[str, Mapping[str, str]]) -> str:
    """Why no host was left: of a few each, of many how many for which reason, the most frequent first."""
    names = sorted(name for name, reasons in refused.items() if "not asked for" not in reasons)
    if len(names) <= NAMED:
        return "; ".join(f"{name}: {'; '.join(refused[name].values())}" for name in names)
    counted: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for words in refused[name]:
            counted[words].append(name)
    return "; ".join(
        f"{words}: {', '.join(hosts) if len(hosts) <= NAMED else f'{len(hosts)} hosts'}"
        for words, hosts in sorted(counted.items(), key=lambda item: (-len(item[1]), item[0]))
    )
