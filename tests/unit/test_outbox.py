"""What is told of each operation: Nova's events in Nova's order, written with the change that each tells of."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.config import Notifications
from resizeflow.drivers import notifier
from resizeflow.drivers.notifier import NotSent
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import FLEET, Event, Instance, Job, Notification
from resizeflow.postman import Postman, forget_old
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, TaskState
from resizeflow.worker import Worker
from tests.conftest import BOTH

SELECT = ["scheduler.select_destinations.start", "scheduler.select_destinations.end"]
PREP = ["instance.exists", "instance.resize_prep.start"]
GIVEN_UP = ["instance.resize.error", "instance.resize_prep.end"]
TRANSFER = ["instance.resize_prep.end", "instance.resize.start"]
FINISH = ["instance.resize.end", "instance.resize_finish.start"]
MIGRATE_SERVER = "compute_task.migrate_server.error"


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build()


def notifications(cloud: Cloud, job: Submitted | None = None) -> list[Notification]:
    """In the order of their numbers; of one job, or all."""
    with cloud.database.read() as tx:
        rows = tx.session.scalars(sa.select(Notification).order_by(Notification.seq)).all()
    return [row for row in rows if job is None or data(row)["request_id"] == job.job_id]


def data(row: Notification) -> dict[str, Any]:
    found: dict[str, Any] = row.payload["nova_object.data"]
    return found


def told(cloud: Cloud, job: Submitted | None = None) -> list[str]:
    return [row.event_type for row in notifications(cloud, job)]


def run(cloud: Cloud, job: Submitted) -> Submitted:
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    return job


@BOTH
def test_a_resize_tells_novas_events_in_novas_order(cloud: Cloud) -> None:
    job = run(cloud, cloud.service.resize("web", "big", host="h2"))
    assert told(cloud) == [*SELECT, *PREP, *TRANSFER, *FINISH, "instance.resize_finish.end"]
    rows = notifications(cloud, job)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1)) == [data(row)["sequence"] for row in rows]
    assert {row.priority for row in rows} == {"INFO"}
    # The flavor at that time; the new one where it is being prepared.
    prep, end = rows[3], rows[-1]
    assert data(prep)["flavor"]["nova_object.data"]["memory_mb"] == 512
    assert data(prep)["new_flavor"]["nova_object.data"]["name"] == "big"
    assert (data(prep)["host"], data(prep)["state"], data(prep)["task_state"]) == ("h1", "active", "resize_prep")
    assert data(end)["flavor"]["nova_object.data"]["name"] == "big"
    assert (data(end)["host"], data(end)["state"], data(end)["task_state"]) == ("h2", "resized", None)
    move = data(end)["migration"]["nova_object.data"]
    assert (move["source_compute"], move["dest_compute"], move["status"]) == ("h1", "h2", "finished")


def test_task_states_are_those_of_nova_as_each_event_is_told(cloud: Cloud) -> None:
    job = run(cloud, cloud.service.resize("web", "big", host="h2"))
    states = {row.event_type: data(row).get("task_state") for row in notifications(cloud, job)}
    assert states["instance.resize.start"] == TaskState.RESIZE_MIGRATING
    assert states["instance.resize.end"] == TaskState.RESIZE_MIGRATED
    assert states["instance.resize_finish.start"] == TaskState.RESIZE_FINISH


@pytest.mark.parametrize(
    ("decide", "events"),
    [
        ("confirm", ["instance.resize_confirm.start", "instance.resize_confirm.end"]),
        ("revert", ["instance.exists", "instance.resize_revert.start", "instance.resize_revert.end"]),
    ],
)
def test_a_decision_tells_novas_events(cloud: Cloud, decide: str, events: list[str]) -> None:
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    job = run(cloud, getattr(cloud.service, decide)("web"))
    assert told(cloud, job) == events
    assert all(row.migration_id == job.migration_id for row in notifications(cloud, job))


def test_a_cold_migration_tells_what_a_resize_does(cloud: Cloud) -> None:
    run(cloud, cloud.service.migrate("web"))
    assert told(cloud) == [*SELECT, *PREP, *TRANSFER, *FINISH, "instance.resize_finish.end"]


ROLLED_BACK = {
    "flow.RUNNING.after": [MIGRATE_SERVER],
    "OpenMigration.SUCCESS.after": [SELECT[0], "scheduler.select_destinations.error", MIGRATE_SERVER],
    "CaptureSource.SUCCESS.after": [*SELECT, *PREP, *GIVEN_UP, MIGRATE_SERVER],
    "TransferDisks.SUCCESS.after": [*SELECT, *PREP, *TRANSFER, "instance.resize.error"],
    "MoveInstance.SUCCESS.after": [*SELECT, *PREP, *TRANSFER, FINISH[0], "instance.resize_finish.error"],
    "DefineDestination.SUCCESS.after": [*SELECT, *PREP, *TRANSFER, *FINISH, "instance.resize_finish.error"],
}


@pytest.mark.slow
@pytest.mark.parametrize("point", ROLLED_BACK)
def test_a_rollback_tells_the_error_of_the_phase_that_was_open(cloud: Cloud, point: str) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    cloud.service.rollback(job.migration_id)
    run(cloud, job)
    assert told(cloud) == ROLLED_BACK[point]
    last = notifications(cloud)[-1]
    assert last.priority == "ERROR"
    fault = data(last).get("fault") or data(last)["reason"]
    assert fault["nova_object.data"]["exception_message"] == "rolled back on request"


def test_a_failure_is_told_with_its_reason(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.fail("h2", "define", "the host says no")
    run(cloud, job)
    assert told(cloud)[-1] == "instance.resize_finish.error"
    assert "the host says no" in json.dumps(notifications(cloud)[-1].payload)


def test_a_host_that_does_not_fit_gives_way_as_nova_reschedules(cloud: Cloud) -> None:
    cloud.world.add_host("h3", vcpus=8, memory_mb=8192, pool_gb=100)
    uri = cloud.world.uri("h3")
    cloud.inventory.add_host("h3", uri, peer_uri=uri, data_uri="tcp://198.51.100.12")
    cloud.inventory.set_host("h1", enabled=False)
    job = cloud.service.resize("web", "big")
    assert cloud.run_in_child(job, "SelectDestination.SUCCESS.after") == KILLED
    first = cloud.migration(job).dest_host
    assert first is not None
    cloud.world.set_up(first.name, False)
    run(cloud, job)
    assert told(cloud) == [*SELECT, *PREP, *GIVEN_UP, *PREP, *TRANSFER, *FINISH, "instance.resize_finish.end"]
    hosts = [data(row)["migration"]["nova_object.data"]["dest_compute"] for row in notifications(cloud)]
    assert hosts[3] == hosts[4] == hosts[5] == first.name
    assert hosts[7] == hosts[-1] == ({"h2", "h3"} - {first.name}).pop()


def test_no_host_that_fits_ends_as_in_nova(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "SelectDestination.SUCCESS.after") == KILLED
    cloud.world.set_up("h2", False)
    run(cloud, job)
    assert told(cloud) == [*SELECT, *PREP, *GIVEN_UP, MIGRATE_SERVER]
    assert "h2" in json.dumps(notifications(cloud)[-1].payload)


@pytest.mark.slow
def test_a_confirm_that_refuses_and_a_revert_that_cannot_begin_are_told(cloud: Cloud) -> None:
    job = run(cloud, cloud.service.resize("web", "big", host="h2"))
    cloud.world.fail("h2", "domain", "the host says no")
    confirm = run(cloud, cloud.service.confirm("web"))
    assert told(cloud, confirm) == ["instance.resize_confirm.start", "instance.resize_confirm.error"]
    cloud.world.fail("h1", "domain", "the host says no")
    revert = run(cloud, cloud.service.revert("web"))
    assert told(cloud, revert) == ["instance.exists", "instance.resize_revert.start", "instance.resize_revert.error"]
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert "the host says no" in json.dumps(notifications(cloud)[-1].payload)


def test_a_job_that_needs_a_person_tells_it_once_per_stop_and_its_end_later(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "TransferDisks.SUCCESS.after") == KILLED
    for _ in range(2):
        with cloud.database.write() as tx:
            tx.session.execute(sa.update(Job).values(attempts=cloud.settings.max_attempts))
        assert cloud.run(job) is JobState.NEEDS_ATTENTION, cloud.story(job)
        assert "without progress" in json.dumps(notifications(cloud)[-1].payload)
        cloud.service.resume(job.migration_id)
    run(cloud, job)
    stop = "instance.resize.error"
    assert told(cloud) == [*SELECT, *PREP, *TRANSFER, stop, stop, *FINISH, "instance.resize_finish.end"]


@BOTH
def test_what_is_told_and_what_it_tells_of_are_one_transaction(cloud: Cloud) -> None:
    """A kill right before the commit of a state leaves neither, right after it both; nothing is told twice."""
    job = cloud.service.resize("web", "big", host="h2")
    expected = {"allocate": 4, "migrating": 6}
    for task, intent in (("SelectDestination", "allocate"), ("PowerOffSource", "migrating")):
        before = told(cloud)
        assert cloud.run_in_child(job, f"{task}.commit.{intent}#1.before") == KILLED
        assert told(cloud) == (before or SELECT[:1])
        assert cloud.run_in_child(job, f"{task}.commit.{intent}#1.after") == KILLED
        assert len(told(cloud)) == expected[intent]
    run(cloud, job)
    assert told(cloud) == [*SELECT, *PREP, *TRANSFER, *FINISH, "instance.resize_finish.end"]


def test_every_notification_of_a_migration_has_its_line_in_the_log(cloud: Cloud) -> None:
    job = run(cloud, cloud.service.resize("web", "big", host="h2"))
    with cloud.database.read() as tx:
        lines = [event for event in tx.events.of(job.migration_id) if event.kind == "notification"]
    assert [(line.text, line.data["message_id"]) for line in lines] == [
        (row.event_type, row.message_id) for row in notifications(cloud)
    ]


# --- changes of state ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, []),
        ("vm_state", [("active", "resized", "resize_finish", None)]),
        (
            "vm_and_task_state",
            [
                ("active", "active", None, "resize_prep"),
                ("active", "active", "resize_prep", "resize_migrating"),
                ("active", "active", "resize_migrating", "resize_migrated"),
                ("active", "active", "resize_migrated", "resize_finish"),
                ("active", "resized", "resize_finish", None),
            ],
        ),
    ],
)
def test_changes_of_state_are_told_as_novas_option_says(
    memory_path: Path, thorough_connection: str | None, wanted: str | None, expected: list[tuple[str | None, ...]]
) -> None:
    cloud = Cloud(memory_path, connection=thorough_connection).build()
    settings = Notifications(notify_on_state_change=wanted)
    cloud.database = Database(cloud.settings.connection, notifications=settings, key=cloud.settings.audit_key_file)
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    updates = [data(row) for row in notifications(cloud) if row.event_type == "instance.update"]
    changes = [update["state_update"]["nova_object.data"] for update in updates]
    assert [
        (change["old_state"], change["state"], change["old_task_state"], change["new_task_state"]) for change in changes
    ] == expected
    events = [event for event in told(cloud) if event != "instance.update"]
    assert events == [*SELECT, *PREP, *TRANSFER, *FINISH, "instance.resize_finish.end"]


# --- numbers ---------------------------------------------------------------------------------------------


@BOTH
def test_the_database_refuses_a_second_use_of_a_number(cloud: Cloud) -> None:
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    with cloud.database.read() as tx:
        row = tx.outbox.list()[0]
    values = {key: getattr(row, key) for key in ("instance_id", "seq", "event_type", "priority", "payload")}
    values |= {"created_at": row.created_at, "wanted": False, "message_id": "another"}
    with pytest.raises(DBDuplicateEntry), cloud.database.write() as tx:
        tx.session.execute(sa.insert(Notification).values(**values))


def aged(cloud: Cloud, days: int) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Notification).values(created_at=tx.now() - timedelta(days=days)))


@pytest.fixture
def url() -> str:
    return "rabbit://nobody:nothing@127.0.0.1:1/"


def sending(cloud: Cloud, url: str) -> Database:
    """The cloud's database for one who sends."""
    return Database(
        cloud.settings.connection, notifications=Notifications(transport_url=url), key=cloud.settings.audit_key_file
    )


@BOTH
def test_what_is_old_is_forgotten_and_numbers_go_on(cloud: Cloud) -> None:
    job = run(cloud, cloud.service.resize("web", "big", host="h2"))
    count = len(told(cloud))
    forget_old(cloud.database, Notifications(keep_days=30), cloud.clock)
    assert len(told(cloud)) == count
    aged(cloud, 31)
    forget_old(cloud.database, Notifications(keep_days=30), cloud.clock)
    assert [row.seq for row in notifications(cloud)] == [count]
    # The phase that is open is known from the log.
    confirm = run(cloud, cloud.service.confirm("web"))
    assert [row.seq for row in notifications(cloud, confirm)] == [count + 1, count + 2]
    with cloud.database.read() as tx:
        assert tx.outbox.open_phase(job.migration_id) is None


@BOTH
def test_what_waits_for_the_broker_is_never_forgotten_what_was_only_recorded_is_never_sent(
    cloud: Cloud, url: str
) -> None:
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    recorded = len(told(cloud))
    cloud.database = sending(cloud, url)
    run(cloud, cloud.service.confirm("web"))
    with cloud.database.read() as tx:
        assert [row.event_type for row in tx.delivery.due(100)] == [
            "instance.resize_confirm.start",
            "instance.resize_confirm.end",
        ]
        assert tx.delivery.unsent() == 2
    aged(cloud, 400)
    forget_old(cloud.database, Notifications(keep_days=30), cloud.clock)
    assert [row.seq for row in notifications(cloud)] == [recorded + 1, recorded + 2]


def test_a_worker_forgets_what_is_old(cloud: Cloud) -> None:
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    aged(cloud, 31)
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    assert len(told(cloud)) == 1


def test_a_job_of_before_there_were_notifications_goes_on(cloud: Cloud) -> None:
    """What an upgraded job has begun was never told: its end is, its failure is one of the whole."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "TransferDisks.SUCCESS.after") == KILLED
    with cloud.database.write() as tx:
        tx.session.execute(sa.delete(Notification))
        tx.session.execute(sa.update(Event).where(Event.kind == "notification").values(kind="note"))
    cloud.service.rollback(job.migration_id)
    run(cloud, job)
    assert told(cloud) == [MIGRATE_SERVER]


# --- the post --------------------------------------------------------------------------------------------


@BOTH
def test_the_post_has_one_holder_until_its_lease_ends(cloud: Cloud) -> None:
    def take(owner: str, seconds: float) -> bool:
        with cloud.database.write() as tx:
            return tx.delivery.take(owner, seconds)

    assert take("one", 600)
    assert take("one", 600)
    assert not take("two", 600)
    assert take("one", -1)
    assert take("two", 600)
    with cloud.database.write() as tx:
        tx.delivery.leave("one")
    assert not take("one", 600)
    with cloud.database.write() as tx:
        tx.delivery.leave("two")
    assert take("one", 600)


def test_an_instance_that_is_managed_no_more_keeps_what_was_told_of_it(cloud: Cloud) -> None:
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    run(cloud, cloud.service.confirm("web"))
    before = told(cloud)
    cloud.service.remove("web")
    with cloud.database.read() as tx:
        assert tx.session.scalars(sa.select(Instance)).all() == []
    assert told(cloud) == before


class Broker:
    """Takes messages, or is away."""

    def __init__(self) -> None:
        self.up = False

    def send(self, _row: Notification) -> None:
        if not self.up:
            raise NotSent("connection refused")


def test_since_when_nothing_can_be_sent_is_in_the_log_and_since_when_it_can_again(
    cloud: Cloud, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker()
    monkeypatch.setattr(notifier, "Notifier", lambda _settings: broker)
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    cloud.database = sending(cloud, url)
    run(cloud, cloud.service.confirm("web"))
    postman = Postman(cloud.database, cloud.settings.notifications, cloud.clock, "one", 600)
    for broker.up in (False, False, True, True):
        postman.round()
    with cloud.database.read() as tx:
        lines = [line for line in tx.events.of(FLEET) if line.kind == "notification"]
        assert tx.delivery.unsent() == 0
    assert [(line.transition, line.outcome, line.error) for line in lines] == [
        ("sending -> failing", "failed", "connection refused"),
        ("failing -> sending", "ok", None),
    ]
    assert "resizeflow runbook notifications-not-sent" in (lines[0].next_action or "")
