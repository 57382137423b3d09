"""Quota by the formula: the old flavor until finished, then the larger of both until decided, then the flavor kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import OverQuota, TooManyInstances, UsageError
from resizeflow.persistence.models import Flavor, Instance, Reservation
from resizeflow.persistence.quotas import RESOURCES, charge
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.conftest import BOTH
from tests.console import Console, everything

UNLIMITED = dict.fromkeys(RESOURCES, -1)
OLD = {"instances": 1, "cores": 1, "ram": 512, "gigabytes": 1}
"""The charge of `web` as it was adopted."""


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build(running=False)


def usage(cloud: Cloud) -> tuple[dict[str, int], dict[str, int]]:
    """What is used and what is reserved."""
    quotas = cloud.inventory.quotas("default")
    return {q.resource: q.in_use for q in quotas}, {q.resource: q.reserved for q in quotas}


def reservations(cloud: Cloud) -> int:
    with cloud.database.read() as tx:
        return tx.session.scalar(sa.select(sa.func.count()).select_from(Reservation)) or 0


def larger(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: max(one[key], other[key]) for key in one}


def growth(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    return {key: max(new[key] - old[key], 0) for key in old}


def finished(cloud: Cloud) -> tuple[Submitted, dict[str, int]]:
    """A finished resize to a flavor that is larger in some and smaller in other resources, and its charge."""
    new = charge(cloud.inventory.create_flavor("mixed", vcpus=3, memory_mb=128, root_gb=4), volume_backed=False)
    job = cloud.service.resize("web", "mixed", host="h2")
    assert usage(cloud) == (OLD, growth(OLD, new))
    assert reservations(cloud) == 2
    assert cloud.run(job) is JobState.DONE
    assert usage(cloud) == (larger(OLD, new), UNRESERVED)
    assert reservations(cloud) == 0
    return job, new


UNRESERVED = dict.fromkeys(RESOURCES, 0)


def test_a_confirmed_resize_is_charged_with_the_new_flavor(cloud: Cloud) -> None:
    _job, new = finished(cloud)
    confirm = cloud.service.confirm("web")
    assert usage(cloud) == (larger(OLD, new), UNRESERVED)
    assert cloud.run(confirm) is JobState.DONE
    assert usage(cloud) == (new, UNRESERVED)


@BOTH
def test_a_reverted_resize_is_charged_with_the_old_flavor(cloud: Cloud) -> None:
    finished(cloud)
    # The way back is charged already: no quota can close it.
    cloud.inventory.set_quota("default", dict.fromkeys(RESOURCES, 0))
    assert cloud.run(cloud.service.revert("web")) is JobState.DONE
    assert usage(cloud) == (OLD, UNRESERVED)


def test_a_resize_rolled_back_reserves_nothing(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert usage(cloud)[1] == {"instances": 0, "cores": 1, "ram": 512, "gigabytes": 1}
    cloud.world.fail("h2", "grow_volume", "no")
    assert cloud.run(job) is JobState.DONE
    assert usage(cloud) == (OLD, UNRESERVED)
    assert reservations(cloud) == 0


def test_a_cold_migration_costs_nothing(cloud: Cloud) -> None:
    cloud.inventory.set_quota("default", OLD)
    job = cloud.service.migrate("web", host="h2")
    assert usage(cloud) == (OLD, UNRESERVED)
    assert cloud.run(job) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    assert usage(cloud) == (OLD, UNRESERVED)


@pytest.mark.slow
def test_the_formula_for_any_two_flavors(cloud: Cloud) -> None:
    """Whatever the sizes, limits that just fit before fit after, and each end leaves exactly one flavor's charge."""
    dice = random.Random(7)  # noqa: S311 - no secret
    job = cloud.service.resize("web", "big", host="h2")
    for number in range(40):
        with cloud.database.write() as tx:
            migration = tx.migrations.get(job.migration_id)
            tx.quotas.release(migration)
            tx.session.flush()
            old, new = (
                Flavor(
                    id=f"{side}-{number}",
                    name=f"{side}-{number}",
                    vcpus=dice.randint(1, 8),
                    memory_mb=dice.randint(1, 4096),
                    root_gb=dice.randint(0, 20),
                    ephemeral_gb=dice.choice((0, 0, 5)),
                    swap_mb=dice.choice((0, 0, 1025)),
                )
                for side in ("old", "new")
            )
            tx.session.add_all([old, new])
            migration.old_flavor, migration.new_flavor = old, new
            project = migration.project_id = f"project-{number}"
            backed = migration.volume_backed = number % 3 == 0
            before, after = charge(old, volume_backed=backed), charge(new, volume_backed=backed)
            assert (before == charge(old, volume_backed=False)) is (not backed or not old.root_gb)
            top = larger(before, after)
            machine = Instance(project_id=project, flavor=old, volume_backed=backed)
            tx.quotas.add_instance(machine, before)

            def now(project: str = project, quotas: Callable[..., object] = tx.quotas.usage) -> list[tuple[int, int]]:
                return [(row.in_use, row.reserved) for row in map(quotas, [project] * 4, RESOURCES)]  # type: ignore[attr-defined]

            for resource in RESOURCES:
                if after[resource] > before[resource]:
                    tight = {**top, resource: top[resource] - 1}
                    with pytest.raises(OverQuota, match=f"Quota exceeded for {resource}"):
                        tx.quotas.would_fit(machine, new, tight)
            tx.quotas.would_fit(machine, new, top)
            tx.quotas.reserve(migration, top)
            tx.session.flush()
            assert now() == [(before[r], max(after[r] - before[r], 0)) for r in RESOURCES]
            if number % 4 == 0:
                tx.quotas.release(migration)
                kept = before
            else:
                tx.quotas.commit(migration)
                tx.session.flush()
                assert now() == [(top[r], 0) for r in RESOURCES]
                tx.quotas.commit(migration)
                kept_flavor = old if number % 2 else new
                tx.quotas.settle(migration, kept_flavor)
                kept = charge(kept_flavor, volume_backed=backed)
            tx.session.flush()
            assert now() == [(kept[r], 0) for r in RESOURCES]
            tx.session.rollback()
    assert usage(cloud)[0] == OLD


@BOTH
def test_a_limit_counts_what_others_have_reserved(cloud: Cloud) -> None:
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=False)
    cloud.inventory.adopt("h1", "db")
    cloud.inventory.set_quota("default", {"cores": 3})
    cloud.service.resize("web", "big", host="h2")
    with pytest.raises(
        OverQuota, match="Quota exceeded for cores: Requested 1, but already used 3 of 3 cores"
    ) as error:
        cloud.service.resize("db", "big", host="h2")
    assert (error.value.http_code, error.value.exit_code) == (403, 4)
    cloud.inventory.set_quota("default", {"cores": 4})
    cloud.service.resize("db", "big", host="h2")
    assert usage(cloud)[1]["cores"] == 2


def in_force(cloud: Cloud) -> tuple[int, str]:
    """The limit of cores of project `default`, and where it comes from."""
    (cores,) = [quota for quota in cloud.inventory.quotas("default") if quota.resource == "cores"]
    return cores.limit, cores.limit_from


def test_a_project_s_own_limit_goes_before_the_class_s_and_the_configured(cloud: Cloud) -> None:
    inventory = cloud.inventory
    assert in_force(cloud) == (-1, "configuration")
    inventory.set_quota(None, {"cores": 7})
    assert in_force(cloud) == (7, "class")
    assert inventory.class_limits()["cores"] == (7, "class")
    assert inventory.class_limits()["ram"] == (-1, "configuration")
    inventory.set_quota("default", {"cores": 5})
    inventory.set_quota("default", {"cores": 6, "ram": 1024})
    assert in_force(cloud) == (6, "project")
    with cloud.database.read() as tx:
        assert tx.quotas.limits("another", UNLIMITED)["cores"] == (7, "class")
    inventory.delete_quota("default", ["ram"])
    assert in_force(cloud) == (6, "project")
    inventory.delete_quota("default")
    assert in_force(cloud) == (7, "class")
    inventory.delete_quota(None)
    assert in_force(cloud) == (-1, "configuration")


@BOTH
@pytest.mark.parametrize("whose", [None, "default"], ids=["class", "project"])
def test_a_limit_holds_whatever_it_comes_from(cloud: Cloud, whose: str | None) -> None:
    """Nova's test_resize_server_overquota, and its message."""
    cloud.inventory.create_flavor("four-times", vcpus=1, memory_mb=2048, root_gb=1)
    cloud.inventory.set_quota(whose, {"ram": 512})
    with pytest.raises(TooManyInstances) as error:
        cloud.service.resize("web", "four-times")
    assert str(error.value) == "Quota exceeded for ram: Requested 1536, but already used 512 of 512 ram"
    assert (error.value.http_code, error.value.exit_code) == (403, 4)
    cloud.inventory.delete_quota(whose)
    cloud.service.resize("web", "four-times")


def test_all_that_is_too_little_is_told_at_once(cloud: Cloud) -> None:
    cloud.inventory.set_quota("default", {"ram": 1000, "cores": 1, "gigabytes": 2})
    with pytest.raises(TooManyInstances) as error:
        cloud.service.resize("web", "big")
    told = "Quota exceeded for cores, ram: Requested 1, 512, but already used 1, 512 of 1, 1000 cores, ram"
    assert str(error.value) == told


def test_what_a_smaller_size_frees_is_free_once_it_is_confirmed(cloud: Cloud) -> None:
    """Until then the way back needs it, and nobody else gets it. Nova's revert is refused then, with HTTP 500."""
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=False)
    cloud.inventory.adopt("h1", "db")
    cloud.inventory.create_flavor("less", vcpus=1, memory_mb=256, root_gb=1)
    cloud.inventory.create_flavor("more", vcpus=1, memory_mb=768, root_gb=1)
    cloud.inventory.set_quota("default", {"ram": 1024})
    job = cloud.service.resize("web", "less", host="h2")
    assert reservations(cloud) == 0
    assert cloud.run(job) is JobState.DONE
    assert usage(cloud)[0]["ram"] == 1024
    with pytest.raises(TooManyInstances, match="ram: Requested 256, but already used 1024 of 1024 ram"):
        cloud.service.resize("db", "more", host="h2")
    assert cloud.run(cloud.service.revert("web")) is JobState.DONE
    assert usage(cloud)[0]["ram"] == 1024
    assert cloud.run(cloud.service.resize("web", "less", host="h2")) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    assert usage(cloud)[0]["ram"] == 768
    cloud.service.resize("db", "more", host="h2")
    assert usage(cloud)[0]["ram"] + usage(cloud)[1]["ram"] == 1024


@pytest.mark.parametrize("limits", [{"cores": -2}, {"volumes": 3}])
def test_a_limit_that_is_none(cloud: Cloud, limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is not one of instances, cores, ram, gigabytes"):
        cloud.inventory.set_quota("default", limits)


def test_limits_on_the_command_line(cloud: Cloud) -> None:
    console = Console(cloud.folder / "resizeflow.conf")

    def cores(*words: str) -> tuple[int, str]:
        (row,) = [row for row in console.ask("quota", *words) if row["resource"] == "cores"]
        return row["limit"], row["limit_from"]

    assert cores("set", "--class", "default", "--cores", "5") == (5, "class")
    assert cores("show", "--class", "default") == cores("show", "shop") == (5, "class")
    assert cores("set", "shop", "--cores", "0", "--ram", "-1") == (0, "project")
    assert cores("show") == (5, "class")
    assert cores("delete", "shop", "--ram") == (0, "project")
    assert cores("delete", "shop") == (5, "class")
    assert cores("delete", "--class", "default", "--cores") == (-1, "configuration")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("set --cores 3", "project --class is required"),
        ("set shop --class default --cores 3", "not allowed with argument project"),
        ("set --class gold --cores 3", "invalid choice: 'gold'"),
        ("delete", "project --class is required"),
        ("delete shop --machines", "unrecognized arguments: --machines"),
    ],
)
def test_limits_of_nobody(cloud: Cloud, words: str, told: str) -> None:
    before = everything(cloud)
    answer = Console(cloud.folder / "resizeflow.conf").type("quota", *words.split())
    assert (answer.code, told in answer.err) == (2, True), answer
    assert everything(cloud) == before


def test_a_machine_that_leaves_takes_its_charge_along(cloud: Cloud) -> None:
    assert usage(cloud)[0] == OLD
    cloud.inventory.set_quota("default", {"instances": 1})
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=False)
    with pytest.raises(OverQuota, match="instances"):
        cloud.inventory.adopt("h1", "db")
    cloud.service.remove("web")
    assert usage(cloud)[0] == UNRESERVED
    cloud.inventory.adopt("h1", "db")
    assert usage(cloud)[0] == OLD
