"""The scheduler: filters, weighers, alternates, and a reason for every host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from resizeflow.config import Scheduling
from resizeflow.errors import NoValidHost
from resizeflow.persistence.groups import AFFINITY, ANTI_AFFINITY, Others
from resizeflow.scheduler import FILTERS, HostState, Needs, Request, Selection, against, select, weigh

REQUEST = Request(2, 1024, 10, "a", 1, 512, 10, same_host_allowed=True)
BY_MEMORY = Scheduling(cpu_weight_multiplier=0, disk_weight_multiplier=0, moves_weight_multiplier=0)


def host(name: str, memory: float = 4096, vcpus: float = 8, disk: float = 100) -> HostState:
    return HostState(name, name, True, vcpus, memory, disk)


def choose(
    fleet: list[HostState], request: Request = REQUEST, settings: Scheduling = BY_MEMORY, **unfit: str
) -> Selection:
    """The choice where a look finds these hosts unfit, by name, and the others fit."""
    return select(fleet, request, settings, lambda state: unfit.get(state.name))


# --- filters -------------------------------------------------------------------------------------------------


def test_each_filter_says_why() -> None:
    fleet = [
        host("a"),
        replace(host("b"), enabled=False, disabled_reason="new disks"),
        replace(host("c"), enabled=False, fenced=True),
        host("d", memory=1023),
        host("e", vcpus=1.5, disk=-3),
        host("f"),
        host("g"),
    ]
    chosen = choose(fleet, replace(REQUEST, same_host_allowed=False), f="it does not answer")
    assert chosen.host.name == "g"
    assert chosen.alternates == ()
    assert chosen.verdicts == {
        "a": "the machine is there now",
        "b": "disabled (new disks)",
        "c": "disabled; fenced",
        "d": "memory: needs 1024 MiB, has 1023 MiB",
        "e": "vCPUs: needs 2, has 1.5; disk: needs 10 GiB, has 0 GiB",
        "f": "it does not answer",
        "g": "chosen, weight 0.00",
    }
    assert next(iter(chosen.verdicts)) == "g"


def test_on_its_own_host_only_what_is_more_is_needed() -> None:
    """Nova bug 1790204: the sum of both flavors is asked for, and a resize that fits is refused."""
    tight = host("a", memory=512, vcpus=1, disk=10)
    assert choose([tight]).host is tight
    with pytest.raises(NoValidHost, match="b: vCPUs: needs 2, has 1; memory"):
        choose([replace(tight, id="b", name="b")])


@pytest.mark.parametrize(
    ("specs", "traits", "clause"),
    [
        ({}, {"CUSTOM_SSD"}, None),
        ({"trait:CUSTOM_SSD": "required"}, {"CUSTOM_SSD", "CUSTOM_GPU"}, None),
        ({"trait:CUSTOM_SSD": "required"}, {"CUSTOM_GPU"}, "no trait CUSTOM_SSD"),
        ({"trait:CUSTOM_SSD": "forbidden"}, {"CUSTOM_GPU"}, None),
        ({"trait:CUSTOM_SSD": "forbidden"}, {"CUSTOM_SSD"}, "forbidden trait CUSTOM_SSD"),
        (
            {"trait:CUSTOM_SSD": "forbidden", "trait:CUSTOM_GPU": "required"},
            {"CUSTOM_SSD"},
            "no trait CUSTOM_GPU, forbidden trait CUSTOM_SSD",
        ),
    ],
)
def test_traits(specs: dict[str, str], traits: set[str], clause: str | None) -> None:
    state = replace(host("b"), traits=frozenset(traits))
    assert FILTERS["traits"](state, replace(REQUEST, needs=Needs.of(specs))) == clause


@pytest.mark.parametrize(
    ("specs", "clause"),
    [
        ({"aggregate:ssd": "true"}, None),
        ({"aggregate:ssd": "nvme"}, None),
        ({"aggregate:ssd": "no"}, "in no aggregate with ssd=no"),
        ({"aggregate:ssd": "true", "aggregate:gpu": "a100"}, "in no aggregate with gpu=a100"),
    ],
)
def test_aggregates_by_property(specs: dict[str, str], clause: str | None) -> None:
    state = replace(host("b"), properties={"ssd": frozenset({"true", "nvme"})})
    assert FILTERS["aggregates"](state, replace(REQUEST, needs=Needs.of(specs))) == clause


def test_a_pinned_machine_stays_in_its_zone() -> None:
    east = replace(host("b", 2048), properties={"availability_zone": frozenset({"east"})})
    west = replace(host("c"), properties={"availability_zone": frozenset({"west"})})
    chosen = choose([east, west, host("d")], replace(REQUEST, zone="east"))
    assert (chosen.host, chosen.alternates) == (east, ())
    assert chosen.verdicts == {"b": "chosen, weight 0.00", "c": "not in zone east", "d": "not in zone east"}
    assert choose([east, west]).host is west


@pytest.mark.parametrize(
    ("policy", "others", "refused"),
    [
        (ANTI_AFFINITY, {"db-2": {"b"}}, {"b"}),
        (ANTI_AFFINITY, {"db-2": {"b", "c"}}, {"b", "c"}),
        (ANTI_AFFINITY, {"db-2": {"b"}, "db-3": {"c"}}, {"b", "c"}),
        (ANTI_AFFINITY, {}, set()),
        (AFFINITY, {"db-2": {"b"}}, {"c", "d"}),
        (AFFINITY, {"db-2": {"b"}, "db-3": {"b"}}, {"c", "d"}),
        (AFFINITY, {"db-2": {"b", "c"}}, {"b", "c", "d"}),
        (AFFINITY, {}, set()),
    ],
)
def test_a_group_counts_wherever_a_member_may_end(policy: str, others: dict[str, set[str]], refused: set[str]) -> None:
    hosts = {name: frozenset(where) for name, where in others.items()}
    request = replace(REQUEST, others=Others("db", policy, hosts))
    assert {name for name in "abcd" if FILTERS["server group"](host(name), request)} == refused


def test_a_group_says_who_is_in_the_way() -> None:
    others = Others("db", ANTI_AFFINITY, {"db-2": frozenset({"b"}), "db-3": frozenset({"b", "c"})})
    assert against(host("b"), replace(REQUEST, others=others)) == {
        "server group": "db-2, db-3 of anti-affinity group db is there, or may be"
    }
    together = replace(others, policy=AFFINITY)
    assert against(host("b"), replace(REQUEST, others=together)) == {
        "server group": "db-3 of affinity group db is elsewhere, or may be"
    }


# --- weighers ------------------------------------------------------------------------------------------------


def test_the_most_free_memory_wins_and_names_break_ties() -> None:
    chosen = choose([host("d", 2048), host("c", 4096), host("b", 4096), host("e", 1024)])
    assert chosen.host.name == "b"
    assert [alternate.name for alternate in chosen.alternates] == ["c", "d"]
    assert chosen.verdicts == {
        "b": "chosen, weight 1.00",
        "c": "alternate 1, weight 1.00",
        "d": "alternate 2, weight 0.33",
        "e": "fits by its records, weight 0.00, not looked at",
    }
    assert list(chosen.verdicts) == ["b", "c", "d", "e"]


def test_weighers_add_up_between_worst_and_best() -> None:
    fleet = [
        host("b", memory=1000, vcpus=8, disk=100),
        host("c", memory=3000, vcpus=4, disk=50),
        replace(host("d", memory=2000, vcpus=8, disk=75), moves=2),
        replace(host("e", memory=1000, vcpus=6, disk=50), moves=1),
    ]
    weights = {state.name: weight for weight, state in weigh(fleet, Scheduling())}
    assert weights == {"b": 0 + 1 + 1 + 1, "c": 1 + 0 + 0 + 1, "d": 0.5 + 1 + 0.5 + 0, "e": 0 + 0.5 + 0 + 0.5}
    assert list(weights) == ["b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("settings", "best"),
    [
        (BY_MEMORY, "b"),
        (replace(BY_MEMORY, ram_weight_multiplier=-1.0), "e"),
        (replace(BY_MEMORY, ram_weight_multiplier=0, cpu_weight_multiplier=1.0), "c"),
        (replace(BY_MEMORY, ram_weight_multiplier=0, disk_weight_multiplier=1.0), "d"),
        (replace(BY_MEMORY, ram_weight_multiplier=0, moves_weight_multiplier=1.0), "e"),
        (Scheduling(disk_weight_multiplier=10.0), "d"),
    ],
)
def test_multipliers(settings: Scheduling, best: str) -> None:
    fleet = [
        replace(host("b", memory=9000), moves=1),
        replace(host("c", vcpus=90), moves=1),
        replace(host("d", disk=900), moves=1),
        host("e", memory=3000),
    ]
    assert choose(fleet, settings=settings).host.name == best


# --- the choice ----------------------------------------------------------------------------------------------


def test_only_as_many_are_looked_at_as_are_needed() -> None:
    seen: list[str] = []

    def look(state: HostState) -> str | None:
        seen.append(state.name)
        return "no bridge" if state.name in "bd" else None

    fleet = [host(name, memory) for name, memory in zip("bcdefg", range(9000, 3000, -1000), strict=True)]
    chosen = select(fleet, REQUEST, replace(BY_MEMORY, max_attempts=2), look)
    assert (chosen.host.name, [state.name for state in chosen.alternates], seen) == ("c", ["e"], list("bcde"))
    assert chosen.verdicts["b"] == chosen.verdicts["d"] == "no bridge"
    assert chosen.verdicts["f"].endswith("not looked at")
    assert choose(fleet, settings=replace(BY_MEMORY, max_attempts=1)).alternates == ()


def test_the_host_asked_for_or_none() -> None:
    fleet = [host("a", 9000), host("b", 2000), host("c", 3000)]
    chosen = choose(fleet, replace(REQUEST, target="b"))
    assert (chosen.host.name, chosen.alternates) == ("b", ())
    assert chosen.verdicts["a"] == "another host was asked for"
    with pytest.raises(NoValidHost) as error:
        choose([host("a"), host("b", 1)], replace(REQUEST, target="b"))
    assert str(error.value) == "No valid host. b: memory: needs 1024 MiB, has 1 MiB."
    with pytest.raises(NoValidHost, match=r"^No valid host\. b: its pool is full\.$"):
        choose(fleet, replace(REQUEST, target="b"), b="its pool is full")


def test_an_empty_fleet_says_what_to_do() -> None:
    with pytest.raises(NoValidHost, match="add one with `resizeflow host add`"):
        choose([])


def test_of_many_hosts_the_reasons_are_counted() -> None:
    fleet = [host(f"h{number:04}", memory=number) for number in range(980)]
    fleet += [replace(host(f"x{number}"), enabled=False, disabled_reason=f"ticket {number}") for number in range(17)]
    fleet += [host("y1"), host("y2"), replace(host("z"), fenced=True)]
    with pytest.raises(NoValidHost) as error:
        choose(fleet, y1="it has no bridge br1", y2="it has no bridge br1")
    assert str(error.value) == (
        "No valid host. no room for memory: 980 hosts; disabled: 17 hosts; it has no bridge br1: y1, y2; fenced: z."
    )
    chosen = choose([*fleet, host("fits")])
    assert len(chosen.verdicts) == 1001
    assert chosen.verdicts["x3"] == "disabled (ticket 3)"
