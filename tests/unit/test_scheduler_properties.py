"""The scheduler on whatever fleet: what a filter forbids is never chosen, and the choice depends on nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from resizeflow.config import Scheduling
from resizeflow.errors import NoValidHost
from resizeflow.fleet import request_for
from resizeflow.persistence.groups import AFFINITY, ANTI_AFFINITY, Others
from resizeflow.persistence.models import Flavor, Instance
from resizeflow.scheduler import HostState, Needs, Request, Selection, against, select, weigh

ON_ANY_MACHINE = hypothesis_settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow], database=None
)
NAMES = "abcdefgh"
RARELY = st.sampled_from([*[None] * 5, True])
SOMETIMES = st.sampled_from([None, None, True])
TRAITS = st.frozensets(st.sampled_from(["CUSTOM_SSD", "CUSTOM_GPU"]))
VALUES = st.frozensets(st.sampled_from(["x", "y"]), min_size=1)
PROPERTIES = st.dictionaries(st.sampled_from(["availability_zone", "ssd"]), VALUES)


@st.composite
def hosts(draw: st.DrawFn, name: str) -> HostState:
    return HostState(
        id=name,
        name=name,
        enabled=draw(RARELY) is None,
        fenced=draw(RARELY) is not None,
        free_vcpus=draw(st.integers(-2, 40)),
        free_memory_mb=draw(st.integers(-512, 2**18)),
        free_disk_gb=draw(st.integers(-4, 2000)),
        traits=draw(TRAITS),
        properties=draw(PROPERTIES),
        moves=draw(st.integers(0, 4)),
    )


FLEETS = st.lists(st.sampled_from(NAMES), unique=True).flatmap(lambda names: st.tuples(*map(hosts, names))).map(list)
SPECS = st.dictionaries(
    st.sampled_from(["trait:CUSTOM_SSD", "trait:CUSTOM_GPU"]), st.sampled_from(["required", "forbidden"]), max_size=1
) | st.just({"aggregate:ssd": "x"})
OTHERS = st.builds(
    Others,
    st.just("db"),
    st.sampled_from([AFFINITY, ANTI_AFFINITY]),
    st.dictionaries(st.sampled_from(["m1", "m2"]), st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=2)),
)
REQUESTS = st.builds(
    Request,
    vcpus=st.integers(1, 8),
    memory_mb=st.integers(1, 2**15),
    disk_gb=st.integers(0, 200),
    source=st.sampled_from(NAMES),
    same_vcpus=st.integers(0, 8),
    same_memory_mb=st.integers(0, 2**15),
    same_disk_gb=st.integers(0, 500),
    same_host_allowed=st.booleans(),
    target=RARELY.flatmap(lambda asked: st.sampled_from(NAMES) if asked else st.none()),
    zone=SOMETIMES.flatmap(lambda pinned: st.sampled_from(["x", "y"]) if pinned else st.none()),
    others=SOMETIMES.flatmap(lambda member: OTHERS if member else st.none()),
    needs=SOMETIMES.flatmap(lambda asks: SPECS.map(Needs.of) if asks else st.just(Needs())),
)
MULTIPLIERS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])
SETTINGS = st.builds(Scheduling, MULTIPLIERS, MULTIPLIERS, MULTIPLIERS, MULTIPLIERS, st.integers(1, 4))
UNFIT = st.frozensets(st.sampled_from(NAMES), max_size=3)


def choose(fleet: list[HostState], request: Request, settings: Scheduling, unfit: frozenset[str]) -> Selection | str:
    try:
        return select(fleet, request, settings, lambda host: "unfit" if host.name in unfit else None)
    except NoValidHost as error:
        return str(error)


@ON_ANY_MACHINE
@given(FLEETS, REQUESTS, SETTINGS, UNFIT)
def test_never_a_host_that_a_filter_or_a_look_forbids(
    fleet: list[HostState], request: Request, settings: Scheduling, unfit: frozenset[str]
) -> None:
    fit = {host.name for host in fleet if not against(host, request)} - unfit
    chosen = choose(fleet, request, settings, unfit)
    if isinstance(chosen, str):
        assert not fit
        return
    taken = [chosen.host, *chosen.alternates]
    assert {host.name for host in taken} <= fit
    assert len(taken) == min(len(fit), settings.max_attempts)
    assert chosen.verdicts.keys() == {host.name for host in fleet}
    assert next(iter(chosen.verdicts)) == chosen.host.name
    for host in taken:
        _assert_allowed(host, request)


def _assert_allowed(host: HostState, request: Request) -> None:
    """The rules told anew, without the filters."""
    own = host.id == request.source
    assert host.enabled
    assert not host.fenced
    assert request.same_host_allowed or not own
    assert host.free_vcpus >= (request.same_vcpus if own else request.vcpus)
    assert host.free_memory_mb >= (request.same_memory_mb if own else request.memory_mb)
    assert host.free_disk_gb >= (request.same_disk_gb if own else request.disk_gb)
    assert request.zone is None or request.zone in host.properties["availability_zone"]
    assert request.needs.required <= host.traits
    assert not request.needs.forbidden & host.traits
    assert all(value in host.properties[name] for name, value in request.needs.properties.items())
    if request.others is not None and not own:
        elsewhere = request.others.hosts.values()
        if request.others.policy == ANTI_AFFINITY:
            assert all(host.id not in places for places in elsewhere)
        else:
            assert all(places == {host.id} for places in elsewhere)


@ON_ANY_MACHINE
@given(FLEETS.flatmap(lambda fleet: st.tuples(st.just(fleet), st.permutations(fleet))), REQUESTS, SETTINGS, UNFIT)
def test_the_same_snapshot_gives_the_same_choice_in_any_order(
    fleets: tuple[list[HostState], list[HostState]], request: Request, settings: Scheduling, unfit: frozenset[str]
) -> None:
    first, second = (choose(fleet, request, settings, unfit) for fleet in fleets)
    assert first == second
    if isinstance(first, Selection) and isinstance(second, Selection):
        assert list(first.verdicts.items()) == list(second.verdicts.items())


@ON_ANY_MACHINE
@given(FLEETS, REQUESTS, st.sampled_from(NAMES), SETTINGS, UNFIT)
def test_the_target_or_no_host(
    fleet: list[HostState], request: Request, target: str, settings: Scheduling, unfit: frozenset[str]
) -> None:
    request = replace(request, target=target)
    chosen = choose(fleet, request, settings, unfit)
    if isinstance(chosen, Selection):
        assert (chosen.host.id, chosen.alternates) == (request.target, ())
    else:
        wanted = [host for host in fleet if host.id == request.target]
        assert all(against(host, request) or host.name in unfit for host in wanted)


SIZES = st.builds(
    Flavor,
    id=st.sampled_from(["small", "large"]),
    vcpus=st.integers(1, 8),
    memory_mb=st.integers(1, 2**15),
    root_gb=st.integers(0, 200),
    ephemeral_gb=st.integers(0, 200),
    swap_mb=st.integers(0, 4096),
    extra_specs=st.just({}),
)


@ON_ANY_MACHINE
@given(SIZES, SIZES, st.booleans(), st.integers(0, 200))
def test_the_root_size_counts_unless_it_is_a_volume(
    old: Flavor, new: Flavor, volume_backed: bool, root_gb: int
) -> None:
    machine = Instance(id="m", host_id="a", flavor=old, flavor_id=old.id, volume_backed=volume_backed)
    no_group: Any = None
    settings: Any = SimpleNamespace(allow_resize_to_same_host=True)
    first, before = request_for(no_group, machine, new, None, settings), new.root_gb
    new.root_gb = root_gb
    second = request_for(no_group, machine, new, None, settings)
    grown = 0 if volume_backed else root_gb - before
    assert second == replace(first, disk_gb=first.disk_gb + grown, same_disk_gb=first.same_disk_gb + grown)


AMOUNTS = st.integers(0, 2**20)


@ON_ANY_MACHINE
@given(
    st.lists(st.tuples(AMOUNTS, st.integers(0, 64)), min_size=1, max_size=8),
    st.integers(1, 2**20),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([-1.0, 0.0, 1.0]),
)
@example([(0, 0), (5, 0), (10, 0)], 4, 1.0, 0.0)
def test_more_free_memory_never_makes_a_host_rank_worse(
    amounts: list[tuple[int, int]], more: int, ram: float, cpu: float
) -> None:
    settings = Scheduling(ram_weight_multiplier=ram, cpu_weight_multiplier=cpu)
    fleet = [
        HostState(name, name, True, vcpus, memory, 0) for name, (memory, vcpus) in zip(NAMES, amounts, strict=False)
    ]

    def rank(states: list[HostState], name: str) -> int:
        return [host.name for _, host in weigh(states, settings)].index(name)

    for number, state in enumerate(fleet):
        larger = [*fleet]
        larger[number] = replace(state, free_memory_mb=state.free_memory_mb + more)
        assert rank(larger, state.name) <= rank(fleet, state.name)


@pytest.mark.slow
@ON_ANY_MACHINE
@given(FLEETS, REQUESTS)
def test_a_refusal_is_short_however_many_hosts_there_are(fleet: list[HostState], request: Request) -> None:
    many = [
        replace(host, id=f"{host.id}{n}", name=f"{host.name}{n}", enabled=False) for host in fleet for n in range(50)
    ]
    with pytest.raises(NoValidHost) as error:
        select(many, replace(request, target=None), Scheduling(), lambda _: None)
    assert len(str(error.value)) < 500
