"""Sealing: what is sealed, when, by whom, and what it costs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.audit.verify import verify
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence import seals as sealing
from resizeflow.persistence.models import FLEET, SEALS, EventLog, Migration, Seal
from resizeflow.persistence.seals import seal_logs
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.rivals import at_once


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build(running=False)


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h1")


def seals(cloud: Cloud) -> list[tuple[str, int]]:
    with cloud.database.read() as tx:
        return [(row.migration_id, row.seq) for row in tx.session.scalars(sa.select(Seal).order_by(Seal.number))]


def length(cloud: Cloud, log_id: str) -> int:
    with cloud.database.read() as tx:
        return tx.session.get_one(EventLog, log_id).seq


def many(cloud: Cloud, count: int) -> None:
    """So many migrations with a line each, closed."""
    with cloud.database.write() as tx:
        copied = tx.session.scalars(sa.select(Migration)).one()
        row = {column.name: getattr(copied, column.name) for column in Migration.__table__.c}
        for number in range(count):
            tx.session.add(Migration(**row | {"id": f"m{number}", "status": MigrationStatus.REVERTED}))
            tx.events.add(f"m{number}", "note", "a line")


def test_a_log_is_sealed_when_it_is_met_and_when_it_is_at_rest(cloud: Cloud, job: Submitted) -> None:
    log_id = job.migration_id
    assert seal_logs(cloud.database) == 2
    assert seals(cloud) == [(log_id, length(cloud, log_id)), (FLEET, length(cloud, FLEET))]
    assert cloud.run(job) is JobState.DONE
    seal_logs(cloud.database)
    assert Counter(of for of, _seq in seals(cloud))[log_id] == 1
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    seal_logs(cloud.database)
    assert [seq for of, seq in seals(cloud) if of == log_id][1:] == [length(cloud, log_id)]
    assert seal_logs(cloud.database) == 0
    with cloud.database.write() as tx:
        tx.events.add(log_id, "debt", "settled after all")
    assert seal_logs(cloud.database) == 1
    assert seals(cloud)[-1] == (log_id, length(cloud, log_id))
    report = verify(cloud.database)
    assert (report.findings, report.unsealed) == ([], 0)


def test_with_a_head_logs_in_flight_are_sealed_as_they_are(cloud: Cloud, job: Submitted) -> None:
    seal_logs(cloud.database)
    assert cloud.run(job) is JobState.DONE
    assert Counter(of for of, _seq in seals(cloud))[job.migration_id] == 1
    assert seal_logs(cloud.database, in_flight=True) == 2
    assert (job.migration_id, length(cloud, job.migration_id)) in seals(cloud)
    assert seal_logs(cloud.database, in_flight=True) == 0
    assert verify(cloud.database).findings == []


def test_a_worker_seals_what_its_jobs_closed(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job) is JobState.DONE
    confirm = cloud.service.confirm("web")
    assert cloud.run(confirm) is JobState.DONE
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    assert (job.migration_id, length(cloud, job.migration_id)) in seals(cloud)


def test_many_workers_at_once_seal_each_log_once(cloud: Cloud, job: Submitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "AT_ONCE", 7)
    many(cloud, 40)
    counts = at_once(*[lambda: seal_logs(cloud.database) for _ in range(4)])
    seal_logs(cloud.database)
    assert sum(counts) <= 42
    assert len(seals(cloud)) == 42
    assert max(Counter(seals(cloud)).values()) == 1
    assert verify(cloud.database).findings == []


def test_verify_is_right_while_lines_are_written_and_sealed(cloud: Cloud, job: Submitted) -> None:
    many(cloud, 5)

    def write() -> None:
        for number in range(30):
            with cloud.database.write() as tx:
                tx.events.add(f"m{number % 5}", "note", "one more")
                tx.events.command("a command")
            seal_logs(cloud.database, in_flight=number % 2 == 0)

    def look() -> list[object]:
        return [verify(cloud.database).findings for _ in range(15)]

    *_, looked, again = at_once(write, write, look, look)
    assert looked == again == [[]] * 15
    assert verify(cloud.database).findings == []


def test_one_who_dies_in_the_middle_leaves_nothing_half_done(
    cloud: Cloud, job: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "AT_ONCE", 7)
    many(cloud, 20)
    real, calls = sealing._seal_some, []

    def dying(*arguments: Any) -> object:
        done = real(*arguments)
        calls.append(done)
        if len(calls) == 2:
            raise ZeroDivisionError
        return done

    monkeypatch.setattr(sealing, "_seal_some", dying)
    with pytest.raises(ZeroDivisionError):
        seal_logs(cloud.database)
    assert len(seals(cloud)) == 7
    assert verify(cloud.database).findings == []
    monkeypatch.setattr(sealing, "_seal_some", real)
    assert seal_logs(cloud.database) == 15
    assert verify(cloud.database).findings == []


def test_a_log_whose_end_was_forged_is_not_sealed_and_keeps_nobody_from_the_others(
    cloud: Cloud, job: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "AT_ONCE", 1)
    many(cloud, 3)
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(EventLog).where(EventLog.id == "m0").values(instance="another"))
    seal_logs(cloud.database)
    assert {log for log, _seq in seals(cloud)} == {job.migration_id, FLEET, "m1", "m2"}


def test_where_all_is_sealed_nothing_is_locked_and_no_log_is_read(cloud: Cloud, job: Submitted) -> None:
    """It is looked at every ten seconds, with all that there ever was."""
    many(cloud, 10)
    seal_logs(cloud.database)
    with cloud.database.write() as tx:
        before = tx.session.get_one(EventLog, SEALS).signature
    assert seal_logs(cloud.database) == 0
    with cloud.database.read() as tx:
        assert tx.session.get_one(EventLog, SEALS).signature == before
        if cloud.database.sqlite:
            asked = sealing._TO_SEAL.params(after=sealing.FIRST)
            compiled = asked.compile(tx.connection, compile_kwargs={"literal_binds": True})
            plan = tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()
            steps = [row[3] for row in plan]
            assert any("event_logs USING INDEX ix_event_logs_unsealed" in step for step in steps), steps
            assert not any(step.startswith("SCAN") for step in steps), steps
