"""Notifications on a real RabbitMQ, heard by a real listener of oslo.messaging: nothing is lost, the order is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from lab.processes import alive
from lab.rabbitmq import RabbitMQ
from resizeflow import config
from resizeflow.chaos.child import KILLED, Child
from resizeflow.chaos.cloud import CHILD_SECONDS, Cloud
from resizeflow.persistence.delivery import Delivery
from resizeflow.persistence.models import Notification, Postman
from resizeflow.postman import Postman as Sender
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.conftest import BOTH
from tests.listener import Heard, Listener

pytestmark = pytest.mark.slow

PASSWORD = "Geh3im-Wort"  # noqa: S105 - the one that must not be found
RESIZE = [
    "scheduler.select_destinations.start",
    "scheduler.select_destinations.end",
    "instance.exists",
    "instance.resize_prep.start",
    "instance.resize_prep.end",
    "instance.resize.start",
    "instance.resize.end",
    "instance.resize_finish.start",
    "instance.resize_finish.end",
]


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    """One for all tests; who stops it starts it again."""
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    return f"versioned_{uuid.uuid4().hex}"


def telling(cloud: Cloud, url: str, topic: str) -> Cloud:
    """The cloud with a broker."""
    conf = cloud.folder / "resizeflow.conf"
    with conf.open("a") as file:
        file.write(f"[notifications]\ntransport_url = {url}\nversioned_notifications_topics = {topic}\n")
    cloud.settings = config.load(str(conf))
    return cloud


@pytest.fixture
def cloud(broker: RabbitMQ, topic: str, memory_path: Path, thorough_connection: str | None) -> Cloud:
    return telling(Cloud(memory_path, connection=thorough_connection), broker.url, topic).build()


@pytest.fixture
def listen(broker: RabbitMQ, topic: str, memory_path: Path) -> Callable[[], Listener]:
    return lambda: Listener(broker.url, topic, memory_path)


def run(cloud: Cloud, job: Submitted) -> Submitted:
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    return job


def outbox(cloud: Cloud) -> list[Notification]:
    with cloud.database.read() as tx:
        return list(tx.session.scalars(sa.select(Notification).order_by(Notification.seq)))


def kill_at(cloud: Cloud, job: Submitted, point: str) -> None:
    """Kills a worker at a point."""
    assert cloud.run_in_child(job, point) == KILLED
    free_the_post(cloud)


def free_the_post(cloud: Cloud) -> None:
    """As if the time had passed for which a dead worker had the post to itself, if it had it just then."""
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Postman).values(lease_until=0.0))


def deliver(cloud: Cloud) -> None:
    """One round of a worker's postman, once no other one has the post; what the broker does not take waits on."""
    sender = Sender(cloud.database, cloud.settings.notifications, cloud.clock, "test", 60.0)
    while True:
        sender.round()
        with cloud.database.read() as tx:
            state, unsent = tx.delivery.state(), tx.delivery.unsent()
        if not unsent or (state is not None and state.owner == "test"):
            break
        time.sleep(0.2)
    sender.leave()


def check_whole(cloud: Cloud, heard: list[Heard]) -> None:
    """All that was told was heard, once; in order wherever a broker keeps an order: in each of its queues."""
    rows = outbox(cloud)
    assert all(row.sent_at is not None for row in rows)
    assert sorted(one.sequence for one in heard) == [row.seq for row in rows]
    for priority in ("INFO", "ERROR"):
        numbers = [one.sequence for one in heard if one.priority == priority]
        assert numbers == sorted(numbers)
    by_number = {row.seq: row for row in rows}
    for one in heard:
        row = by_number[one.sequence]
        assert (one.event_type, one.message_id, one.payload) == (row.event_type, row.message_id, row.payload)


def in_order(heard: list[Heard]) -> list[str]:
    return [one.event_type for one in sorted(heard, key=lambda one: one.sequence)]


def test_a_listener_hears_resize_confirm_revert_failure_and_reschedule(
    cloud: Cloud, listen: Callable[[], Listener]
) -> None:
    with listen() as listener:
        run(cloud, cloud.service.resize("web", "big", host="h2"))
        run(cloud, cloud.service.revert("web"))
        revert = ["instance.exists", "instance.resize_revert.start", "instance.resize_revert.end"]

        failing = cloud.service.resize("web", "big", host="h2")
        cloud.world.fail("h2", "define", "the host says no")
        run(cloud, failing)
        failed = [*RESIZE[:-1], "instance.resize_finish.error"]

        cloud.world.add_host("h3", vcpus=8, memory_mb=16384, pool_gb=100)
        uri = cloud.world.uri("h3")
        cloud.inventory.add_host("h3", uri, peer_uri=uri, data_uri="tcp://198.51.100.12")
        cloud.inventory.set_host("h1", enabled=False)
        job = cloud.service.resize("web", "big")
        kill_at(cloud, job, "SelectDestination.SUCCESS.after")
        first = cloud.migration(job).dest_host
        assert first is not None
        cloud.world.set_up(first.name, False)
        run(cloud, job)
        again = ["instance.resize.error", "instance.resize_prep.end", "instance.exists", "instance.resize_prep.start"]
        cloud.world.set_up(first.name, True)
        run(cloud, cloud.service.confirm("web"))
        confirm = ["instance.resize_confirm.start", "instance.resize_confirm.end"]

        deliver(cloud)
        expected = [*RESIZE, *revert, *failed, *RESIZE[:4], *again, *RESIZE[4:], *confirm]
        heard = listener.wait_for(len(expected))
    assert in_order(heard) == expected
    check_whole(cloud, heard)


def test_a_broker_that_is_away_in_mid_resize_delays_what_is_told_and_nothing_else(
    cloud: Cloud, broker: RabbitMQ, listen: Callable[[], Listener]
) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    kill_at(cloud, job, "RetireSource.SUCCESS.after")
    broker.stop()
    try:
        run(cloud, job)
        run(cloud, cloud.service.confirm("web"))
        deliver(cloud)
        rows = outbox(cloud)
        assert any(row.sent_at is None for row in rows)
        with cloud.database.read() as tx:
            state = tx.delivery.state()
        assert state is not None
        assert state.failing_since is not None
        assert state.error
    finally:
        broker.start()
    deliver(cloud)
    with listen() as listener:
        heard = listener.wait_for(len(rows))
    assert in_order(heard) == [*RESIZE, "instance.resize_confirm.start", "instance.resize_confirm.end"]
    check_whole(cloud, heard)
    with cloud.database.read() as tx:
        state = tx.delivery.state()
    assert state is not None
    assert (state.error, state.failing_since) == (None, None)


def test_what_the_broker_has_taken_it_keeps_over_a_crash(
    cloud: Cloud, broker: RabbitMQ, listen: Callable[[], Listener]
) -> None:
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    deliver(cloud)
    assert all(row.sent_at is not None for row in outbox(cloud))
    broker.kill()
    broker.start()
    with listen() as listener:
        heard = listener.wait_for(len(RESIZE))
    check_whole(cloud, heard)


def killed_between_sending_and_marking(cloud: Cloud) -> None:
    """A worker that dies once the broker has confirmed, before that is written down."""
    patch = pytest.MonkeyPatch()
    patch.setattr(Delivery, "sent", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    deliver(cloud)


@BOTH
def test_a_worker_killed_between_sending_and_marking_sends_again_under_the_same_id(
    cloud: Cloud, listen: Callable[[], Listener]
) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    with cloud.database.write() as tx:
        assert tx.delivery.take("another worker", 600)  # The one that is killed now sends nothing.
    kill_at(cloud, job, "SelectDestination.SUCCESS.after")
    before = len(outbox(cloud))
    cloud.release()
    assert Child(lambda: killed_between_sending_and_marking(cloud)).wait(CHILD_SECONDS) == KILLED
    assert all(row.sent_at is None for row in outbox(cloud))
    free_the_post(cloud)
    run(cloud, job)
    deliver(cloud)
    with listen() as listener:
        heard = listener.wait_for(len(RESIZE) + before)
    ids = [one.message_id for one in heard]
    assert len(ids) > len(set(ids))
    firsts = {one.message_id: one for one in reversed(heard)}
    check_whole(cloud, [one for one in heard if firsts[one.message_id] is one])


@BOTH
def test_two_postmen_send_each_message_once(cloud: Cloud, listen: Callable[[], Listener]) -> None:
    senders = [Sender(cloud.database, cloud.settings.notifications, cloud.clock, name, 60.0) for name in ("one", "two")]
    for sender in senders:
        sender.start()
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    run(cloud, cloud.service.confirm("web"))
    deadline = time.monotonic() + 60
    while any(row.sent_at is None for row in outbox(cloud)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for sender in senders:
        sender.close()
    with listen() as listener:
        heard = listener.wait_for(len(RESIZE) + 2)
    check_whole(cloud, heard)


def command(cloud: Cloud, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours in a process of its own, telling all it can."""
    start = [sys.executable, "-m", "resizeflow.cli", "--config-file", str(cloud.folder / "resizeflow.conf"), "--debug"]
    return subprocess.run([*start, *words], capture_output=True, text=True, check=True)


def test_the_password_is_shown_nowhere(
    broker: RabbitMQ, topic: str, memory_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    odd = quote(f"{PASSWORD}@,:%?#", safe="")
    cloud = telling(Cloud(memory_path), f"rabbit://rabbitmq:{odd}@127.0.0.1:{broker.port}/", topic).build()
    run(cloud, cloud.service.resize("web", "big", host="h2"))
    deliver(cloud)
    with cloud.database.read() as tx:
        state = tx.delivery.state()
    assert state is not None
    assert state.error is not None
    cloud.release()
    tells = command(cloud, "notification", "list", "--unsent")
    assert "Nothing can be sent since" in tells.stderr
    assert "instance.resize_finish.end" in tells.stdout
    worker = command(cloud, "worker", "--drain")
    assert "Notifications wait" in caplog.text
    out = capfd.readouterr()
    shown = [state.error, caplog.text, tells.stdout, tells.stderr, worker.stdout, worker.stderr, out.out, out.err]
    shown.append(repr(cloud.settings))
    for text in shown:
        assert PASSWORD not in text
    for file in ("state.sqlite", "state.sqlite-wal"):
        path = memory_path / file
        assert not path.exists() or PASSWORD.encode() not in path.read_bytes()


def test_the_broker_ends_with_its_owner() -> None:
    script = """
import time
from lab.rabbitmq import RabbitMQ
broker = RabbitMQ()
broker.start()
print(broker.folder, (broker.folder / "pid").read_text().strip(), flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder, pid = owner.stdout.readline().split()
    assert alive(int(pid))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 60
    while (alive(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(int(pid))
    assert not Path(folder).exists()
