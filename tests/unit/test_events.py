"""The event log: a chain that verifies, and shows what was changed, removed, added or reordered."""

from __future__ import annotations

import itertools
import os
import pwd
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.actor import Actor
from resizeflow.audit.verify import verify
from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import UsageError
from resizeflow.persistence import schema
from resizeflow.persistence.chain import COVERED, GENESIS, link, row_of
from resizeflow.persistence.database import Database
from resizeflow.persistence.events import KINDS
from resizeflow.persistence.flaws import Flaw, What, first_flaw
from resizeflow.persistence.models import FLEET, Event, EventLog
from resizeflow.persistence.seals import seal_logs
from resizeflow.service import Submitted
from resizeflow.states import JobState, Outcome

CHANGES: dict[str, Any] = dict.fromkeys(COVERED, "changed") | {
    "seq": -1,
    "at": timedelta(microseconds=1),
    "epoch": 7,
    "seconds": 3600.5,
    "outcome": Outcome.REFUSED,
    "data": {"changed": True},
    "chain": "f" * 64,
}


def missing(number: int) -> Flaw:
    return Flaw(number, What.MISSING, "it is missing")


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


def flaw_of(cloud: Cloud, events: list[Event]) -> Flaw | None:
    """The flaw of lines that are said to be a log."""
    with cloud.database.read() as tx:
        return first_flaw(tx.audit_key, tx.session.get(EventLog, events[0].migration_id), events)


def test_a_finished_resize_has_a_whole_log(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert flaw_of(cloud, events) is None
    with cloud.database.read() as tx:
        assert events[0].chain == link(tx.audit_key, GENESIS, row_of(events[0], COVERED))
    assert len({event.chain for event in events}) == len(events)
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert (events[0].kind, events[0].epoch, events[0].worker) == ("state", 0, None)
    accepted = [event for event in events if event.epoch == 0]
    assert [event.kind for event in accepted] == ["state", "quota", "flow"]
    assert events[len(accepted)].kind == "lease"
    assert {event.epoch for event in events[len(accepted) :]} == {1}
    assert len({event.worker for event in events[len(accepted) :]}) == 1
    done = [event.task for event in events if event.kind == "task" and event.text.endswith(" done")]
    started = [event.task for event in events if event.kind == "task" and event.text.endswith(" started")]
    assert done == started
    assert len(done) == 16
    effects = [event.host for event in events if event.kind == "effect"]
    assert len(effects) == len(cloud.world.effects())


def test_the_log_goes_on_over_a_confirm_and_commands(cloud: Cloud, job: Submitted) -> None:
    before = len(log(cloud, job))
    confirm = cloud.service.confirm("web")
    cloud.service.resume(job.migration_id)
    assert cloud.run(confirm) is JobState.DONE
    events = log(cloud, job)
    assert flaw_of(cloud, events) is None
    assert [event.text for event in events[before : before + 4]] == [
        "confirm accepted, status confirming",
        "confirm_v1 is queued",
        "instance.resize_confirm.start",
        "resume was asked for",
    ]
    with cloud.database.read() as tx:
        tail = tx.events.of(job.migration_id, after=before)
    assert [event.seq for event in tail] == [event.seq for event in events[before:]]


@pytest.mark.slow
def test_a_changed_line_is_found(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    with cloud.database.read() as tx:
        key, end = tx.audit_key, tx.session.get(EventLog, job.migration_id)
    for event, column in itertools.product(events, CHANGES):
        kept, number = getattr(event, column), event.seq
        setattr(event, column, kept + CHANGES[column] if column == "at" else CHANGES[column])
        flaw = first_flaw(key, end, events)
        assert flaw is not None, column
        assert flaw.seq == (-1 if column == "seq" else number)
        setattr(event, column, kept)
    assert first_flaw(key, end, events) is None


def test_a_removed_line_is_found_wherever_it_was(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    for number in range(1, len(events)):
        rest = events[:number] + events[number + 1 :]
        last = number + 1 == len(events)
        gone = Flaw(number + 1, What.CUT_OFF, "it is cut off") if last else missing(number + 1)
        assert flaw_of(cloud, rest) == gone
    assert flaw_of(cloud, events[1:]) == missing(1)
    some = len(events) - 3
    cut = f"it is cut off, as are all up to line {len(events)}"
    assert flaw_of(cloud, events[:some]) == Flaw(some + 1, What.CUT_OFF, cut)


def test_reordered_repeated_and_foreign_lines_are_found(cloud: Cloud, job: Submitted) -> None:
    events = log(cloud, job)
    for number in range(len(events) - 1):
        swapped = list(events)
        swapped[number], swapped[number + 1] = swapped[number + 1], swapped[number]
        assert flaw_of(cloud, swapped) == missing(number + 1)
        repeated = [*events[: number + 1], *events[number:]]
        assert flaw_of(cloud, repeated) == Flaw(number + 1, What.INSERTED, "there is one too many of it")


def test_a_renumbered_log_without_a_line_is_found(cloud: Cloud, job: Submitted) -> None:
    """Whoever removes a line and closes the gap does not have the key."""
    with cloud.database.write() as tx:
        gone = 5
        tx.session.execute(sa.delete(Event).where(Event.migration_id == job.migration_id, Event.seq == gone))
        last = tx.session.scalar(sa.select(sa.func.max(Event.seq)).where(Event.migration_id == job.migration_id))
        for seq in range(gone + 1, (last or 0) + 1):
            of_it = sa.update(Event).where(Event.migration_id == job.migration_id)
            tx.session.execute(of_it.where(Event.seq == seq).values(seq=seq - 1))
    events = log(cloud, job)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    found = "before it a line is missing, and the gap was closed"
    assert flaw_of(cloud, events) == Flaw(gone, What.MISSING, found)


def test_a_line_changed_in_the_database_is_found_although_more_was_written(cloud: Cloud, job: Submitted) -> None:
    with cloud.database.write() as tx:
        line = sa.update(Event).where(Event.migration_id == job.migration_id, Event.seq == 3)
        tx.session.execute(line.values(text="it was somebody else"))
        tx.events.add(job.migration_id, "note", "written later")
    assert flaw_of(cloud, log(cloud, job)) == Flaw(3, What.CHANGED, "it was changed")


def test_two_migrations_have_two_chains(cloud: Cloud, job: Submitted) -> None:
    revert = cloud.service.revert("web")
    assert cloud.run(revert) is JobState.DONE
    second = cloud.service.resize("web", "big", host="h1")
    assert cloud.run(second) is JobState.DONE
    first_log, second_log = log(cloud, job), log(cloud, second)
    assert flaw_of(cloud, first_log) is None
    assert flaw_of(cloud, second_log) is None
    assert second_log[0].seq == 1
    assert flaw_of(cloud, [*first_log, *second_log]) is not None


def test_what_is_rolled_back_is_not_in_the_log(cloud: Cloud, job: Submitted) -> None:
    before = [event.chain for event in log(cloud, job)]
    with pytest.raises(ZeroDivisionError), cloud.database.write() as tx:
        tx.events.add(job.migration_id, "note", "never committed")
        tx.events.flush()
        raise ZeroDivisionError
    assert [event.chain for event in log(cloud, job)] == before
    with cloud.database.write() as tx:
        tx.events.add(job.migration_id, "note", "committed", number=1)
    assert flaw_of(cloud, log(cloud, job)) is None
    assert log(cloud, job)[-1].data == {"number": 1}


def test_a_line_says_who_asked_and_what_it_belongs_to(cloud: Cloud, job: Submitted) -> None:
    here = Actor.here()
    for event in log(cloud, job):
        assert (event.asked_by, event.asked_from) == (here.user, here.host)
        assert (event.instance, event.instance_id, event.project_id) == ("web", cloud.uuid, "default")
        assert event.request_id == job.job_id


def test_a_command_about_no_migration_is_in_the_log_of_the_fleet(cloud: Cloud) -> None:
    before = len(fleet(cloud))
    with cloud.database.write() as tx:
        tx.events.command("limits were changed", project_id="default", host="h1", cores=4)
        tx.events.command("another one of the same request")
    first, second = fleet(cloud)[before:]
    assert (first.text, first.project_id, first.host, first.data) == (
        "limits were changed",
        "default",
        "h1",
        {"cores": 4},
    )
    assert first.request_id == second.request_id
    assert flaw_of(cloud, fleet(cloud)) is None


def fleet(cloud: Cloud) -> list[Event]:
    with cloud.database.read() as tx:
        return list(tx.events.of(FLEET))


def test_a_second_program_with_another_key_writes_nothing(cloud: Cloud, job: Submitted) -> None:
    before = len(log(cloud, job))
    other = cloud.folder / "other.key"
    other.write_text("ab" * 32)
    other.chmod(0o600)
    stranger = Database(cloud.settings.connection, key=other)
    with pytest.raises(UsageError, match=r"written under the audit key \w{16}, and .*other.key holds \w{16}"):  # noqa: SIM117
        with stranger.write() as tx:
            tx.events.add(job.migration_id, "note", "forged")
    assert len(log(cloud, job)) == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "There is no audit key"), ("secret", "not a line of hexadecimal"), ("ab", "has less than 32 bytes")],
)
def test_a_key_that_cannot_be_used_is_one_sentence(
    cloud: Cloud, job: Submitted, content: str | None, sentence: str
) -> None:
    key = cloud.folder / "broken.key"
    if content is not None:
        key.write_text(content)
        key.chmod(0o600)
    with pytest.raises(UsageError, match=sentence), Database(cloud.settings.connection, key=key).write():
        pytest.fail("a transaction was begun")
    assert key.exists() == (content is not None)


def test_a_key_that_nobody_has_any_more_can_be_replaced(cloud: Cloud, job: Submitted) -> None:
    """What was before cannot be told from a forgery any more; what comes is chained under the new one."""
    cloud.settings.audit_key_file.unlink()
    with cloud.database.engine.execution_options(resizeflow_write=True).begin() as connection:
        connection.execute(sa.text("DELETE FROM audit_keys"))
    anew = Database(cloud.settings.connection, key=cloud.settings.audit_key_file)
    with anew.write() as tx:
        tx.events.add(job.migration_id, "note", "goes on")
        tx.events.add("later", "note", "a log that is new")
    seal_logs(anew)
    logs = {finding.log for finding in verify(anew).findings if finding.flaw.what is What.CHANGED}
    assert logs >= {FLEET, job.migration_id}
    with anew.read() as tx:
        assert tx.events.flaw("later") is None


def test_a_key_that_everybody_can_read_is_refused(cloud: Cloud) -> None:
    cloud.settings.audit_key_file.chmod(0o644)
    again = Database(cloud.settings.connection, key=cloud.settings.audit_key_file)
    with pytest.raises(UsageError, match=r"can be read by everybody.*`chmod o= "), again.write():
        pytest.fail("a transaction was begun")
    cloud.settings.audit_key_file.chmod(0o640)
    with again.write() as tx:
        tx.events.add("later", "note", "its group may")


def test_the_first_program_makes_the_key_and_only_its_owner_reads_it(cloud: Cloud) -> None:
    assert cloud.settings.audit_key_file.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(cloud.settings.audit_key_file.read_text())) == 32


def test_the_key_is_on_the_disk_before_the_database_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))
    database = Database(f"sqlite:///{tmp_path}/state.db", key=tmp_path / "keys" / "audit.key")
    schema.upgrade(database)
    with database.write():
        pass
    assert synced[-1] == tmp_path / "keys", "the folder, after the file"
    assert len(synced) == 2
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["audit.key"]


@pytest.mark.parametrize(
    ("login", "sudo", "user"),
    [("0", "alice", "root"), ("4294967295", "alice", "alice"), ("4294967295", None, "by uid"), (None, None, "by uid")],
)
def test_who_asks_is_who_logged_in_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str | None, sudo: str | None, user: str
) -> None:
    monkeypatch.setattr("resizeflow.actor.LOGIN_UID", tmp_path / "loginuid")
    if login is not None:
        (tmp_path / "loginuid").write_text(login)
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, "mallory")
    monkeypatch.delenv("SUDO_USER", raising=False)
    if sudo is not None:
        monkeypatch.setenv("SUDO_USER", sudo)
    assert Actor.here().user == (pwd.getpwuid(os.getuid()).pw_name if user == "by uid" else user)


def test_the_docs_say_what_each_kind_of_line_tells(cloud: Cloud) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \|", page.partition("## Kinds of lines")[2], re.MULTILINE)
    assert sorted(KINDS) == rows
    with pytest.raises(ValueError, match="no kind"), cloud.database.write() as tx:
        tx.events.add(FLEET, "gossip", "a line")
