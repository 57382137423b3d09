"""Host aggregates, availability zones and traits: who may be where, from the command line to the choice of a host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import Conflict, NotFound, NoValidHost, UsageError
from resizeflow.fleet import choose, take_first
from resizeflow.states import JobState, MigrationStatus
from tests.console import Console
from tests.rivals import Rival
from tests.unit.test_groups import add_host, host_of, moved


@pytest.fixture
def cloud(memory_path: Path, connection: str | None) -> Cloud:
    """h1 with the machine, and h2, in zone east; h3 in zone west; h4 in none."""
    return zoned(Cloud(memory_path, connection=connection))


def zoned(cloud: Cloud) -> Cloud:
    cloud.build(running=False)
    for name in ("h3", "h4"):
        add_host(cloud, name)
    for zone, hosts in (("east", ("h1", "h2")), ("west", ("h3",))):
        with cloud.database.write() as tx:
            tx.aggregates.create(zone, {"availability_zone": zone})
        change(cloud, zone, hosts=hosts)
    return cloud


def change(
    cloud: Cloud, name: str, *, hosts: tuple[str, ...] = (), no_hosts: tuple[str, ...] = (), **more: Any
) -> None:
    with cloud.database.write() as tx:
        tx.aggregates.change(
            name,
            properties=more.get("properties", {}),
            no_properties=more.get("no_properties", ()),
            hosts=[tx.hosts.get(host) for host in hosts],
            no_hosts=[tx.hosts.get(host) for host in no_hosts],
        )


def aggregates(cloud: Cloud) -> dict[str, tuple[dict[str, Any], list[str]]]:
    with cloud.database.read() as tx:
        names = {host.id: host.name for host in tx.hosts.list()}
        return {
            row.name: (row.properties, sorted(names[member.host_id] for member in row.members))
            for row in tx.aggregates.list()
        }


def pin(cloud: Cloud, zone: str | None = "east") -> None:
    cloud.inventory.set_instance("web", availability_zone=zone)


# --- zones ---------------------------------------------------------------------------------------------------


def test_a_pinned_machine_does_not_leave_its_zone(cloud: Cloud) -> None:
    """Nova's test_cold_migrate_cross_az."""
    pin(cloud)
    for host in ("h3", "h4"):
        with pytest.raises(NoValidHost, match=f"{host}: not in zone east"):
            cloud.service.migrate("web", host=host)
    job = cloud.service.migrate("web")
    assert moved(cloud, job) is MigrationStatus.FINISHED
    assert host_of(cloud, "web") == "h2"
    assert cloud.migration(job).alternates == []


def test_one_that_is_not_pinned_may(cloud: Cloud) -> None:
    """Nova's test_resize_revert_across_azs: the pin is the machine's, so nothing of the zone has to be put back."""
    assert moved(cloud, cloud.service.resize("web", "big", host="h3")) is MigrationStatus.FINISHED
    assert moved(cloud, cloud.service.revert("web")) is MigrationStatus.REVERTED
    pin(cloud)
    pin(cloud, None)
    assert moved(cloud, cloud.service.resize("web", "big", host="h4")) is MigrationStatus.FINISHED


def test_a_pin_is_only_for_where_the_machine_is(cloud: Cloud) -> None:
    with pytest.raises(Conflict, match="web is on host h1, which is not in zone west"):
        pin(cloud, "west")
    with pytest.raises(NotFound, match="No host is in an availability zone 'north'"):
        pin(cloud, "north")
    job = cloud.service.migrate("web", host="h3")
    with pytest.raises(Conflict, match="web has an open migration"):
        pin(cloud)
    assert cloud.run(job) is JobState.DONE


def test_a_zone_is_not_taken_away_under_a_pinned_machine(cloud: Cloud) -> None:
    pin(cloud)
    before = aggregates(cloud)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: change(cloud, "east", no_hosts=("h1",)),
        lambda: change(cloud, "east", no_properties=["availability_zone"]),
        lambda: change(cloud, "east", properties={"availability_zone": "north"}),
        lambda: delete(cloud, "east"),
    )
    for attempt in attempts:
        with pytest.raises(Conflict, match="outside their availability zone: web;"):
            attempt()
        assert aggregates(cloud) == before
    change(cloud, "east", no_hosts=("h2",))
    pin(cloud, None)
    delete(cloud, "east")
    assert aggregates(cloud).keys() == {"west"}


def delete(cloud: Cloud, name: str) -> None:
    with cloud.database.write() as tx:
        tx.aggregates.delete(name)


def test_both_ends_of_a_move_keep_their_zone(cloud: Cloud) -> None:
    pin(cloud)
    assert moved(cloud, cloud.service.migrate("web")) is MigrationStatus.FINISHED
    for host in ("h1", "h2"):
        with pytest.raises(Conflict, match="outside their availability zone: web"):
            change(cloud, "east", no_hosts=(host,))
    assert moved(cloud, cloud.service.confirm("web")) is MigrationStatus.CONFIRMED
    change(cloud, "east", no_hosts=("h1",))


def test_a_host_is_in_one_zone(cloud: Cloud) -> None:
    with pytest.raises(Conflict, match="h3 would be in two availability zones, east and west"):
        change(cloud, "east", hosts=("h3",))
    with cloud.database.write() as tx:
        tx.aggregates.create("also-east", {"availability_zone": "east"})
    change(cloud, "also-east", hosts=("h2", "h4"))
    pin(cloud)
    change(cloud, "east", no_hosts=("h2",))
    assert moved(cloud, cloud.service.migrate("web", host="h4")) is MigrationStatus.FINISHED


def test_a_zone_that_changes_while_a_host_is_taken(memory_path: Path, postgresql_url: str) -> None:
    """Whoever changes zones waits for a decision that rests on them, and then sees it."""
    cloud = zoned(Cloud(memory_path, connection=postgresql_url))
    pin(cloud)
    job = cloud.service.migrate("web")
    row = cloud.migration(job)
    candidates = [choose(cloud.database, cloud.service.looks, row.instance_id, row.new_flavor, None).host.id]
    with cloud.database.write() as tx:
        taken = take_first(tx, tx.migrations.get(row.id), candidates, dict(row.verdicts), cloud.settings)
        assert taken is not None
        assert taken.name == "h2"
        rival = Rival(lambda: change(cloud, "east", no_hosts=("h2",))).waits(cloud.database)
    assert isinstance(rival.end(), Conflict)
    assert aggregates(cloud)["east"][1] == ["h1", "h2"]


# --- what a flavor asks for ----------------------------------------------------------------------------------


def flavor(cloud: Cloud, **extra_specs: str) -> str:
    specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
    cloud.inventory.create_flavor("asking", vcpus=2, memory_mb=1024, root_gb=2, extra_specs=specs)
    return "asking"


def test_traits_that_a_flavor_requires_and_forbids(cloud: Cloud) -> None:
    name = flavor(cloud, trait__CUSTOM_SSD="required", trait__CUSTOM_OLD="forbidden")
    with pytest.raises(NoValidHost, match="traits: 4 hosts"):
        cloud.service.resize("web", name)
    cloud.inventory.set_host("h3", traits=["CUSTOM_SSD", "CUSTOM_OLD"])
    cloud.inventory.set_host("h4", traits=["CUSTOM_SSD"])
    plan = cloud.service.plan("web", name)
    assert plan.destination == "h4"
    assert (plan.verdicts["h2"], plan.verdicts["h3"]) == ("no trait CUSTOM_SSD", "forbidden trait CUSTOM_OLD")
    cloud.inventory.set_host("h3", no_traits=["CUSTOM_OLD"])
    job = cloud.service.resize("web", name)
    cloud.inventory.set_host("h4", no_traits=["CUSTOM_SSD"])
    assert moved(cloud, job) is MigrationStatus.FINISHED
    assert host_of(cloud, "web") == "h3"


def test_a_property_of_an_aggregate(cloud: Cloud) -> None:
    name = flavor(cloud, aggregate__ssd="true")
    with pytest.raises(NoValidHost, match="aggregates: 4 hosts"):
        cloud.service.resize("web", name)
    change(cloud, "west", properties={"ssd": "true"})
    assert moved(cloud, cloud.service.resize("web", name)) is MigrationStatus.FINISHED
    assert host_of(cloud, "web") == "h3"


def test_a_migration_asks_for_what_the_flavor_of_the_machine_asks(cloud: Cloud) -> None:
    name = flavor(cloud, trait__CUSTOM_SSD="required")
    cloud.inventory.set_host("h3", traits=["CUSTOM_SSD"])
    assert moved(cloud, cloud.service.resize("web", name)) is MigrationStatus.FINISHED
    assert moved(cloud, cloud.service.confirm("web")) is MigrationStatus.CONFIRMED
    with pytest.raises(NoValidHost, match="h4: no trait CUSTOM_SSD"):
        cloud.service.migrate("web", host="h4")


def test_what_is_no_trait(cloud: Cloud) -> None:
    with pytest.raises(UsageError, match="ssd is no trait"):
        cloud.inventory.set_host("h1", traits=["ssd"])
    with pytest.raises(UsageError, match="WITH SPACE is no trait"):
        cloud.inventory.add_host("h9", "sim:///nowhere?host=h9", traits=["WITH SPACE"])


# --- the commands --------------------------------------------------------------------------------------------


def test_commands(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(running=False)
    console = Console(cloud.folder / "resizeflow.conf")
    made = console.ask("aggregate", "create", "east", "--property", "availability_zone=east", "--property", "ssd=true")
    assert made == {"name": "east", "properties": {"availability_zone": "east", "ssd": "true"}, "hosts": []}
    console.ask("aggregate", "set", "east", "--host", "h1", "--host", "h2", "--no-property", "ssd")
    shown = {"name": "east", "properties": {"availability_zone": "east"}, "hosts": ["h1", "h2"]}
    assert console.ask("aggregate", "show", "east") == shown
    assert console.ask("aggregate", "list") == [shown]
    console.ask("host", "set", "h2", "--trait", "CUSTOM_SSD", "--trait", "CUSTOM_GPU")
    host = console.ask("host", "set", "h2", "--no-trait", "CUSTOM_GPU")
    assert (host["availability_zone"], host["aggregates"], host["traits"]) == ("east", ["east"], ["CUSTOM_SSD"])
    assert "h1" in console.type("aggregate", "list").out
    console.ask("instance", "set", "web", "--availability-zone", "east")
    console.type("aggregate", "delete", "east").refused(4, "outside their availability zone: web")
    console.type("aggregate", "set", "east", "--no-host", "h1").refused(4, "web")
    console.type("aggregate", "set", "east", "--host", "h9").refused(2, "no host 'h9'")
    console.type("aggregate", "set", "east", "--property", "ssd=").refused(2, "needs a name and a value")
    console.type("aggregate", "create", "east").refused(4, "already")
    console.type("aggregate", "show", "west").refused(2, "no aggregate 'west'")
    console.type("host", "set", "h2", "--trait", "ssd").refused(2, "is no trait")
    console.ask("group", "create", "db", "--policy", "anti-affinity")
    console.ask("instance", "set", "web", "--group", "db")
    assert console.ask("group", "show", "db")["members"] == {"web": "h1"}
    assert console.ask("group", "list") == [{"name": "db", "policy": "anti-affinity", "project": "default"}]
    console.type("group", "delete", "db").refused(4, "has members: web")
    console.ask("instance", "set", "web", "--no-group", "--no-availability-zone")
    assert console.type("group", "delete", "db").code == 0
    assert console.type("aggregate", "delete", "east").code == 0


def test_the_dry_run_and_the_migration_tell_of_each_host(memory_path: Path) -> None:
    cloud = zoned(Cloud(memory_path))
    cloud.inventory.set_host("h2", enabled=False, disabled_reason="new disks")
    console = Console(cloud.folder / "resizeflow.conf")
    words = ("resize", "web", "--flavor", "big", "--host", "h3")
    told = console.ask(*words, "--dry-run")["hosts"]
    asked_for = "another host was asked for"
    assert told == {"h3": "chosen, weight 0.00", "h1": asked_for, "h2": asked_for, "h4": asked_for}
    told = console.ask(*words[:-2], "--dry-run")["hosts"]
    assert told["h2"] == "disabled (new disks)"
    assert next(iter(told)) == "h3"
    assert "disabled (new disks)" in console.type(*words[:-2], "--dry-run").out
    job = cloud.service.resize("web", "big")
    assert console.ask("migration", "show", job.migration_id)["hosts"] == told
    assert "disabled (new disks)" in console.type("migration", "show", job.migration_id).out
    with cloud.database.write() as tx:
        tx.migrations.get(job.migration_id).verdicts = {f"h{number}": "disabled" for number in range(1000)}
    table = console.type("migration", "show", job.migration_id).out
    assert "and 980 more hosts" in table
    assert len(table.splitlines()) < 100
    assert len(console.ask("migration", "show", job.migration_id)["hosts"]) == 1000
