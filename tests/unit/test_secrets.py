"""A password in a domain's definition, a Ceph user's key, a volume's CHAP password get to the destination, and nowhere
else; `tests/lab/test_volume_secrets.py` searches for those of a real Cinder."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.connections import Connections
from resizeflow.drivers.simulator import exports
from resizeflow.persistence.models import Migration, Notification, ServerEvent
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.planted import by_hand
from tests.searched import Calls, Search, printed

PASSWORD = "Geh3im-Wort"  # noqa: S105 - the one that must not be found
SEARCH = Search({"the password": (PASSWORD.encode(),)})
OF_VOLUMES = Search(
    {
        "a Ceph key": (exports.KEY.encode(), base64.b64encode(exports.KEY.encode())[:-4]),
        "a CHAP password": (exports.PASSWORD.encode(), base64.b64encode(exports.PASSWORD.encode())[:-4]),
    }
)
"""What those of a simulated world begin with, as they are and as libvirt writes them."""
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


def check_nowhere(cloud: Cloud, search: Search = SEARCH, **texts: str) -> None:
    """No secret is in a cell of the database, in a byte of its files, in a logged effect, or in one of the texts."""
    effects = "\n".join(map(repr, cloud.world.effects()))
    before = search.seen
    assert [*search.database(cloud), *search.texts({**texts, "the effects": effects})] == []
    assert search.seen - before > 100_000


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
    check_nowhere(cloud, log=caplog.text)


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_it_comes_back_with_a_revert(cloud: Cloud, host: str) -> None:
    job = cloud.service.resize("safe", "big", host=host)
    assert cloud.run(job) is JobState.DONE
    assert cloud.run(cloud.service.revert("safe")) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.REVERTED
    assert PASSWORD in secure(cloud, "h1")
    check_nowhere(cloud)


@pytest.mark.slow
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
    check_nowhere(cloud, log=caplog.text)


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


# --- those of volumes ------------------------------------------------------------------------------------


@pytest.fixture
def attached(memory_path: Path) -> Cloud:
    """A machine with a volume of each kind."""
    return Cloud(memory_path).build(volumes=("rbd", "iscsi", "nfs"))


@pytest.mark.slow
@pytest.mark.parametrize("host", ["h1", "h2"])
def test_secrets_of_volumes_are_nowhere(attached: Cloud, host: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    calls = Calls()
    resize = attached.service.resize("web", "big", host=host)
    jobs = [resize]
    run(attached, resize, calls)
    for ask in (attached.service.revert, lambda name: attached.service.resize(name, "big", host=host)):
        jobs.append(ask("web"))
        run(attached, jobs[-1], calls)
    run(attached, attached.service.confirm("web"), calls)
    assert any(has_secret(attached, host, kind) for kind in ("ceph", "iscsi"))
    told = "\n".join(calls.lines)
    assert all(f"{method}(" in told for method in ("connection", "secret_value", "define_secret")) or host == "h1"
    check_nowhere(attached, OF_VOLUMES, log=caplog.text, calls=told, **printed(attached, "web", jobs))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "method"), [("h2", "define_secret"), ("h2", "start_paused"), ("cinder", "update_attachment")]
)
def test_a_failure_does_not_tell_those_of_volumes(
    attached: Cloud, host: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    calls = Calls()
    job = attached.service.resize("web", "big", host="h2")
    attached.world.fail(host, method, "it says no")
    run(attached, job, calls)
    assert "it says no" in (attached.migration(job).error or "")
    texts = {"log": caplog.text, "calls": "\n".join(calls.lines), **printed(attached, "web", [job])}
    check_nowhere(attached, OF_VOLUMES, **texts)


def run(cloud: Cloud, job: Submitted, calls: Calls) -> None:
    with Worker(cloud.database, cloud.settings, connections=Connections(calls.connect), clock=cloud.clock) as worker:
        worker.take_and_run(job.job_id)
    assert cloud.job(job).state is JobState.DONE, cloud.story(job)


def has_secret(cloud: Cloud, host: str, kind: str) -> bool:
    return kind in [secret.kind for secret in by_hand(cloud, host, "secrets")]


# --- the search ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_search_finds_what_is_planted(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    with cloud.database.write() as tx:
        tx.events.add(job.migration_id, "note", "opened with planted-event")
        tx.session.add(
            ServerEvent(name="n", instance_id="i", tag="planted-deleted", status="completed", received_at=tx.now())
        )
        tx.session.execute(sa.update(Migration).values(error="Cinder said planted-error"))
        tx.session.execute(sa.update(Notification).values(payload={"note": "planted-payload"}))
    with cloud.database.write() as tx:
        tx.session.execute(sa.delete(ServerEvent).where(ServerEvent.tag == "planted-deleted"))
    search = Search({word: (f"planted-{word}".encode(),) for word in ("event", "deleted", "error", "payload", "never")})
    found = [*search.database(cloud), *search.texts(printed(cloud, "web", [job]))]
    shown, history = (f"migration {view} {job.migration_id}" for view in ("show", "history"))
    assert {place.removesuffix("-wal") for place in found} == {
        *(f"{word} in file state.sqlite" for word in ("event", "deleted", "error", "payload")),
        "event in table events",
        f"event in {history}",
        "error in table migrations",
        "error in migration list",
        f"error in {shown}",
        "payload in table notifications",
    }
