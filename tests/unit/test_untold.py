"""No change without its line: each commit's rows are compared with what it tells, whatever is done to a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.auto_confirm import queue_confirms
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.chaos.scenarios import SCENARIOS
from resizeflow.config import Notifications
from resizeflow.connections import Connections
from resizeflow.doctor import Doctor
from resizeflow.handover import Attention
from resizeflow.looks import Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import FLEET, Base, Event, Migration, QuotaUsage
from resizeflow.service import Submitted
from resizeflow.states import JobState, OnCrash
from resizeflow.tasks.source import RetireSource
from resizeflow.worker import Worker
from tests.planted import sql
from tests.untold import TOLD, UNTOLD, Untold


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


@pytest.fixture
def watched(cloud: Cloud) -> Iterator[Untold]:
    watch = Untold(cloud)
    yield watch
    assert watch.commits
    assert watch.found == []


def lines_of(cloud: Cloud, job: Submitted) -> Sequence[Event]:
    with cloud.database.read() as tx:
        return tx.events.of(job.migration_id)


def drain(cloud: Cloud) -> None:
    with Worker(cloud.database, cloud.settings, clock=FastClock()) as worker:
        worker.drain()


def doctor(cloud: Cloud) -> Doctor:
    return Doctor(cloud.database, cloud.settings, connections=cloud.connections, clock=FastClock())


def test_of_each_table_it_is_known_whether_its_changes_are_told() -> None:
    assert TOLD.keys() & UNTOLD.keys() == set()
    assert {table.name for table in Base.metadata.sorted_tables} == TOLD.keys() | UNTOLD.keys()


def test_a_change_without_a_line_is_found(cloud: Cloud) -> None:
    watch = Untold(cloud)
    sql(cloud, sa.update(QuotaUsage).values(in_use=9))
    with cloud.database.write() as tx:
        tx.instances.get("web").locked = True
    assert {words.partition(" ")[0] for words in watch.found} == {"quota_usages", "instances"}


@pytest.mark.parametrize(
    "name",
    [
        "resize",
        "resize-same-host",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in sorted(SCENARIOS.keys() - {"resize", "resize-same-host"})
        ),
    ],
)
def test_what_is_done_to_a_machine(memory_path: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    cloud = scenario.cloud(memory_path)
    scenario.build(cloud)
    watch = Untold(cloud)
    assert cloud.run(scenario.submit(cloud)) is JobState.DONE
    assert watch.found == []
    assert watch.commits > 5


@pytest.mark.slow
@pytest.mark.parametrize("decide", ["confirm", "revert"])
def test_a_decision(cloud: Cloud, watched: Untold, decide: str) -> None:
    assert cloud.run(cloud.service.resize("web", "big", host="h2")) is JobState.DONE
    assert cloud.run(getattr(cloud.service, decide)("web")) is JobState.DONE
    assert watched.commits > 50


@pytest.mark.slow
def test_a_failure_and_the_way_back(cloud: Cloud, watched: Untold) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.fail("h2", "start_paused", "no")
    assert cloud.run(job) is JobState.DONE
    with cloud.database.read() as tx:
        lines = {event.kind: event for event in tx.events.of(job.migration_id)}
        refused = [e for e in tx.events.of(job.migration_id) if e.kind == "effect" and e.outcome == "refused"]
    assert [(event.host, event.task) for event in refused] == [("h2", "StartDestination")]
    assert lines["failure"].next_action == (
        "put right what the error says, then ask again (`resizeflow runbook rolled-back`)"
    )
    assert watched.commits > 50


def test_waits_commands_and_alarms(cloud: Cloud, watched: Untold, monkeypatch: pytest.MonkeyPatch) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.set_up("h1", False)
    assert cloud.run(job) is JobState.QUEUED
    cloud.world.set_up("h1", True)
    with monkeypatch.context() as patch:
        patch.setattr(RetireSource, "do", lambda *_: (_ for _ in ()).throw(Attention("look at it")))
        assert cloud.run(job) is JobState.NEEDS_ATTENTION
    cloud.service.resume(job.migration_id)
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    with cloud.database.read() as tx:
        ends = [event for event in tx.events.of(job.migration_id) if event.kind in ("waiting", "attention")]
    assert [(event.outcome, event.transition) for event in ends] == [
        ("waiting", "running -> queued"),
        ("needs-attention", "running -> needs-attention"),
    ]
    assert all(event.seconds is not None and event.next_action for event in ends)
    assert watched.commits > 20


@pytest.mark.parametrize("on_crash", OnCrash)
def test_a_take_over(cloud: Cloud, watched: Untold, on_crash: OnCrash) -> None:
    job = cloud.service.resize("web", "big", host="h2", on_crash=on_crash)
    cloud.world.set_speed(transfer_seconds=3600)
    assert cloud.run_in_child(job, "TransferDisks.transfer.running") == KILLED
    cloud.world.set_speed(transfer_seconds=0)
    watched.anew()
    assert cloud.run(job) is JobState.DONE
    with cloud.database.read() as tx:
        first, second = [event for event in tx.events.of(job.migration_id) if event.kind == "lease"]
    assert (first.transition, second.transition) == ("queued -> running", "lapsed -> running")
    assert second.data["from"] == first.worker
    assert (second.task, second.data["silent_seconds"]) == ("TransferDisks", pytest.approx(601, abs=60))


POINTS = [
    "PowerOffSource.commit.migrating#1",
    "MoveInstance.SUCCESS",
    "StartDestination.commit.pivot#1",
    "flow.SUCCESS",
]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_states_are_told_without_a_gap_whoever_dies(cloud: Cloud, point: str, moment: str) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, f"{point}.{moment}") == KILLED
    cloud.run(job)
    assert cloud.run(cloud.service.revert("web")) is JobState.DONE
    now = {"vm_state": "active", "task_state": "none", "status": "none"}
    for event in lines_of(cloud, job):
        for arrow in (event.transition or "").split(", ") if event.kind == "state" and event.transition else []:
            before, after = arrow.split(" -> ")
            column, _, before = before.rpartition(" ")
            column = column or next(name for name, state in now.items() if state == before)
            assert now[column] == before, event.text
            now[column] = after
    with cloud.database.read() as tx:
        row, machine = tx.migrations.get(job.migration_id), tx.instances.get("web")
        assert now == {"vm_state": machine.vm_state, "task_state": machine.task_state or "none", "status": row.status}


@pytest.mark.slow
def test_debts_settled_and_forgiven(cloud: Cloud, watched: Untold) -> None:
    for forgive in (False, True):
        job = cloud.service.resize("web", "big", host="h2")
        assert cloud.run_in_child(job, "DefineDestination.SUCCESS.after") == KILLED
        watched.anew()
        cloud.world.set_up("h2", False)
        cloud.service.rollback(job.migration_id)
        assert cloud.run(job) is JobState.DONE
        if forgive:
            cloud.inventory.remove_host("h2", forgive_debts=True)
        else:
            cloud.world.set_up("h2", True)
            drain(cloud)
        with cloud.database.read() as tx:
            ways = {event.transition for event in tx.events.of(job.migration_id) if event.kind == "debt"}
        assert ways == {"none -> owed", "owed -> forgiven" if forgive else "owed -> settled"}


def test_updates_of_a_machine(cloud: Cloud) -> None:
    settings = Notifications(notify_on_state_change="vm_and_task_state")
    cloud.database = Database(cloud.settings.connection, notifications=settings, key=cloud.settings.audit_key_file)
    watch = Untold(cloud)
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    assert watch.found == []
    with cloud.database.read() as tx:
        logs = [*tx.events.of(FLEET), *tx.events.of(job.migration_id)]
    assert [event.text for event in logs].count("instance.update") == 5


def test_what_workers_do_by_themselves(cloud: Cloud, watched: Untold) -> None:
    settings = replace(cloud.settings, resize_confirm_window=0.001)
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    assert queue_confirms(cloud.database, Looks(Connections(), settings, FastClock()), settings) == 1
    with cloud.database.write() as tx:
        tx.workers.seen("one", 60, ["resize_v1"])
    with cloud.database.write() as tx:
        tx.workers.seen("one", 60, ["resize_v1"])
        tx.workers.gone("one")
    drain(cloud)
    with cloud.database.read() as tx:
        confirm = [event for event in tx.events.of(job.migration_id) if event.data.get("by_itself")]
        workers = [event.text for event in tx.events.of(FLEET) if event.kind == "worker" and "one" in event.text]
    assert [event.text for event in confirm] == ["confirm_v1 is queued by a worker: auto-confirm after 0.001 s"]
    assert workers == ["worker one is up", "worker one has ended"]


@pytest.mark.slow
def test_repairs(cloud: Cloud, watched: Untold) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    sql(cloud, sa.update(QuotaUsage).values(in_use=9, reserved=2), sa.text("UPDATE hosts SET used_vcpus = 7"))  # type: ignore[arg-type]
    sql(cloud, sa.text("UPDATE allocations SET vcpus = 3"), sa.text("DELETE FROM reservations"))  # type: ignore[arg-type]
    watched.found.clear()
    doctor(cloud).repair("somebody")
    doctor(cloud).after_restore("somebody")
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE


COMMANDS: Mapping[str, Callable[[Cloud], object]] = {
    "host h3 added": lambda c: c.inventory.add_host("h3", c.world.uri("h3")),
    "host h3 set: peer_uri changed, max_moves 2 -> 5, traits none -> CUSTOM_A": lambda c: c.inventory.set_host(
        "h3", peer_uri="qemu+tcp://me:secret@h3/", traits=["CUSTOM_A"], max_moves=5
    ),
    "host h3 set: enabled yes -> no, disabled_reason none -> old": lambda c: c.inventory.set_host(
        "h3", enabled=False, disabled_reason="old"
    ),
    "flavor tiny created": lambda c: c.inventory.create_flavor(
        "tiny", vcpus=1, memory_mb=64, root_gb=1, is_public=False
    ),
    "flavor tiny set: disabled no -> yes, projects none -> shop": lambda c: c.inventory.set_flavor(
        "tiny", disabled=True, grant=["shop"]
    ),
    "flavor tiny deleted": lambda c: c.inventory.delete_flavor("tiny"),
    "quota limits of shop set: cores none -> 4, ram none -> 512": lambda c: c.inventory.set_quota(
        "shop", {"cores": 4, "ram": 512}
    ),
    "quota limits of shop set: cores 4 -> none, ram 512 -> none": lambda c: c.inventory.delete_quota("shop"),
    "quota limits of class default set: cores none -> 9": lambda c: c.inventory.set_quota(None, {"cores": 9}),
    "web locked": lambda c: c.inventory.lock("web", True),
    "web unlocked": lambda c: c.inventory.lock("web", False),
    "web set: shutdown_timeout none -> 7.0": lambda c: c.inventory.set_instance("web", shutdown_timeout=7.0),
    "host h3 removed": lambda c: c.inventory.remove_host("h3"),
    "web is not managed any more": lambda c: c.service.remove("web"),
    "web of h1 adopted into project shop": lambda c: c.inventory.adopt("h1", "web", project="shop"),
}


def test_commands(cloud: Cloud, watched: Untold) -> None:
    cloud.world.add_host("h3", vcpus=8, memory_mb=16384, pool_gb=100)
    for text, command in COMMANDS.items():
        with cloud.database.read() as tx:
            before = len(tx.events.of(FLEET))
        command(cloud)
        with cloud.database.read() as tx:
            lines = [event for event in tx.events.of(FLEET, after=before) if event.kind == "command"]
        assert [line.text.startswith(text) for line in lines] == [True], (text, [line.text for line in lines])
        assert lines[0].asked_by
        assert "secret" not in f"{lines[0].text}{lines[0].data}"
        # What changes nothing is not told.
        if " set: " in text or "locked" in text:
            command(cloud)
    with cloud.database.read() as tx:
        assert len([event for event in tx.events.of(FLEET) if event.kind == "command"]) == len(COMMANDS) + 4


def test_groups_and_aggregates(cloud: Cloud, watched: Untold) -> None:
    with cloud.database.write() as tx:
        tx.groups.create("db", "affinity", "default")
        tx.aggregates.create("east", {"availability_zone": "east"})
    with cloud.database.write() as tx:
        host = tx.hosts.get("h1")
        tx.aggregates.change("east", properties={"ssd": "yes"}, no_properties=[], hosts=[host], no_hosts=[])
    cloud.inventory.set_instance("web", group_name="db", availability_zone="east")
    cloud.inventory.set_instance("web", group_name=None, availability_zone=None)
    with cloud.database.write() as tx:
        tx.groups.delete("db")
        tx.aggregates.delete("east")
    with cloud.database.read() as tx:
        texts = [event.text for event in tx.events.of(FLEET) if event.kind == "command"][-7:]
    assert texts[0] == "server group db created, policy affinity"
    assert texts[2].endswith("hosts none -> h1")
    assert texts[-1] == "aggregate east deleted"


@pytest.mark.slow
def test_the_end_of_a_lost_resize(cloud: Cloud, watched: Untold) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "StartDestination.commit.pivot#1.after") == KILLED
    watched.anew()
    cloud.expire(job)
    assert cloud.run(cloud.service.revert("web", discard_writes=True)) is JobState.DONE
    with cloud.database.read() as tx:
        assert tx.session.scalar(sa.select(Migration.status)) == "reverted"
        asked = tx.session.scalars(sa.select(Event.asked_by).distinct()).all()
    assert len(asked) == 1
