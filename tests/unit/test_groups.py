"""Server groups: where members may go, also while others are on their way, and also when they ask at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.errors import Conflict, NotFound, NoValidHost, RuleError, UsageError
from resizeflow.fleet import choose, take_first
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Host
from resizeflow.persistence.transaction import Transaction
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.conftest import BOTH
from tests.rivals import Rival, at_once

pytestmark = pytest.mark.slow

AWAY = "of anti-affinity group db is there, or may be"
TOGETHER = "of affinity group db is elsewhere, or may be"


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return apart(Cloud(memory_path, connection=thorough_connection))


def apart(cloud: Cloud) -> Cloud:
    """`web` on h1 and `db` on h2, members of one anti-affinity group, and h3 without any."""
    cloud.build(running=False)
    add_host(cloud, "h3")
    add_machine(cloud, "h2", "db")
    with cloud.database.write() as tx:
        tx.groups.create("db", "anti-affinity", "default")
    for name in ("web", "db"):
        cloud.inventory.set_instance(name, group_name="db")
    return cloud


def add_host(cloud: Cloud, name: str) -> None:
    cloud.world.add_host(name, vcpus=8, memory_mb=16384, pool_gb=100)
    uri = cloud.world.uri(name)
    cloud.inventory.add_host(name, uri, peer_uri=uri, data_uri="tcp://198.51.100.12")


def add_machine(cloud: Cloud, host: str, name: str, *, project: str = "default") -> None:
    cloud.world.create_guest(host, name, 1, 512, {"vda": 1}, running=False)
    cloud.inventory.adopt(host, name, project=project)


def host_of(cloud: Cloud, name: str) -> str:
    with cloud.database.read() as tx:
        return tx.instances.get(name).host.name


def moved(cloud: Cloud, job: Submitted) -> MigrationStatus:
    """A migration's status when its job is done."""
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return cloud.migration(job).status


# --- joining and leaving -------------------------------------------------------------------------------------


def test_who_may_join(cloud: Cloud) -> None:
    add_machine(cloud, "h2", "mail")
    add_machine(cloud, "h3", "shop", project="shop")
    with pytest.raises(Conflict, match=f"mail cannot join where it is now: db {AWAY}"):
        cloud.inventory.set_instance("mail", group_name="db")
    with pytest.raises(RuleError, match="group db is of project default, not of shop"):
        cloud.inventory.set_instance("shop", group_name="db")
    with pytest.raises(NotFound, match="no server group 'dbs'"):
        cloud.inventory.set_instance("mail", group_name="dbs")
    with cloud.database.write() as tx:
        tx.groups.create("close", "affinity", "default")
    cloud.inventory.set_instance("mail", group_name="close")
    with pytest.raises(Conflict, match="mail of affinity group close is elsewhere"):
        cloud.inventory.set_instance("web", group_name="close")
    with cloud.database.read() as tx:
        assert [row.name for row in tx.groups.members("db")] == ["db", "web"]
        assert [row.name for row in tx.groups.members("close")] == ["mail"]


def test_nobody_joins_on_the_move(cloud: Cloud) -> None:
    cloud.inventory.set_instance("web", group_name=None)
    job = cloud.service.migrate("web", host="h3")
    with pytest.raises(Conflict, match="web has an open migration"):
        cloud.inventory.set_instance("web", group_name="db")
    assert moved(cloud, job) is MigrationStatus.FINISHED
    with pytest.raises(Conflict, match="web has an open migration"):
        cloud.inventory.set_instance("web", group_name="db")
    assert moved(cloud, cloud.service.confirm("web")) is MigrationStatus.CONFIRMED
    cloud.inventory.set_instance("web", group_name="db")


def test_a_group_with_members_is_not_deleted(cloud: Cloud) -> None:
    with pytest.raises(Conflict, match="has members: db, web"), cloud.database.write() as tx:
        tx.groups.delete("db")
    for name in ("web", "db"):
        cloud.inventory.set_instance(name, group_name=None)
    with cloud.database.write() as tx:
        tx.groups.delete("db")
    with cloud.database.read() as tx:
        assert tx.groups.list() == []


def test_groups_that_cannot_be(cloud: Cloud) -> None:
    with pytest.raises(Conflict, match="a server group 'db' already"), cloud.database.write() as tx:
        tx.groups.create("db", "affinity", "default")
    with pytest.raises(UsageError, match="not 'soft-affinity'"), cloud.database.write() as tx:
        tx.groups.create("other", "soft-affinity", "default")


# --- moving --------------------------------------------------------------------------------------------------


def test_members_stay_apart(cloud: Cloud) -> None:
    with pytest.raises(NoValidHost, match=f"h2: db {AWAY}"):
        cloud.service.migrate("web", host="h2")
    job = cloud.service.migrate("web")
    assert moved(cloud, job) is MigrationStatus.FINISHED
    assert host_of(cloud, "web") == "h3"
    assert AWAY in cloud.migration(job).verdicts["h2"]


def test_a_resize_on_its_own_host(cloud: Cloud) -> None:
    """Nova's test_resize_to_same_host_with_anti_affinity."""
    assert moved(cloud, cloud.service.resize("web", "big", host="h1")) is MigrationStatus.FINISHED
    assert host_of(cloud, "web") == "h1"


@BOTH
def test_both_ends_count_until_it_is_decided(cloud: Cloud) -> None:
    """Nova's test_migrate_with_anti_affinity_confirm_updates_scheduler: right after the confirm the source is free."""
    assert moved(cloud, cloud.service.migrate("web", host="h3")) is MigrationStatus.FINISHED
    for host in ("h1", "h3"):
        with pytest.raises(NoValidHost, match=f"{host}: web {AWAY}"):
            cloud.service.migrate("db", host=host)
    assert moved(cloud, cloud.service.confirm("web")) is MigrationStatus.CONFIRMED
    assert moved(cloud, cloud.service.migrate("db", host="h1")) is MigrationStatus.FINISHED
    assert moved(cloud, cloud.service.revert("db")) is MigrationStatus.REVERTED
    assert moved(cloud, cloud.service.migrate("web", host="h1")) is MigrationStatus.FINISHED


def test_after_a_rollback_the_destination_is_free(cloud: Cloud) -> None:
    job = cloud.service.migrate("web", host="h3")
    cloud.world.fail("h3", "define", "no")
    assert moved(cloud, job) is MigrationStatus.ERROR
    assert moved(cloud, cloud.service.migrate("db", host="h3")) is MigrationStatus.FINISHED


def test_members_stay_together(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        tx.groups.create("close", "affinity", "default")
    cloud.inventory.set_instance("web", group_name="close")
    assert moved(cloud, cloud.service.migrate("web", host="h3")) is MigrationStatus.FINISHED
    assert moved(cloud, cloud.service.confirm("web")) is MigrationStatus.CONFIRMED
    add_machine(cloud, "h3", "mail")
    cloud.inventory.set_instance("mail", group_name="close")
    with pytest.raises(NoValidHost, match="mail of affinity group close is elsewhere"):
        cloud.service.migrate("web")
    assert moved(cloud, cloud.service.resize("web", "big")) is MigrationStatus.FINISHED
    assert host_of(cloud, "web") == "h3"


# --- at once -------------------------------------------------------------------------------------------------


def ready(cloud: Cloud) -> tuple[Submitted, Submitted]:
    """Migrations of both members, accepted when h3 was free of both."""
    return cloud.service.migrate("web"), cloud.service.migrate("db")


def chosen(cloud: Cloud, job: Submitted) -> list[str]:
    """Ids of the hosts that the scheduler chooses now, the best first."""
    migration = cloud.migration(job)
    selection = choose(
        cloud.database, cloud.service.looks, migration.instance_id, migration.new_flavor, migration.requested_host_id
    )
    return [host.id for host in (selection.host, *selection.alternates)]


def take(tx: Transaction, cloud: Cloud, job: Submitted, candidates: list[str]) -> Host | None:
    migration = tx.migrations.get(job.migration_id)
    return take_first(tx, migration, candidates, dict(migration.verdicts), cloud.settings)


def test_what_was_free_when_it_was_chosen(cloud: Cloud) -> None:
    """An alternate that fits takes its place; without one nothing is taken."""
    web, db = ready(cloud)
    first, second = chosen(cloud, web), chosen(cloud, db)
    assert first == second
    with cloud.database.write() as tx:
        taken = take(tx, cloud, web, first)
        assert taken is not None
        assert taken.name == "h3"
    with cloud.database.write() as tx:
        assert take(tx, cloud, db, second) is None
    row = cloud.migration(db)
    assert (row.dest_host_id, row.alternates) == (None, [])
    assert row.verdicts["h3"] == f"no longer: web {AWAY}"
    add_host(cloud, "h4")
    with cloud.database.write() as tx:
        taken = take(tx, cloud, db, [*second, tx.hosts.get("h4").id])
        assert taken is not None
        assert taken.name == "h4"


@BOTH
def test_two_members_at_once_never_come_to_one_host(cloud: Cloud) -> None:
    jobs = ready(cloud)

    def work(job: Submitted) -> JobState:
        database = Database.of(cloud.settings)
        with Worker(database, cloud.settings, clock=FastClock()) as worker:
            worker.take_and_run(job.job_id)
        database.engine.dispose()
        return cloud.job(job).state

    at_once(*[lambda job=job: work(job) for job in jobs])
    ends = [moved(cloud, job) for job in jobs]
    assert sorted(ends) == [MigrationStatus.ERROR, MigrationStatus.FINISHED], [cloud.story(job) for job in jobs]
    hosts = {host_of(cloud, "web"), host_of(cloud, "db")}
    assert hosts in ({"h1", "h3"}, {"h2", "h3"})


def test_the_second_waits_for_the_first_and_sees_it(memory_path: Path, postgresql_url: str) -> None:
    """Nova bug 1821755: each is checked before the other is there. Here the transactions really overlap."""
    cloud = apart(Cloud(memory_path, connection=postgresql_url))
    web, db = ready(cloud)
    candidates = chosen(cloud, web)

    def second() -> Host | None:
        with cloud.database.write() as tx:
            return take(tx, cloud, db, candidates)

    with cloud.database.write() as tx:
        assert take(tx, cloud, web, candidates) is not None
        rival = Rival(second).waits(cloud.database)
    assert rival.end() is None
    assert cloud.migration(db).dest_host_id is None


def test_a_machine_that_joins_waits_too(memory_path: Path, postgresql_url: str) -> None:
    cloud = apart(Cloud(memory_path, connection=postgresql_url))
    add_machine(cloud, "h3", "mail")
    job = cloud.service.migrate("web")
    with cloud.database.write() as tx:
        assert take(tx, cloud, job, chosen(cloud, job)) is not None
        rival = Rival(lambda: cloud.inventory.set_instance("mail", group_name="db")).waits(cloud.database)
    refused = rival.end()
    assert isinstance(refused, Conflict)
    assert f"web {AWAY}" in str(refused)
