"""The scheduler: filters, the weigher, alternates, and a reason for every host."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from resizeflow.errors import NoValidHost
from resizeflow.scheduler import ALTERNATES, FILTERS, HostState, Request, select

REQUEST = Request(2, 1024, 10, "a", 1, 512, 10, same_host_allowed=True)


def host(name: str, memory: float = 4096, vcpus: float = 8, disk: float = 100) -> HostState:
    return HostState(name, name, True, vcpus, memory, disk)


def test_the_most_free_memory_wins_and_names_break_ties() -> None:
    chosen = select([host("d", 2048), host("c", 4096), host("b", 4096), host("e", 1024)], REQUEST)
    assert chosen.host.name == "b"
    assert [alternate.name for alternate in chosen.alternates] == ["c", "d"]
    assert len(chosen.alternates) == ALTERNATES
    assert chosen.verdicts == {
        "b": "chosen, 4096 MiB of memory free",
        "c": "fits, 4096 MiB of memory free",
        "d": "fits, 2048 MiB of memory free",
        "e": "fits, 1024 MiB of memory free",
    }


def test_each_filter_says_why() -> None:
    fleet = [
        host("a"),
        replace(host("b"), enabled=False, disabled_reason="new disks"),
        replace(host("c"), enabled=False),
        host("d", memory=1023),
        host("e", vcpus=1.5, disk=-3),
        replace(host("f"), away="it does not answer"),
        host("g"),
    ]
    chosen = select(fleet, replace(REQUEST, same_host_allowed=False))
    assert chosen.host.name == "g"
    assert chosen.alternates == ()
    assert chosen.verdicts == {
        "a": "the machine is there now",
        "b": "disabled (new disks)",
        "c": "disabled",
        "d": "memory: needs 1024 MiB, has 1023 MiB",
        "e": "vCPUs: needs 2, has 1.5; disk: needs 10 GiB, has 0 GiB",
        "f": "it does not answer",
        "g": "chosen, 4096 MiB of memory free",
    }


def test_on_its_own_host_only_what_is_more_is_needed() -> None:
    tight = host("a", memory=512, vcpus=1, disk=10)
    assert select([tight], REQUEST).host is tight
    with pytest.raises(NoValidHost, match="b: vCPUs: needs 2, has 1; memory"):
        select([replace(tight, id="b", name="b")], REQUEST)


def test_the_host_asked_for_or_none() -> None:
    fleet = [host("a", 9000), host("b", 2000), host("c", 3000)]
    chosen = select(fleet, replace(REQUEST, target="b"))
    assert (chosen.host.name, chosen.alternates) == ("b", ())
    assert chosen.verdicts["a"] == "another host was asked for"
    with pytest.raises(NoValidHost) as error:
        select([host("a"), host("b", 1)], replace(REQUEST, target="b"))
    assert str(error.value) == "No valid host. b: memory: needs 1024 MiB, has 1 MiB."


def test_an_empty_fleet_says_what_to_do() -> None:
    with pytest.raises(NoValidHost, match="add one with `resizeflow host add`"):
        select([], REQUEST)


def test_whatever_the_fleet_the_choice_passes_all_filters_and_none_is_better() -> None:
    dice = random.Random(11)  # noqa: S311 - no secret
    for _ in range(300):
        fleet = [
            HostState(
                name,
                name,
                dice.random() > 0.2,
                dice.randint(0, 6),
                dice.choice((0, 512, 1024, 2048, 4096)),
                dice.randint(0, 20),
                away=dice.choice((None, None, "away")),
            )
            for name in "abcdef"
        ]
        request = replace(REQUEST, same_host_allowed=dice.random() > 0.5)
        fit = [state for state in fleet if not any(check(state, request) for check in FILTERS)]
        if not fit:
            with pytest.raises(NoValidHost):
                select(fleet, request)
            continue
        chosen = select(fleet, request)
        order = [chosen.host, *chosen.alternates]
        assert order == sorted(fit, key=lambda state: (-state.free_memory_mb, state.name))[: len(order)]
        assert len(order) == min(len(fit), 1 + ALTERNATES)
        assert set(chosen.verdicts) == set("abcdef")
