"""Many at once against a quota: never over a limit at any moment, and not one less accepted than fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.connections import Connections
from resizeflow.errors import OverQuota
from resizeflow.inventory import Inventory
from resizeflow.persistence import database as database_module
from resizeflow.persistence import recount
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import QuotaUsage, Reservation
from resizeflow.service import Service, Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.rivals import PATIENCE, Rival, at_once

MACHINES, ADMITTED = 50, 20
MANY = pytest.mark.parametrize(
    "connection", ["postgresql", pytest.param("sqlite", marks=pytest.mark.certify)], indirect=True
)
"""On SQLite, where writers wait for each other, many are tried in certification."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fifty writers at once the last one may wait for longer, on a busy machine, than a writer waits."""
    monkeypatch.setattr(database_module, "BUSY_SECONDS", int(PATIENCE))
    monkeypatch.setitem(database_module.POSTGRESQL, "options", f"-c lock_timeout={PATIENCE:g}s")


def build(cloud: Cloud, machines: int) -> list[str]:
    """Two hosts with room for all, and machines of 1 vCPU and 512 MiB on the first; their names."""
    cloud.build(running=False)
    for host in ("big1", "big2"):
        cloud.world.add_host(host, vcpus=64, memory_mb=262144, pool_gb=1000)
        uri = cloud.world.uri(host)
        cloud.inventory.add_host(host, uri, peer_uri=uri, data_uri="tcp://198.51.100.12", max_moves=machines)
    names = [f"m{number}" for number in range(machines)]
    for name in names:
        cloud.world.create_guest("big1", name, 1, 512, {"vda": 1}, running=False)
        cloud.inventory.adopt("big1", name, project="shop")
    return names


class Own:
    """Use cases on connections of one's own, as another process has them."""

    def __init__(self, cloud: Cloud) -> None:
        self.database = Database.of(cloud.settings)
        self.connections = Connections()
        self.service = Service(self.database, cloud.settings, connections=self.connections)
        self.inventory = Inventory(self.database, cloud.settings, connections=self.connections)
        self.settings = cloud.settings

    def __enter__(self) -> Own:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connections.close()
        self.database.engine.dispose()


def on_its_own(cloud: Cloud, work: Callable[[Own], object]) -> Callable[[], object]:
    def run() -> object:
        with Own(cloud) as own:
            return work(own)

    return run


def drain(own: Own) -> int:
    with Worker(own.database, own.settings, clock=FastClock()) as worker:
        return worker.drain()


def books(cloud: Cloud) -> dict[str, tuple[int, int]]:
    """In use and reserved, by resource."""
    return {quota.resource: (quota.in_use, quota.reserved) for quota in cloud.inventory.quotas("shop")}


@contextmanager
def watched(cloud: Cloud, limits: dict[str, int]) -> Iterator[None]:
    """Looks at the books all the time: within the limits by the database's own sum, and what is counted is recorded."""
    wrong: list[Any] = []
    looks, done = 0, threading.Event()
    over = sa.or_(
        *(
            sa.and_(QuotaUsage.resource == name, QuotaUsage.in_use + QuotaUsage.reserved > limit)
            for name, limit in limits.items()
        ),
        QuotaUsage.in_use < 0,
        QuotaUsage.reserved < 0,
    )

    def look(own: Own) -> None:
        nonlocal looks
        while not done.wait(0.005):
            with own.database.read() as tx:
                wrong.extend(tx.session.scalars(sa.select(QuotaUsage).where(over)))
                wrong.extend(recount.find(tx, ["shop"]))
            looks += 1

    watcher = Rival(on_its_own(cloud, look))
    try:
        yield
    finally:
        done.set()
        assert watcher.end() is None
    assert not wrong, wrong[:5]
    assert looks


@pytest.mark.slow
@MANY
def test_fifty_resizes_and_room_for_twenty(memory_path: Path, connection: str | None) -> None:
    cloud = Cloud(memory_path, connection=connection)
    names = build(cloud, MACHINES)
    limits = {"instances": MACHINES, "cores": MACHINES + ADMITTED, "ram": 10**6, "gigabytes": 10**6}
    cloud.inventory.set_quota("shop", limits)

    def resize(name: str) -> Callable[[], object]:
        return on_its_own(cloud, lambda own: own.service.resize(name, "big", host="big2"))

    with watched(cloud, limits):
        answers = dict(zip(names, at_once(*map(resize, names)), strict=True))
        accepted = {name: answer for name, answer in answers.items() if isinstance(answer, Submitted)}
        refused = [answer for name, answer in answers.items() if name not in accepted]
        assert len(accepted) == ADMITTED, answers
        full = f"Quota exceeded for cores: Requested 1, but already used {limits['cores']} of {limits['cores']} cores"
        assert all(isinstance(error, OverQuota) for error in refused)
        assert {str(error) for error in refused} == {full}
        assert books(cloud)["cores"] == (MACHINES, ADMITTED)

        # One does not work out; the others are confirmed and reverted by turns.
        failed, *finished = accepted
        cloud.service.rollback(accepted[failed].migration_id)
        assert sum(at_once(*[on_its_own(cloud, drain)] * 3)) == ADMITTED
        assert books(cloud)["cores"] == (MACHINES + ADMITTED - 1, 0)
        for number, name in enumerate(finished):
            (cloud.service.confirm, cloud.service.revert)[number % 2](name)
        assert sum(at_once(*[on_its_own(cloud, drain)] * 3)) == ADMITTED - 1
    for name, job in accepted.items():
        migration = cloud.migration(job)
        place = finished.index(name) % 2 if name in finished else 2
        ends = (MigrationStatus.CONFIRMED, MigrationStatus.REVERTED, MigrationStatus.ERROR)
        assert migration.status is ends[place], cloud.story(job)
    grown = len(finished[::2])
    assert books(cloud) == {
        "instances": (MACHINES, 0),
        "cores": (MACHINES + grown, 0),
        "ram": (512 * (MACHINES + grown), 0),
        "gigabytes": (MACHINES + grown, 0),
    }
    with cloud.database.read() as tx:
        assert not tx.session.scalars(sa.select(Reservation)).all()
    assert not cloud.inventory.sync_quotas()


@pytest.mark.slow
def test_two_resizes_and_room_for_one(memory_path: Path, connection: str | None) -> None:
    """Nova accepts both, and has then 4 of 3 cores used (its quota is checked, not reserved)."""
    cloud = Cloud(memory_path, connection=connection)
    names = build(cloud, 2)
    cloud.inventory.set_quota("shop", {"cores": 3})
    for _ in range(5):
        resizes = [
            on_its_own(cloud, lambda own, name=name: own.service.resize(name, "big", host="big2"))  # type: ignore[misc]
            for name in names
        ]
        answers = at_once(*resizes)
        accepted = [answer for answer in answers if isinstance(answer, Submitted)]
        refused = [answer for answer in answers if isinstance(answer, OverQuota)]
        assert (len(accepted), len(refused)) == (1, 1), answers
        assert str(refused[0]) == "Quota exceeded for cores: Requested 1, but already used 3 of 3 cores"
        assert books(cloud)["cores"] == (2, 1)
        cloud.service.rollback(accepted[0].migration_id)
        assert cloud.run(accepted[0]) is JobState.DONE
        assert books(cloud)["cores"] == (2, 0)


@pytest.mark.slow
@MANY
def test_a_sync_among_resizes_counts_none_of_them_wrong(memory_path: Path, connection: str | None) -> None:
    cloud = Cloud(memory_path, connection=connection)
    names = build(cloud, 3)
    busy = set(names)

    def resize(name: str) -> Callable[[], object]:
        def rounds(own: Own) -> None:
            try:
                with Worker(own.database, own.settings, clock=FastClock()) as worker:
                    worker.finish(own.service.resize(name, "big").job_id)
                    worker.finish(own.service.confirm(name).job_id)
                    worker.finish(own.service.resize(name, "small").job_id)
                    worker.finish(own.service.revert(name).job_id)
                    job = own.service.resize(name, "huge")
                    own.service.rollback(job.migration_id)
                    worker.finish(job.job_id)
            finally:
                busy.discard(name)

        return on_its_own(cloud, rounds)

    def sync(own: Own) -> list[recount.Drift]:
        found: list[recount.Drift] = []
        syncs = 0
        while busy:
            found.extend(own.inventory.sync_quotas())
            syncs += 1
            # SQLite is all the sync's as long as it takes.
            time.sleep(0.02)
        assert syncs
        return found

    cloud.inventory.create_flavor("huge", vcpus=4, memory_mb=2048, root_gb=4)
    cloud.inventory.create_flavor("small", vcpus=1, memory_mb=256, root_gb=2)
    *ends, found = at_once(*map(resize, names), on_its_own(cloud, sync))
    assert ends == [None] * len(names)
    assert found == []
    assert not cloud.inventory.sync_quotas()


def test_a_sync_waits_for_a_resize_that_reserves(memory_path: Path, postgresql_url: str) -> None:
    cloud = Cloud(memory_path, connection=postgresql_url)
    build(cloud, 1)
    job = cloud.service.resize("m0", "big", host="big2")
    with cloud.database.write() as tx:
        tx.quotas.release(tx.migrations.get(job.migration_id))
        tx.flush()
        # Not committed yet: the migration is open, and what it reserves is given back.
        sync = Rival(on_its_own(cloud, lambda own: own.inventory.sync_quotas("shop"))).waits(cloud.database)
        tx.session.rollback()
    assert sync.end() == []
    assert books(cloud)["cores"] == (1, 1)


def test_a_resize_waits_for_a_sync(memory_path: Path, postgresql_url: str) -> None:
    cloud = Cloud(memory_path, connection=postgresql_url)
    build(cloud, 1)
    cloud.inventory.set_quota("shop", {"cores": 1})
    cores = sa.update(QuotaUsage).filter_by(resource="cores", project_id="shop")
    with cloud.database.write() as tx:
        tx.session.execute(cores.values(in_use=0))
    with cloud.database.write() as tx:
        recount.lock(tx, ["shop"])
        recount.correct(tx, recount.find(tx, ["shop"]), "test")
        resize = Rival(on_its_own(cloud, lambda own: own.service.resize("m0", "big"))).waits(cloud.database)
    assert isinstance(resize.end(), OverQuota)
