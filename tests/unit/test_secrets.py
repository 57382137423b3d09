"""A password in a domain's definition gets to the destination, and nowhere else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.gate import Connections
from resizeflow.states import JobState, MigrationStatus

PASSWORD = "Geh3im-Wort"  # noqa: S105 - the one that must not be found
GRAPHICS = f"<graphics type='vnc' port='-1' autoport='yes' passwd='{PASSWORD}'/>"


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    cloud = Cloud(memory_path).build()
    cloud.world.create_guest("h1", "safe", 1, 512, {"vda": 1}, devices=GRAPHICS)
    cloud.inventory.adopt("h1", "safe")
    return cloud


def secure(cloud: Cloud, host: str) -> str:
    """The definition that a host has, secrets included."""
    connection = Connections().to(cloud.world.uri(host))
    connection.open(1)
    with cloud.database.read() as tx:
        uuid = tx.instances.get("safe").id
    xml = connection.call("definition_with_secrets", (uuid,), timeout=1)
    connection.close()
    return str(xml)


def check_nowhere(cloud: Cloud) -> None:
    """The password is in no cell of the database, in no byte of its files, and in no logged effect."""
    database = sqlite3.connect(cloud.folder / "state.sqlite")
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    cells = 0
    for table in tables:
        for row in database.execute(f"SELECT * FROM {table}"):  # noqa: S608 - our own names
            cells += len(row)
            assert not any(PASSWORD in str(cell) for cell in row), table
    database.close()
    assert cells > 100
    for path in cloud.folder.glob("state.sqlite*"):
        assert PASSWORD.encode() not in path.read_bytes(), path.name
    assert not any(PASSWORD in repr(effect) for effect in cloud.world.effects())


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_it_moves_with_the_machine_and_is_written_nowhere(
    cloud: Cloud, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    job = cloud.service.resize("safe", "big", host=host)
    assert cloud.run(job) is JobState.DONE
    migration = cloud.migration(job)
    assert migration.has_secrets
    assert migration.definition is not None
    assert "<graphics" in migration.definition
    assert PASSWORD in secure(cloud, host)
    check_nowhere(cloud)
    assert cloud.run(cloud.service.confirm("safe")) is JobState.DONE
    assert PASSWORD in secure(cloud, host)
    check_nowhere(cloud)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_it_comes_back_with_a_revert(cloud: Cloud, host: str) -> None:
    job = cloud.service.resize("safe", "big", host=host)
    assert cloud.run(job) is JobState.DONE
    assert cloud.run(cloud.service.revert("safe")) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.REVERTED
    assert PASSWORD in secure(cloud, "h1")
    check_nowhere(cloud)


@pytest.mark.parametrize(("host", "method"), [("h1", "define"), ("h2", "define"), ("h2", "start_paused")])
def test_a_failure_does_not_tell_it_and_a_rollback_keeps_it(
    cloud: Cloud, host: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    job = cloud.service.resize("safe", "big", host="h2")
    cloud.world.fail(host, method, "the host says no")
    assert cloud.run(job) is JobState.DONE
    assert "the host says no" in (cloud.migration(job).error or "")
    assert PASSWORD in secure(cloud, "h1")
    check_nowhere(cloud)
    assert PASSWORD not in caplog.text + cloud.story(job) + (cloud.migration(job).error or "")


def test_a_machine_whose_password_is_only_on_a_host_that_is_away_waits(cloud: Cloud) -> None:
    job = cloud.service.resize("safe", "big", host="h2")
    assert cloud.run_in_child(job, "ResizeDisks.SUCCESS.after") == KILLED
    cloud.world.set_up("h1", False)
    assert cloud.run(job) is JobState.QUEUED
    assert "passwords are only there" in (cloud.job(job).reason or "")
    cloud.world.set_up("h1", True)
    assert cloud.run(job) is JobState.DONE
    assert PASSWORD in secure(cloud, "h2")
    check_nowhere(cloud)


def test_a_machine_without_secrets_does_not_wait_for_its_source(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "ResizeDisks.SUCCESS.after") == KILLED
    assert not cloud.migration(job).has_secrets
    cloud.world.crash("h1")
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert cloud.world.running(cloud.uuid) == ("h2",)
