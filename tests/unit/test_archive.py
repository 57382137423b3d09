"""Archives: what is exported verifies with the key alone; what is pruned stands in one, and the rest verifies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.audit import prune as pruning
from resizeflow.audit.archive import IS_ARCHIVED, export, verify_archive
from resizeflow.audit.prune import NotArchived, prune, what_was_pruned
from resizeflow.audit.verify import verify
from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import UsageError
from resizeflow.persistence import schema
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.flaws import What
from resizeflow.persistence.models import FLEET, Event, EventLog
from resizeflow.persistence.seals import seal_logs
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.console import Console
from tests.forger import Forger, picture
from tests.golden import make
from tests.unit.test_golden import SETS, pictures
from tests.with_a_past import DATABASES, with_a_past


@pytest.fixture(scope="module", params=DATABASES)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Cloud, Submitted, Submitted]]:
    with with_a_past(request, "archives") as past:
        yield past


@pytest.fixture
def cloud(made: tuple[Cloud, Submitted, Submitted]) -> Iterator[Cloud]:
    put_back = picture(made[0].database)
    yield made[0]
    put_back()
    for file in made[0].folder.glob("*.jsonl"):
        file.unlink()


@pytest.fixture
def closed(made: tuple[Cloud, Submitted, Submitted]) -> Submitted:
    return made[1]


@pytest.fixture
def open_id(made: tuple[Cloud, Submitted, Submitted]) -> str:
    return made[2].migration_id


def close(cloud: Cloud, migration_id: str) -> None:
    with cloud.database.write() as tx:
        tx.migrations.advance(tx.migrations.get(migration_id), MigrationStatus.FINISHED, to=MigrationStatus.CONFIRMED)


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


@pytest.fixture
def archive(cloud: Cloud, closed: Submitted, console: Console) -> Path:
    """What was closed up to now."""
    file = cloud.folder / "archive.jsonl"
    assert console.type("audit", "export", "--before", "0m", "--output", str(file)).code == 0
    return file


def key_of(cloud: Cloud) -> AuditKey:
    return AuditKey(cloud.settings.audit_key_file)


def lines_of(cloud: Cloud, log_id: str) -> list[Event]:
    with cloud.database.read() as tx:
        return list(tx.events.of(log_id))


def refused(cloud: Cloud, file: Path, words: str) -> None:
    """Nothing is deleted."""
    with cloud.database.read() as tx:
        before = tx.session.scalar(sa.select(sa.func.count()).select_from(Event))
    with pytest.raises((NotArchived, UsageError), match=words):
        prune(cloud.database, file)
    with cloud.database.read() as tx:
        assert tx.session.scalar(sa.select(sa.func.count()).select_from(Event)) == before


# --- export ----------------------------------------------------------------------------------------------


def test_an_archive_verifies_with_the_key_alone(cloud: Cloud, closed: Submitted, archive: Path) -> None:
    lines = len(lines_of(cloud, closed.migration_id)) + len(lines_of(cloud, FLEET))
    report = verify_archive(archive, key_of(cloud))
    assert (report.findings, report.logs, report.lines) == ([], 2, lines)
    assert report.seals >= 2


def test_one_migration_or_everything_can_be_exported(cloud: Cloud, closed: Submitted, console: Console) -> None:
    files = {"--migration": cloud.folder / "one.jsonl", "": cloud.folder / "all.jsonl"}
    console.type("audit", "export", "--migration", closed.migration_id[:8], "--output", str(files["--migration"]))
    console.type("audit", "export", "--output", str(files[""]))
    assert [verify_archive(file, key_of(cloud)).logs for file in files.values()] == [1, 3]
    assert all(verify_archive(file, key_of(cloud)).findings == [] for file in files.values())
    printed = console.type("audit", "export", "--migration", closed.migration_id).out
    assert [next(iter(json.loads(line))) for line in printed.splitlines()][:3] == ["header", "log", "seal"]


def test_an_export_that_fails_leaves_nothing(cloud: Cloud, console: Console, archive: Path) -> None:
    before = archive.read_bytes()
    console.type("audit", "export", "--output", str(archive)).refused(2, "there already")
    assert archive.read_bytes() == before
    console.type("audit", "export", "--output", str(cloud.folder / "no" / "where")).refused(2, "cannot be written")
    assert [path.name for path in cloud.folder.glob("*.jsonl*")] == ["archive.jsonl"]
    assert list(cloud.folder.glob(".archive*")) == []


def change(records: list[dict[str, Any]]) -> None:
    records[9]["line"]["text"] = "forged"


def remove_line(records: list[dict[str, Any]]) -> None:
    del records[9]


def remove_log(records: list[dict[str, Any]]) -> None:
    fleet = next(n for n, record in enumerate(records) if record.get("log", {}).get("id") == FLEET)
    del records[fleet:-1]


def cut(records: list[dict[str, Any]]) -> None:
    del records[-3:]


def count_anew(records: list[dict[str, Any]]) -> None:
    """Everything that can be computed without the key."""
    remove_line(records)
    body = "".join(json.dumps(record) + "\n" for record in records[:-1])
    records[-1]["end"] |= {
        "lines": records[-1]["end"]["lines"] - 1,
        "sha256": hashlib.sha256(body.encode()).hexdigest(),
    }


FORGERIES: dict[Callable[[list[dict[str, Any]]], None], tuple[bool, What]] = {
    change: (True, What.CHANGED),
    remove_line: (True, What.MISSING),
    remove_log: (False, What.CHANGED),
    cut: (False, What.CUT_OFF),
    count_anew: (False, What.CHANGED),
}
"""Whether it is named by its log, or by the file, and what is said."""


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_archive_is_found_and_refused(
    cloud: Cloud,
    closed: Submitted,
    archive: Path,
    forge: Callable[[list[dict[str, Any]]], None],
) -> None:
    records = [json.loads(line) for line in archive.read_text().splitlines()]
    named, what = FORGERIES[forge]
    forge(records)
    archive.write_text("".join(json.dumps(record) + "\n" for record in records))
    findings = verify_archive(archive, key_of(cloud)).findings
    log = closed.migration_id if named else IS_ARCHIVED
    assert (log, what) in [(finding.log, finding.flaw.what) for finding in findings]
    refused(cloud, archive, "is not whole")


def test_what_is_no_archive_of_this_key_is_refused(cloud: Cloud, archive: Path, console: Console) -> None:
    other = cloud.folder / "other.jsonl"
    other.write_text(archive.read_text().replace(key_of(cloud).fingerprint, "f" * 16, 1))
    refused(cloud, other, "written under the audit key f{16}")
    console.type("audit", "verify", "--archive", str(other)).refused(2, "written under the audit key")
    other.write_text("nothing")
    refused(cloud, other, "is no archive")
    refused(cloud, cloud.folder / "none", "cannot be read")


# --- prune -----------------------------------------------------------------------------------------------


def test_what_was_pruned_is_gone_and_the_rest_verifies(
    cloud: Cloud, closed: Submitted, archive: Path, console: Console
) -> None:
    lines, others = len(lines_of(cloud, closed.migration_id)), len(lines_of(cloud, FLEET))
    answer = console.type("audit", "prune", "--archive", str(archive))
    assert answer.out == f"{lines + others} lines of 2 logs pruned: {archive} has them.\n"
    assert lines_of(cloud, closed.migration_id) == []
    assert [event.text for event in lines_of(cloud, FLEET)] == [
        f"{lines + others} lines of 2 logs pruned; they are in archive.jsonl"
    ]
    report = verify(cloud.database)
    assert (report.findings, report.pruned) == ([], lines + others)
    assert verify_archive(archive, key_of(cloud)).findings == []
    assert console.type("audit", "verify").code == 0
    assert console.type("doctor").code == 0
    with cloud.database.read() as tx:
        assert what_was_pruned(tx, closed.migration_id) == (
            f"All {lines} lines of this log went into an archive and were pruned (`resizeflow audit prune`)."
        )
    assert f"All {lines} lines of this log" in console.type("migration", "history", closed.migration_id).out
    (request,) = [row for row in console.ask("instance", "event", "list", "web") if row["action"] == "resize"]
    assert console.ask("instance", "event", "show", "web", request["request_id"])["events"] == []
    assert "nothing to prune" in console.type("audit", "prune", "--archive", str(archive)).out


def test_an_open_migration_and_later_lines_stay(cloud: Cloud, closed: Submitted, open_id: str, archive: Path) -> None:
    kept = len(lines_of(cloud, open_id))
    prune(cloud.database, archive)
    assert len(lines_of(cloud, open_id)) == kept
    with cloud.database.write() as tx:
        tx.events.add(closed.migration_id, "debt", "settled after all")
    seal_logs(cloud.database)
    assert [event.text for event in lines_of(cloud, closed.migration_id)] == ["settled after all"]
    assert verify(cloud.database).findings == []
    close(cloud, open_id)
    second = archive.with_name("second.jsonl")
    with cloud.database.read() as tx:
        second.write_text("".join(export(tx, before=tx.now() + timedelta(seconds=1))))
    prune(cloud.database, second)
    assert lines_of(cloud, open_id) == lines_of(cloud, closed.migration_id) == []
    assert verify(cloud.database).findings == []
    assert verify_archive(second, key_of(cloud)).findings == []


def test_the_fleet_is_pruned_up_to_the_moment(cloud: Cloud, closed: Submitted, console: Console) -> None:
    lines = lines_of(cloud, FLEET)
    moment = lines[3].at
    file = cloud.folder / "some.jsonl"
    assert console.type("audit", "export", "--before", moment.isoformat(), "--output", str(file)).code == 0
    assert verify_archive(file, key_of(cloud)).findings == []
    prune(cloud.database, file)
    assert lines_of(cloud, FLEET)[0].seq == next(line.seq for line in lines if line.at >= moment)
    assert verify(cloud.database).findings == []


def test_an_archive_that_lacks_something_is_refused(
    cloud: Cloud, closed: Submitted, open_id: str, archive: Path
) -> None:
    close(cloud, open_id)
    with cloud.database.read() as tx:
        later = tx.now() + timedelta(seconds=1)
    with pytest.raises(NotArchived, match="does not have the whole log of"):
        prune(cloud.database, archive, before=later)
    assert lines_of(cloud, closed.migration_id)
    with cloud.database.write() as tx:
        tx.events.add(closed.migration_id, "debt", "it has gone on since")
    refused(cloud, archive, "does not have the whole log of migration")


def test_a_log_that_was_forged_is_not_pruned(cloud: Cloud, closed: Submitted, archive: Path) -> None:
    """Its lines are evidence."""
    Forger(cloud.database, careful=False).change(closed.migration_id, 9, text="forged")
    refused(cloud, archive, "is not what the archive .* has")


def test_a_prune_that_was_killed_is_run_again(
    cloud: Cloud, closed: Submitted, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "AT_ONCE", 30)
    real, calls = pruning._delete, []

    def dying(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) == 3:
            raise ZeroDivisionError
        return real(*arguments)

    monkeypatch.setattr(pruning, "_delete", dying)
    with pytest.raises(ZeroDivisionError):
        prune(cloud.database, archive)
    with cloud.database.read() as tx:
        log = tx.session.get_one(EventLog, closed.migration_id)
        assert (log.pruned_seq, what_was_pruned(tx, closed.migration_id)) == (
            60,
            "Lines 1 to 60 of this log went into an archive and were pruned (`resizeflow audit prune`).",
        )
    assert lines_of(cloud, closed.migration_id)[0].seq == 61
    assert verify(cloud.database).findings == []
    monkeypatch.setattr(pruning, "_delete", real)
    prune(cloud.database, archive)
    assert lines_of(cloud, closed.migration_id) == []
    assert verify(cloud.database).findings == []


def test_where_a_log_was_pruned_cannot_be_forged(cloud: Cloud, closed: Submitted, archive: Path) -> None:
    prune(cloud.database, archive)
    with cloud.database.write() as tx:
        tx.events.command("what he does not want to be known")
        tx.events.command("the last line")
    forger = Forger(cloud.database)
    lines = forger.lines(FLEET)
    forger.end(forger.log(FLEET) | {"pruned_seq": lines[-2]["seq"], "pruned_chain": lines[-2]["chain"]})
    with forger.writing() as connection:
        connection.execute(sa.delete(Event).where(Event.migration_id == FLEET, Event.seq <= lines[-2]["seq"]))
    assert [(finding.log, finding.flaw.what) for finding in verify(cloud.database).findings] == [(FLEET, What.CHANGED)]


def test_lines_from_before_schema_0006_are_archived_and_pruned(memory_path: Path) -> None:
    name = next(name for name in pictures(SETS[4]) if name.startswith("confirm/"))
    cloud, job = make.restore(pictures(SETS[4])[name], memory_path)
    schema.upgrade(cloud.database)
    assert cloud.run(job, tries=3) is JobState.DONE
    seal_logs(cloud.database)
    assert verify(cloud.database).plain > 20
    file = memory_path / "old.jsonl"
    with cloud.database.read() as tx:
        file.write_text("".join(export(tx, before=tx.now() + timedelta(seconds=1))))
    report = verify_archive(file, key_of(cloud))
    assert (report.findings, report.plain) == ([], verify(cloud.database).plain)
    prune(cloud.database, file)
    assert lines_of(cloud, job.migration_id) == []
    assert (verify(cloud.database).findings, verify(cloud.database).plain) == ([], 0)
