"""The hosts on which the contract is tried: simulated ones, and real ones in a lab of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from lab import Lab, Volumes
from lab.neutron import Neutron
from resizeflow.drivers import connect
from resizeflow.drivers.hypervisor import SecretSpec
from resizeflow.drivers.interface import Unknown
from resizeflow.drivers.simulator import SimulatedWorld
from resizeflow.drivers.simulator.faults import Fault
from tests.contract import network_sites
from tests.contract.contract_sites import Daemon, Fleet, Site
from tests.contract.network_sites import NetworkSite
from tests.contract.volume_sites import RealSite, SimulatedSite, VolumeSite


@pytest.fixture(scope="session", params=["sim", pytest.param("libvirt", marks=pytest.mark.lab)])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts, kept for all tests."""
    if request.param == "sim":
        world = SimulatedWorld(tmp_path_factory.mktemp("world") / "world.db").create()
        for name in ("here", "there"):
            world.add_host(name)
        here, there = (
            Site(world.uri(n), world.uri(n), "", "default", _simulated(world, n), partial(_half_simulated, world, n))
            for n in ("here", "there")
        )
        yield Fleet(here, there, lambda slow: world.set_speed(transfer_seconds=60 if slow else 0.03), 0)
        world.close()
        return
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
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
                partial(_half_defined, host.virsh),
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


def _half_simulated(world: SimulatedWorld, name: str, spec: SecretSpec) -> None:
    connection = connect(world.uri(name))
    connection.open(20)
    world.fail(name, "define_secret", fault=Fault.HALF)
    with pytest.raises(Unknown):
        connection.call("define_secret", (spec,), timeout=20)


def _half_defined(virsh: Callable[..., str], spec: SecretSpec) -> None:
    use = {"ceph": f"<name>resizeflow {spec.uuid}</name>", "iscsi": f"<target>resizeflow-{spec.uuid}</target>"}
    xml = (
        f"<secret ephemeral='no' private='no'><uuid>{spec.uuid}</uuid>"
        f"<description>resizeflow migration {spec.migration}</description>"
        f"<usage type='{spec.kind}'>{use[spec.kind]}</usage></secret>"
    )
    virsh("secret-define", "/dev/stdin", stdin=xml)


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


@pytest.fixture(scope="session")
def real_cinder(storage: Volumes, tmp_path_factory: pytest.TempPathFactory) -> RealSite:
    """The way to it."""
    return RealSite(tmp_path_factory.mktemp("cinder"), storage)


@pytest.fixture(params=["sim", pytest.param("cinder", marks=pytest.mark.lab)])
def cinder(request: pytest.FixtureRequest, tmp_path: Path) -> VolumeSite:
    """A Cinder, and an open connection to it."""
    site: VolumeSite = SimulatedSite(tmp_path) if request.param == "sim" else request.getfixturevalue("real_cinder")
    site.connection.open(20)
    return site


@pytest.fixture(scope="session")
def real_neutron(tmp_path_factory: pytest.TempPathFactory) -> Iterator[network_sites.RealSite]:
    """A real Neutron, and the way to it."""
    with Neutron() as server:
        yield network_sites.RealSite(tmp_path_factory.mktemp("neutron"), server)


@pytest.fixture(params=["sim", pytest.param("neutron", marks=pytest.mark.lab)])
def neutron(request: pytest.FixtureRequest, tmp_path: Path) -> NetworkSite:
    """A Neutron, and an open connection to it."""
    simulated = request.param == "sim"
    site: NetworkSite = network_sites.SimulatedSite(tmp_path) if simulated else request.getfixturevalue("real_neutron")
    site.connection.open(20)
    return site
