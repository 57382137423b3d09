"""The flow store: two commits per task and the named intents, nothing else; and a flow that has ended stays ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from taskflow import exceptions as taskflow_exc

from resizeflow import failpoints, flows
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.lease import Lease
from resizeflow.persistence.flow_store import FlowStore
from resizeflow.persistence.models import AtomDetail, FlowDetail
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.console import everything

INTENTS = {
    ("h1", True): {"SelectDestination": ["allocate"], "PowerOffSource": ["migrating"], "StartDestination": ["pivot"]},
    ("h1", False): {"SelectDestination": ["allocate"], "PowerOffSource": ["migrating"]},
    ("h2", True): {
        "SelectDestination": ["allocate"],
        "PowerOffSource": ["migrating"],
        "TransferDisks": ["copied"],
        "StartDestination": ["pivot"],
    },
}
"""By destination and whether the machine runs: which tasks of a resize commit something before they end."""


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build()


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    log = tmp_path / "points"
    monkeypatch.setattr(failpoints, "_log", str(log))
    yield log


def run_alone(cloud: Cloud, job: Submitted) -> None:
    """Without the thread that renews leases, so that every commit is the flow's."""
    Worker(cloud.database, cloud.settings, clock=FastClock(), announced=False).take_and_run(job.job_id)


@pytest.mark.parametrize(("host", "running"), INTENTS)
def test_the_commits_of_a_resize(
    memory_path: Path, slow_connection: str | None, points: Path, host: str, running: bool
) -> None:
    cloud = Cloud(memory_path, connection=slow_connection).build(running=running)
    # No progress is reported of a transfer that takes no time.
    cloud.world.set_speed(transfer_seconds=0)
    job = cloud.service.resize("web", "big", host=host)
    commits = 0

    def committed(_connection: object) -> None:
        nonlocal commits
        commits += 1

    sa.event.listen(cloud.database.engine, "commit", committed)
    run_alone(cloud, job)
    sa.event.remove(cloud.database.engine, "commit", committed)
    assert cloud.job(job).state is JobState.DONE
    expected = ["job.submit", "job.take", "flow.opened", "flow.RUNNING"]
    for task in flows.TASKS["resize_v1"]:
        intents = INTENTS[host, running].get(task.__name__, [])
        expected += [f"{task.__name__}.RUNNING"]
        expected += [f"{task.__name__}.commit.{intent}#1" for intent in intents]
        expected += [f"{task.__name__}.SUCCESS"]
    expected += ["flow.SUCCESS"]
    passed = points.read_text().split()
    acts = {name.removesuffix(".checked") for name in passed if name.endswith(".checked")}
    ended = [name.removesuffix(".after") for name in passed if name.endswith(".after")]
    structure = [name for name in ended if name not in acts]
    print(f"{commits} commits: {', '.join(structure)}")
    assert structure == expected
    # The submit was before; none is hidden.
    assert commits == len(expected) - 1


def flow_state(cloud: Cloud, job: Submitted) -> str | None:
    with cloud.database.read() as tx:
        return tx.session.get_one(FlowDetail, job.job_id).state


def test_a_rolled_back_flow_is_never_run_again(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.fail("h2", "create_volume", "no")
    # Killed between the flow's last state and what follows, where there is such a moment; and run anyway.
    assert cloud.run(job) is JobState.DONE
    assert flow_state(cloud, job) == "REVERTED"
    with cloud.database.write() as tx:
        tx.session.execute(
            sa.text("UPDATE jobs SET state = 'running', lease_until = 0 WHERE id = :id"), {"id": job.job_id}
        )
    world, effects = cloud.world.snapshot(), len(cloud.world.effects())
    before = everything(cloud)
    run_alone(cloud, job)
    assert cloud.job(job).state is JobState.DONE
    assert flow_state(cloud, job) == "REVERTED"
    assert cloud.world.snapshot() == world
    assert len(cloud.world.effects()) == effects
    after = everything(cloud)
    assert {name for name in after if after[name] != before[name]} == {"jobs", "events", "event_logs"}
    assert len(after["events"]) == len(before["events"]) + 1


def test_a_finished_flow_is_never_run_again(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    with cloud.database.write() as tx:
        tx.session.execute(sa.text("UPDATE jobs SET state = 'queued', direction = 'back'"))
    world = cloud.world.snapshot()
    run_alone(cloud, job)
    assert flow_state(cloud, job) == "SUCCESS"
    assert cloud.world.snapshot() == world
    assert cloud.migration(job).status is MigrationStatus.FINISHED


def test_a_rollback_before_the_flow_began_closes_the_migration(cloud: Cloud) -> None:
    before = cloud.state()
    job = cloud.service.resize("web", "big", host="h2")
    assert flow_state(cloud, job) is None
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert cloud.migration(job).closed_at is not None
    assert flow_state(cloud, job) == "REVERTED"
    assert cloud.state() == before
    assert cloud.world.effects() == ()
    again = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(again) is JobState.DONE


@pytest.mark.parametrize(
    "point", ["flow.opened.before", "flow.opened.after", "flow.RUNNING.after", "OpenMigration.RUNNING.after"]
)
def test_a_rollback_after_a_kill_at_the_very_beginning(cloud: Cloud, point: str) -> None:
    before = cloud.state()
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert cloud.state() == before


def test_a_failure_turns_the_job_back_in_the_transaction_that_tells_of_it(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.fail("h2", "create_volume", "the disk is on fire")
    assert cloud.run_in_child(job, "TransferDisks.FAILURE.before") == KILLED
    assert (cloud.job(job).direction, cloud.migration(job).error) == (Direction.FORWARD, None)
    cloud.world.fail("h2", "create_volume", "the disk is on fire")
    assert cloud.run_in_child(_expired(cloud, job), "TransferDisks.FAILURE.after") == KILLED
    assert cloud.job(job).direction is Direction.BACK
    assert "on fire" in (cloud.migration(job).error or "")
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.ERROR


def _expired(cloud: Cloud, job: Submitted) -> Submitted:
    cloud.expire(job)
    return job


def test_a_log_line_is_committed_whatever_else_was_only_looked_for(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    with cloud.database.write() as tx:
        assert not tx.session.in_transaction()
        tx.events.add(job.migration_id, "note", "written beside a session that did nothing")
    with cloud.database.read() as tx:
        assert tx.events.of(job.migration_id)[-1].text == "written beside a session that did nothing"


def test_what_is_stored_is_names_and_states_only(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    with cloud.database.read() as tx:
        atoms = tx.session.scalars(sa.select(AtomDetail)).all()
    assert sorted(atom.name for atom in atoms) == sorted(task.__name__ for task in flows.TASKS["resize_v1"])
    assert {atom.state for atom in atoms} == {"SUCCESS"}
    for atom in atoms:
        assert atom.content["results"] is None, atom.name
        assert not atom.content["failure"], atom.name
        assert not atom.content["meta"].keys() - {"progress"}, atom.name


def test_history_is_not_destroyed_through_taskflow(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    lease = Lease(job.job_id, job.migration_id, "one", 1, 0.0)
    connection = FlowStore(cloud.database, lease, UnitOfWork(job.migration_id)).get_connection()
    before = everything(cloud)
    with pytest.raises(taskflow_exc.StorageFailure):
        connection.destroy_logbook(job.migration_id)
    with pytest.raises(taskflow_exc.StorageFailure):
        connection.clear_all()
    with pytest.raises(taskflow_exc.NotFound):
        connection.get_flow_details("nothing")
    assert everything(cloud) == before
    book = connection.get_logbook(job.migration_id)
    assert [detail.uuid for detail in book] == [job.job_id]
    assert len(list(connection.get_atoms_for_flow(job.job_id))) == len(flows.TASKS["resize_v1"])
