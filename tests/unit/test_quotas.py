"""Quota by the formula: the old flavor until finished, then the larger of both until decided, then the flavor kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import OverQuota, UsageError
from resizeflow.persistence.models import Flavor, Reservation
from resizeflow.persistence.quotas import RESOURCES, charge
from resizeflow.service import Submitted
from resizeflow.states import JobState

UNLIMITED = dict.fromkeys(RESOURCES, -1)
OLD = {"instances": 1, "cores": 1, "ram": 512, "gigabytes": 1}
"""The charge of `web` as it was adopted."""
SMALL_AND_LARGE = {"vcpus": 3, "memory_mb": 128, "root_gb": 4}
"""Less memory, more of all else."""


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build(running=False)


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
    new = charge(cloud.inventory.create_flavor("mixed", **SMALL_AND_LARGE))
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
                )
                for side in ("old", "new")
            )
            tx.session.add_all([old, new])
            migration.old_flavor, migration.new_flavor = old, new
            project = migration.project_id = f"project-{number}"
            before, after = charge(old), charge(new)
            top = larger(before, after)
            tx.quotas.add_instance(project, old, before)

            def now(project: str = project, quotas: Callable[..., object] = tx.quotas.usage) -> list[tuple[int, int]]:
                return [(row.in_use, row.reserved) for row in map(quotas, [project] * 4, RESOURCES)]  # type: ignore[attr-defined]

            for resource in RESOURCES:
                if after[resource] > before[resource]:
                    tight = {**top, resource: top[resource] - 1}
                    with pytest.raises(OverQuota, match=f"Quota exceeded for {resource}"):
                        tx.quotas.would_fit(project, old, new, tight)
            tx.quotas.would_fit(project, old, new, top)
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
                kept = charge(kept_flavor)
            tx.session.flush()
            assert now() == [(kept[r], 0) for r in RESOURCES]
            tx.session.rollback()
    assert usage(cloud)[0] == OLD


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


def test_a_project_s_own_limit_goes_before_the_default(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        assert tx.quotas.limits("default", {**UNLIMITED, "ram": 9}) == {**UNLIMITED, "ram": 9}
        tx.quotas.set_limit("default", "ram", 5)
        tx.quotas.set_limit("default", "ram", 6)
        assert tx.quotas.limits("default", {**UNLIMITED, "ram": 9}) == {**UNLIMITED, "ram": 6}
        assert tx.quotas.limits("another", {**UNLIMITED, "ram": 9})["ram"] == 9
        assert tx.quotas.usage("another", "ram").in_use == 0


@pytest.mark.parametrize("limits", [{"cores": -2}, {"volumes": 3}])
def test_a_limit_that_is_none(cloud: Cloud, limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is not one of instances, cores, ram, gigabytes"):
        cloud.inventory.set_quota("default", limits)


def test_a_machine_that_leaves_takes_its_charge_along(cloud: Cloud) -> None:
    assert usage(cloud)[0] == OLD
    cloud.inventory.set_quota("default", {"instances": 1})
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=False)
    with pytest.raises(OverQuota, match="instances"):
        cloud.inventory.adopt("h1", "db")
    cloud.inventory.remove_instance("web")
    assert usage(cloud)[0] == UNRESERVED
    cloud.inventory.adopt("h1", "db")
    assert usage(cloud)[0] == OLD
