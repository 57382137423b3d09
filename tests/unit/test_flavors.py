"""Flavors: who may ask for them, what they ask of a host, and what swap counts for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import Conflict, FlavorNotFound
from resizeflow.persistence.flavors import projects_of
from resizeflow.service import Submitted
from tests.console import Console
from tests.rivals import Rival


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


def test_a_flavor_with_everything(console: Console) -> None:
    words = "flavor create db --vcpus 2 --ram 1024 --disk 2 --ephemeral 3 --swap 100 --private"
    properties = ("--property", "trait:CUSTOM_SSD=required", "--property", "aggregate:rack=a=1")
    made = console.ask(*words.split(), *properties)
    shown = console.ask("flavor", "show", "db")
    assert made == shown
    assert shown["properties"] == {"trait:CUSTOM_SSD": "required", "aggregate:rack": "a=1"}
    expected = {"ephemeral_gb": 3, "swap_mb": 100, "public": False, "disabled": False, "projects": []}
    assert {name: shown[name] for name in expected} == expected
    listed = {row["name"]: row for row in console.ask("flavor", "list")}
    assert (listed["db"]["public"], listed["big"]["public"]) == (False, True)
    assert console.ask("flavor", "show", shown["id"]) == shown


def test_a_private_flavor_is_granted_and_withdrawn(memory_path: Path, connection: str | None) -> None:
    cloud = Cloud(memory_path, connection=connection).build()
    cloud.inventory.create_flavor("own", vcpus=2, memory_mb=1024, root_gb=2, is_public=False)
    with pytest.raises(FlavorNotFound, match="resizeflow flavor set own --project default"):
        cloud.service.resize("web", "own")
    for _ in range(2):
        assert projects_of(cloud.inventory.set_flavor("own", grant=["default", "shop"])) == ["default", "shop"]
    for _ in range(2):
        assert projects_of(cloud.inventory.set_flavor("own", withdraw=["default"])) == ["shop"]
    with pytest.raises(FlavorNotFound):
        cloud.service.resize("web", "own")
    cloud.inventory.set_flavor("own", grant=["default"])
    job = cloud.service.resize("web", "own", host="h2")
    # What is under way goes on; what has been resized may move.
    cloud.inventory.set_flavor("own", withdraw=["default"], disabled=True)
    cloud.run(job)
    cloud.run(cloud.service.confirm("web"))
    cloud.run(cloud.service.migrate("web", host="h1"))
    with cloud.database.read() as tx:
        row = tx.instances.get("web")
        assert (row.flavor.name, row.host.name, row.vm_state) == ("own", "h1", "resized")


@pytest.mark.slow
def test_two_make_or_grant_the_same_at_once(memory_path: Path, postgresql_url: str) -> None:
    cloud = Cloud(memory_path, connection=postgresql_url).build()
    size: Any = {"vcpus": 1, "memory_mb": 64, "root_gb": 1}
    with cloud.database.write() as tx:
        own = tx.flavors.create("own", **size, is_public=False)
        second = Rival(lambda: cloud.inventory.create_flavor("own", **size)).waits(cloud.database)
    error = second.end()
    assert isinstance(error, Conflict)
    assert "There is a flavor 'own' already" in str(error)
    with cloud.database.write() as tx:
        tx.flavors.grant(tx.flavors.get(own.id), "shop")
        second = Rival(lambda: projects_of(cloud.inventory.set_flavor("own", grant=["shop"]))).waits(cloud.database)
    assert second.end() == ["shop"]


def test_a_disabled_flavor_is_enabled_again(console: Console, cloud: Cloud) -> None:
    assert console.ask("flavor", "set", "big", "--disable")["disabled"] is True
    with pytest.raises(FlavorNotFound, match="resizeflow flavor set big --enable"):
        cloud.service.resize("web", "big")
    assert console.ask("flavor", "set", "big", "--enable")["disabled"] is False
    assert isinstance(cloud.service.resize("web", "big"), Submitted)


def test_grants_go_with_words_of_the_command(console: Console) -> None:
    assert console.type("flavor", "create", "own", "--vcpus", "1", "--ram", "64", "--disk", "1", "--private").code == 0
    assert console.ask("flavor", "set", "own", "--project", "a", "--project", "b")["projects"] == ["a", "b"]
    assert console.ask("flavor", "set", "own", "--project", "c", "--no-project", "a")["projects"] == ["b", "c"]


def test_swap_counts_as_disk(cloud: Cloud) -> None:
    cloud.inventory.create_flavor("swapping", vcpus=1, memory_mb=512, root_gb=1, swap_mb=1025)
    cloud.service.resize("web", "swapping", host="h2")
    reserved = {quota.resource: quota.reserved for quota in cloud.inventory.quotas("default")}
    assert reserved == {"instances": 0, "cores": 0, "ram": 0, "gigabytes": 2}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, True),
        ({"swap_mb": 64}, False),
        ({"is_public": False}, False),
        ({"extra_specs": {"trait:CUSTOM_SSD": "required"}}, False),
    ],
)
def test_an_adopted_machine_gets_a_flavor_that_anybody_may_have(
    cloud: Cloud, values: dict[str, object], found: bool
) -> None:
    cloud.world.create_guest("h1", "db", 3, 128, {"vda": 1})
    cloud.inventory.create_flavor("fits", vcpus=3, memory_mb=128, root_gb=1, **values)  # type: ignore[arg-type]
    assert (cloud.inventory.adopt("h1", "db").flavor.name == "fits") is found


def test_an_adopted_machine_gets_no_disabled_flavor(cloud: Cloud) -> None:
    cloud.world.create_guest("h1", "db", 3, 128, {"vda": 1})
    cloud.inventory.create_flavor("fits", vcpus=3, memory_mb=128, root_gb=1)
    cloud.inventory.set_flavor("fits", disabled=True)
    assert cloud.inventory.adopt("h1", "db").flavor.name.startswith("adopted-")
