"""The event log: a chain that verifies, and shows what was changed, removed, added or reordered."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.events import GENESIS, broken_link, chain, line_of
from resizeflow.persistence.models import Event
from resizeflow.service import Submitted
from resizeflow.states import JobState

CHANGES: dict[str, Any] = {
    "at": timedelta(microseconds=1),
    "epoch": 7,
    "worker": "somebody:1:abc",
    "kind": "rumour",
    "task": "Nothing",
    "text": "nothing happened here",
    "data": {"host": "h9"},
    "chain": "f" * 64,
}


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build(running=False)


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    job = cloud.service.resize("web", "big", host="h1")
    assert cloud.run(job) is JobState.DONE
    return job


def log(cloud: Cloud, job: Submitted) -> list[Event]:
    with cloud.database.read() as tx:
        return list(tx.events.of(job.migration_id))


def test_a_finished_resize_has_a_whole_log(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert broken_link(events) is None
    assert events[0].chain == chain(GENESIS, line_of(events[0]))
    assert len({event.chain for event in events}) == len(events)
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert (events[0].kind, events[0].epoch, events[0].worker) == ("state", 0, None)
    assert (events[1].kind, events[1].epoch) == ("lease", 1)
    assert {event.epoch for event in events[1:]} == {1}
    assert len({event.worker for event in events[1:]}) == 1
    done = [event.task for event in events if event.kind == "task" and event.text.endswith(" done")]
    started = [event.task for event in events if event.kind == "task" and event.text.endswith(" started")]
    assert done == started
    assert len(done) == 16
    effects = [event.data["host"] for event in events if event.kind == "effect"]
    assert len(effects) == len(cloud.world.effects())


def test_the_log_goes_on_over_a_confirm_and_commands(cloud: Cloud, job: Submitted) -> None:
    before = len(log(cloud, job))
    confirm = cloud.service.confirm("web")
    cloud.service.resume(job.migration_id)
    assert cloud.run(confirm) is JobState.DONE
    events = log(cloud, job)
    assert broken_link(events) is None
    assert [event.text for event in events[before : before + 3]] == [
        "confirm accepted, status confirming",
        "instance.resize_confirm.start",
        "resume was asked for",
    ]
    with cloud.database.read() as tx:
        tail = tx.events.of(job.migration_id, after=before)
    assert [event.seq for event in tail] == [event.seq for event in events[before:]]


def test_a_changed_line_is_found(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    for number, column in itertools.product(range(len(events)), CHANGES):
        event = events[number]
        kept = getattr(event, column)
        setattr(event, column, kept + CHANGES[column] if column == "at" else CHANGES[column])
        assert broken_link(events) == event.seq
        setattr(event, column, kept)
    assert broken_link(events) is None


def test_a_removed_line_is_found_wherever_it_was(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    for number in range(len(events) - 1):
        rest = events[:number] + events[number + 1 :]
        assert broken_link(rest) == number + 2


def test_reordered_repeated_and_foreign_lines_are_found(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    for number in range(len(events) - 1):
        swapped = list(events)
        swapped[number], swapped[number + 1] = swapped[number + 1], swapped[number]
        assert broken_link(swapped) == number + 2
        repeated = [*events[: number + 1], *events[number:]]
        assert broken_link(repeated) == number + 1
    assert broken_link(list(reversed(events))) == len(events)
    assert broken_link([]) is None


def test_a_renumbered_log_without_a_line_is_found(cloud: Cloud, job: Submitted) -> None:
    """Whoever removes a line and closes the gap does not have the hashes."""
    with cloud.database.write() as tx:
        gone = 5
        tx.session.execute(sa.delete(Event).where(Event.migration_id == job.migration_id, Event.seq == gone))
        last = tx.session.scalar(sa.select(sa.func.max(Event.seq)))
        for seq in range(gone + 1, (last or 0) + 1):
            tx.session.execute(sa.update(Event).where(Event.seq == seq).values(seq=seq - 1))
    events = log(cloud, job)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert broken_link(events) == gone


def test_a_line_changed_in_the_database_is_found_although_more_was_written(cloud: Cloud, job: Submitted) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Event).where(Event.seq == 3).values(text="it was somebody else"))
        tx.events.add(job.migration_id, "note", "written later")
    assert broken_link(log(cloud, job)) == 3


def test_two_migrations_have_two_chains(cloud: Cloud, job: Submitted) -> None:
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE
    second = cloud.service.resize("web", "big", host="h1")
    assert cloud.run(second) is JobState.DONE
    first_log, second_log = log(cloud, job), log(cloud, second)
    assert broken_link(first_log) is None
    assert broken_link(second_log) is None
    assert second_log[0].seq == 1
    assert broken_link([*first_log, *second_log]) == 1


def test_what_is_rolled_back_is_not_in_the_log(cloud: Cloud, job: Submitted) -> None:
    before = [event.chain for event in log(cloud, job)]
    with pytest.raises(ZeroDivisionError), cloud.database.write() as tx:
        tx.events.add(job.migration_id, "note", "never committed")
        raise ZeroDivisionError
    assert [event.chain for event in log(cloud, job)] == before
    with cloud.database.write() as tx:
        tx.events.add(job.migration_id, "note", "committed", number=1)
    assert broken_link(log(cloud, job)) is None
    assert log(cloud, job)[-1].data == {"number": 1}
