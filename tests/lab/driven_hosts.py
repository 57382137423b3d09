"""The fixtures of the libvirt driver's tests: two lab hosts with a driver each, empty again after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab
from tests.lab.driven import Driven

NAME = "rf-driver"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two hosts."""
    made = Lab(NAME)
    made.down()
    made.up(hosts=2)
    yield made
    made.down()


@pytest.fixture(scope="session")
def hosts(lab: Lab) -> tuple[Driven, Driven]:
    """Both hosts with a driver each. What a host is asked first makes it look at its QEMU, for seconds."""
    driven = Driven(lab.host("h1")), Driven(lab.host("h2"))
    for one in driven:
        one("facts", timeout=60)
    return driven


@pytest.fixture
def one(hosts: tuple[Driven, Driven]) -> Iterator[Driven]:
    """The first host, empty."""
    yield hosts[0]
    hosts[0].host.start_libvirtd()
    hosts[0].clean()


@pytest.fixture
def two(hosts: tuple[Driven, Driven]) -> Iterator[Driven]:
    """The second host, empty."""
    yield hosts[1]
    hosts[1].host.start_libvirtd()
    hosts[1].clean()


@pytest.fixture
def hung(one: Driven) -> Iterator[Driven]:
    """The first host with a daemon that does not answer."""
    one.host.hang_libvirtd()
    yield one
    one.host.unhang_libvirtd()
