"""The state database goes away in the middle of a resize, and comes back: nothing fails, nothing is rolled back."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import PoolProxiedConnection

from lab.postgresql import PostgreSQL
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.errors import UsageError
from resizeflow.persistence.database import Database
from resizeflow.persistence.job_board import BoardJob, DatabaseJobBoard
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.conftest import TEMPLATE, new_postgresql
from tests.console import Console
from tests.spread import spread

Strike = Callable[[PostgreSQL], None]
AWHILE = 1.0
"""Seconds without a database."""
PATIENCE = 120.0
"""Seconds that a slow machine gets for what takes one or two."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """One that only these tests use: they stop it."""
    server = new_postgresql()
    yield server
    server.close()


@pytest.fixture
def cloud(memory_path: Path, server: PostgreSQL) -> Iterator[Cloud]:
    server.create_database("state", TEMPLATE)
    cloud = Cloud(memory_path, connection=server.url("state")).build()
    yield cloud
    cloud.database.engine.dispose()
    server.drop_database("state")


@contextlib.contextmanager
def struck(database: Database, number: int, strike: Callable[[], object], word: str = "") -> Iterator[list[str]]:
    """Something happens right before the n-th statement that begins with a word, once; those statements so far."""
    seen: list[str] = []

    def statement(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(word):
            seen.append(statement)
            if len(seen) == number:
                strike()

    def commit(connection: sa.Connection) -> None:
        statement(connection, None, "COMMIT")

    sa.event.listen(database.engine, "before_cursor_execute", statement)
    sa.event.listen(database.engine, "commit", commit)
    yield seen
    sa.event.remove(database.engine, "before_cursor_execute", statement)
    sa.event.remove(database.engine, "commit", commit)


def resized(cloud: Cloud, job: Submitted) -> None:
    """As if nothing had happened."""
    story = cloud.story(job)
    assert cloud.migration(job).status is MigrationStatus.FINISHED, story
    assert cloud.migration(job).error is None, story
    assert cloud.job(job).direction is Direction.FORWARD, story
    assert cloud.world.running(cloud.uuid) == ("h2",)
    with cloud.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None, story


def run_through(cloud: Cloud, job: Submitted, number: int, strike: Callable[[], object], word: str = "") -> int:
    """Runs a job in one worker, which is struck at its n-th statement; how often the job was put down."""
    put_down = 0
    with struck(cloud.database, number, strike, word) as seen:
        # Without the thread that renews leases: the statements are the same each time.
        worker = Worker(cloud.database, cloud.settings, clock=FastClock(), announced=False)
        worker.take_and_run(job.job_id)
    assert len(seen) >= number, "the run was over before"
    while (row := cloud.job(job)).state is not JobState.DONE:
        assert row.state is JobState.QUEUED, cloud.story(job)
        assert "the database does not answer" in (row.reason or ""), cloud.story(job)
        assert row.not_before > 0
        put_down += 1
        assert put_down <= 2, cloud.story(job)
        cloud.expire(job)
        worker.take_and_run(job.job_id)
    worker.connections.close()
    return put_down


def restart(server: PostgreSQL) -> None:
    server.restart()


def crash(server: PostgreSQL) -> None:
    server.kill()
    server.start()


def stop_for_a_while(server: PostgreSQL) -> None:
    server.stop()
    threading.Timer(AWHILE, server.start).start()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker tries for a minute to put its job down, which is two seconds of these clocks."""
    monkeypatch.setattr("resizeflow.worker.PUT_DOWN_TRIES", 3600)


@pytest.mark.slow
@pytest.mark.parametrize("strike", [restart, crash, stop_for_a_while])
def test_postgresql_goes_away_in_mid_flow(cloud: Cloud, server: PostgreSQL, strike: Strike) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert run_through(cloud, job, 100, lambda: strike(server)) == 1
    resized(cloud, job)


@pytest.mark.slow
@pytest.mark.parametrize("number", spread(range(15, 176, 20), 3))
def test_postgresql_crashes_anywhere(cloud: Cloud, server: PostgreSQL, number: int) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    put_down = run_through(cloud, job, number, lambda: crash(server))
    print(f"crashed at statement {number}, put down {put_down} times")
    resized(cloud, job)


@pytest.mark.parametrize("number", [3, 21])
def test_a_commit_whose_answer_is_lost(
    cloud: Cloud, server: PostgreSQL, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It was committed, but the worker cannot know."""
    job = cloud.service.resize("web", "big", host="h2")
    dialect = cloud.database.engine.dialect
    commit, commits = dialect.do_commit, 0

    def lose(connection: PoolProxiedConnection) -> None:
        nonlocal commits
        commits += 1
        commit(connection)
        if commits == number:
            crash(server)
            connection.cursor().execute("SELECT 1")

    monkeypatch.setattr(dialect, "do_commit", lose)
    assert run_through(cloud, job, 1, lambda: None) == 1
    resized(cloud, job)


@pytest.mark.slow
def test_a_foreground_resize_waits_for_postgresql(cloud: Cloud, server: PostgreSQL) -> None:
    """As an operator sees it: one command, which goes on and ends well."""
    cloud.world.set_speed(transfer_seconds=3600)
    process = Console(cloud.folder / "resizeflow.conf").start("resize", "web", "--flavor", "big", "--host", "h2")
    deadline = time.monotonic() + PATIENCE
    while not cloud.world.snapshot()["storages"]["h2"]:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    server.stop()
    time.sleep(2 * AWHILE)
    server.start()
    cloud.world.set_speed(transfer_seconds=0)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    assert "Traceback" not in out + err
    assert "The database does not answer; waiting for it." in out + err
    with cloud.database.read() as tx:
        (migration,) = tx.migrations.list()
        (job,) = tx.jobs.of_migration(migration.id)
    resized(cloud, Submitted(migration.id, job.id))


@pytest.mark.slow
@pytest.mark.parametrize("busy", [0, 1])
def test_an_sqlite_file_locked_by_another_process(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    """For longer than a writer waits: the transaction fails, and the first try to put the job down, not the second."""
    monkeypatch.setattr("resizeflow.persistence.database.BUSY_SECONDS", busy)
    cloud = Cloud(memory_path).build()
    job = cloud.service.resize("web", "big", host="h2")
    blocker = sqlite3.connect(memory_path / "state.sqlite", isolation_level=None)
    abandon, tries = DatabaseJobBoard.abandon, 0

    def abandoned(board: DatabaseJobBoard, job: BoardJob, who: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            blocker.execute("ROLLBACK")
        abandon(board, job, who)

    monkeypatch.setattr(DatabaseJobBoard, "abandon", abandoned)
    # Between two transactions of ours: else it would be the other one that waits.
    assert run_through(cloud, job, 40, lambda: blocker.execute("BEGIN IMMEDIATE"), word="BEGIN") == 1
    assert tries == 2
    blocker.close()
    monkeypatch.undo()
    resized(cloud, job)


# --- what is said of it ----------------------------------------------------------------------------------


def test_commands_without_a_database_say_so(cloud: Cloud, server: PostgreSQL) -> None:
    console = Console(cloud.folder / "resizeflow.conf")
    cloud.database.engine.dispose()
    server.stop()
    try:
        for command in (
            "migration list",
            "migration show 1234",
            "instance show web",
            "resize web --flavor big",
            "confirm web",
            "host list",
            "worker list",
            "worker",
            "db upgrade",
        ):
            answer = console.type(*command.split())
            answer.refused(2, "cannot be opened", "Connection refused", f"postgres:***@127.0.0.1:{server.port}")
            assert password(cloud) not in answer.out + answer.err
    finally:
        server.start()
    assert console.type("migration", "list").code == 0


def password(cloud: Cloud) -> str:
    return str(sa.make_url(cloud.settings.connection).password)


@pytest.mark.slow
def test_the_password_is_in_no_log_and_no_story(
    cloud: Cloud, server: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    job = cloud.service.resize("web", "big", host="h2")
    run_through(cloud, job, 60, lambda: stop_for_a_while(server))
    with pytest.raises(UsageError):
        Database(server.url("nowhere"))
    assert "the database does not answer" in cloud.story(job)
    assert "could not be put down" in caplog.text
    secret = password(cloud)
    assert len(secret) >= 8
    assert secret not in caplog.text + cloud.story(job)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+psycopg2://me:s3cret@127.0.0.1:1/db", "me:***@127.0.0.1:1/db cannot be opened: connection"),
        ("postgresql+psycopg2://me:x@127.0.0.1:1/db?password=s3cret", "me:***@127.0.0.1:1/db cannot be opened"),
        ("postgresql+psycopg2://me:x@127.0.0.1:1/db?color=s3cret", 'invalid connection option "color"'),
        ("postgresql+psycopg2://me:x@s3cret@127.0.0.1:1/db", "more than one @; in a password write %40"),
        ("postgresql+psycopg2://me:x@127.0.0.1:s3cret/db", "is not an SQLAlchemy URL"),
        ("postgresql+nothing://me:s3cret@127.0.0.1/db", "me:***@127.0.0.1/db cannot be opened"),
        ("me:s3cret@127.0.0.1/db", "is not an SQLAlchemy URL"),
    ],
)
def test_a_url_that_is_wrong_is_said_without_its_password(
    url: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(UsageError) as raised:
        Database(url)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value) + caplog.text


def test_a_wrong_password_is_not_told(server: PostgreSQL) -> None:
    url = sa.make_url(server.url(TEMPLATE)).set(password="wr0ng-0ne")  # noqa: S106
    with pytest.raises(UsageError, match="password authentication failed") as raised:
        Database(url.render_as_string(hide_password=False))
    assert "wr0ng-0ne" not in str(raised.value)
