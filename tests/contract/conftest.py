"""The hosts on which the contract is tried: simulated ones, and real ones in a lab of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest

from resizeflow.drivers.simulator import SimulatedWorld
from tests.contract.contract_sites import Daemon, Fleet, Site


@pytest.fixture(scope="session", params=["sim", pytest.param("libvirt", marks=pytest.mark.lab)])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts, kept for all tests."""
    if request.param == "sim":
        world = SimulatedWorld(tmp_path_factory.mktemp("world") / "world.db").create()
        for name in ("here", "there"):
            world.add_host(name)
        here, there = (Site(world.uri(n), world.uri(n), "", "default", _simulated(world, n)) for n in ("here", "there"))
        yield Fleet(here, there, lambda slow: world.set_speed(transfer_seconds=60 if slow else 0.03), 0)
        world.close()
        return
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    from lab import Lab  # noqa: PLC0415 - nothing of the lab is needed without it

    lab = Lab(os.environ.get("RESIZEFLOW_TEST_LAB", "rf-contract"))
    try:
        lab.up(hosts=2)
        here, there = (
            Site(
                host.uri,
                host.peer_uri,
                f"tcp://{host.address}",
                host.pool,
                Daemon(host.hang_libvirtd, host.unhang_libvirtd, host.kill_libvirtd, host.start_libvirtd),
            )
            for host in lab.hosts[:2]
        )
        yield Fleet(here, there, lambda _: None, 16 * 2**20)
    finally:
        lab.down()


def _simulated(world: SimulatedWorld, name: str) -> Daemon:
    return Daemon(
        partial(world.hang, name),
        partial(world.wake, name),
        partial(world.set_up, name, False),
        partial(world.set_up, name, True),
    )


@pytest.fixture
def fleet(hosts: Fleet) -> Iterator[Fleet]:
    """The two hosts, with nothing on them."""
    hosts.here.sweep()
    hosts.there.sweep()
    yield hosts
    hosts.here.sweep()
    hosts.there.sweep()


@pytest.fixture
def site(fleet: Fleet) -> Site:
    """One host."""
    return fleet.here
