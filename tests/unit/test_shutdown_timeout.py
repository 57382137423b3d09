"""A guest gets its own time to shut down, wherever it is shut down; then it is powered off. The log says which."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import NotFound, UsageError
from resizeflow.persistence.models import Aggregate, AggregateHost
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.console import Console

pytestmark = pytest.mark.slow

CLEANLY, HARD = "web shut down cleanly", "web did not shut down within {:g} s, it is powered off hard"


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    """The setting's time is too short for the guest, which takes an hour."""
    cloud = Cloud(memory_path, shutdown_timeout="0.05").build()
    cloud.world.set_speed(shutdown_seconds=3600)
    return cloud


def done(cloud: Cloud, job: Submitted) -> str:
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return cloud.story(job)


def test_its_own_time_on_the_source(cloud: Cloud) -> None:
    cloud.world.set_speed(shutdown_seconds=0.3)
    cloud.inventory.set_instance("web", shutdown_timeout=60.0)
    assert CLEANLY in done(cloud, cloud.service.migrate("web"))


def test_the_setting_s_time_where_it_has_none(cloud: Cloud) -> None:
    assert HARD.format(0.05) in done(cloud, cloud.service.migrate("web"))


def test_a_guest_that_was_off_when_its_time_was_over_is_not_said_to_be_powered_off(cloud: Cloud) -> None:
    """Also where its worker, or its host, was too slow to look before."""
    cloud.world.set_speed(shutdown_seconds=0)
    cloud.inventory.set_instance("web", shutdown_timeout=1e-9)
    assert CLEANLY in done(cloud, cloud.service.migrate("web"))


def test_its_own_time_may_be_shorter(memory_path: Path) -> None:
    cloud = Cloud(memory_path, shutdown_timeout="600").build()
    cloud.world.set_speed(shutdown_seconds=300)
    cloud.inventory.set_instance("web", shutdown_timeout=0.0)
    began = time.monotonic()
    told = done(cloud, cloud.service.migrate("web"))
    assert HARD.format(0) in told
    assert time.monotonic() - began < 300


def test_its_own_time_on_the_destination_of_a_revert(cloud: Cloud) -> None:
    resize = done(cloud, cloud.service.resize("web", "big", host="h2"))
    assert resize.count(HARD.format(0.05)) == 1
    cloud.world.set_speed(shutdown_seconds=0.3)
    cloud.inventory.set_instance("web", shutdown_timeout=60.0)
    revert = done(cloud, cloud.service.revert("web"))
    assert revert.count(CLEANLY) == 1
    assert revert.count(HARD.format(60)) == 0


def test_a_machine_that_is_off_is_not_waited_for(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(running=False)
    assert "web is off already" in done(cloud, cloud.service.migrate("web"))
    assert "shutdown" not in {effect.method for effect in cloud.world.effects()}


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_none(cloud: Cloud, seconds: float) -> None:
    with pytest.raises(UsageError, match="shutdown timeout"):
        cloud.inventory.set_instance("web", shutdown_timeout=seconds)


def test_an_unknown_group_or_zone(cloud: Cloud) -> None:
    with pytest.raises(NotFound, match="no server group 'g9'"):
        cloud.inventory.set_instance("web", group_name="g9")
    with pytest.raises(NotFound, match="availability zone 'z9'"):
        cloud.inventory.set_instance("web", availability_zone="z9")


def test_typed(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path).build()
    console = Console(tmp_path / "resizeflow.conf")
    with cloud.database.write() as tx:
        tx.groups.create("pair", "anti-affinity", "default")
        member = AggregateHost(host_id=tx.hosts.get("h1").id)
        tx.session.add(Aggregate(name="east", properties={"availability_zone": "east"}, members=[member]))

    def shown() -> tuple[object, ...]:
        row = console.ask("instance", "show", "web")
        return row["shutdown_timeout"], row["group"], row["availability_zone"]

    console.ask("instance", "set", "web", "--shutdown-timeout", "300", "--group", "pair", "--availability-zone", "east")
    assert shown() == (300.0, "pair", "east")
    console.ask("instance", "set", "web", "--no-group")
    assert shown() == (300.0, None, "east")
    console.ask("instance", "set", "web", "--no-shutdown-timeout", "--no-availability-zone")
    assert shown() == (None, None, None)
    console.type("instance", "set", "web", "--group", "g9").refused(2, "no server group 'g9'")
    console.type("instance", "set", "web", "--availability-zone", "z9").refused(2, "z9")
    console.type("instance", "set", "web", "--shutdown-timeout", "-1").refused(2, "shutdown timeout")
    assert console.type("instance", "set", "web", "--group", "g", "--no-group").code == 2
