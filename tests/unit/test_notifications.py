"""The postman without a broker: what it does with what goes wrong, and what loading oslo.messaging costs nobody."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow import config
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.config import Notifications
from resizeflow.drivers import notifier
from resizeflow.drivers.notifier import Letter, NotSent
from resizeflow.errors import UsageError
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Notification
from resizeflow.postman import BATCH, Postman
from resizeflow.states import JobState
from resizeflow.worker import Worker

URL = "rabbit://somebody:Geh3im-Wort@127.0.0.1:1/"
EVENTS = 9
"""What a resize tells."""


class Broker:
    """What a broker has taken, and how many more it will take before it is away."""

    def __init__(self, takes: int = 10**6) -> None:
        self.taken: list[str] = []
        self.takes = takes

    def send(self, letter: Letter) -> None:
        if not self.takes:
            raise NotSent("the broker is away")
        self.takes -= 1
        self.taken.append(letter.message_id)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(notifier, "Notifier", lambda _settings: broker)
    return broker


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None, broker: Broker) -> Cloud:
    """One whose resize is told and not yet sent."""
    cloud = Cloud(memory_path, connection=slow_connection).build()
    cloud.database = Database(
        cloud.settings.connection, notifications=Notifications(transport_url=URL), key=cloud.settings.audit_key_file
    )
    assert cloud.run(cloud.service.resize("web", "big", host="h2")) is JobState.DONE
    assert broker.taken == []
    return cloud


def postman(cloud: Cloud, name: str = "one", lease: float = 60.0) -> Postman:
    return Postman(cloud.database, Notifications(transport_url=URL), cloud.clock, name, lease)


def ids(cloud: Cloud, *, sent: bool | None = None) -> list[str]:
    """Message ids, in order; of what is sent, or not."""
    with cloud.database.read() as tx:
        rows = tx.session.scalars(sa.select(Notification).order_by(Notification.seq)).all()
    return [row.message_id for row in rows if sent in (None, row.sent_at is not None)]


def test_what_waits_is_sent_once_in_order_and_marked(cloud: Cloud, broker: Broker) -> None:
    assert len(ids(cloud, sent=False)) == EVENTS
    for _ in range(2):
        postman(cloud).round()
    assert broker.taken == ids(cloud, sent=True) == ids(cloud)


def test_a_broker_that_goes_away_stops_the_round_and_nothing_is_passed_over(cloud: Cloud, broker: Broker) -> None:
    broker.takes = 4
    one = postman(cloud)
    one.round()
    assert broker.taken == ids(cloud, sent=True) == ids(cloud)[:4]
    with cloud.database.read() as tx:
        state = tx.delivery.state()
    assert state is not None
    assert state.error == "the broker is away"
    since = state.failing_since
    assert since is not None
    one.round()
    with cloud.database.read() as tx:
        state = tx.delivery.state()
    assert state is not None
    assert state.failing_since == since
    broker.takes = 10**6
    one.round()
    assert broker.taken == ids(cloud, sent=True) == ids(cloud)
    with cloud.database.read() as tx:
        state = tx.delivery.state()
    assert state is not None
    assert (state.error, state.failing_since) == (None, None)


def test_who_has_not_the_post_sends_nothing(cloud: Cloud, broker: Broker) -> None:
    with cloud.database.write() as tx:
        assert tx.delivery.take("another", 600)
    postman(cloud).round()
    assert broker.taken == []
    with cloud.database.write() as tx:
        assert tx.delivery.take("another", -1)
    postman(cloud).round()
    assert broker.taken == ids(cloud)


class SlowClock(FastClock):
    """Each look at it is a second later."""

    at = 1000.0

    def boottime(self) -> float:
        self.at += 1.0
        return self.at


@pytest.mark.slow
def test_a_postman_whose_lease_ends_stops_sending(cloud: Cloud, broker: Broker) -> None:
    cloud.clock = SlowClock()
    one = postman(cloud, lease=4.0)
    with cloud.database.read() as tx:
        batch = tx.delivery.due(BATCH)
    sent, error = one._send(batch, cloud.clock.boottime() + 4.0)
    assert (broker.taken, error) == (ids(cloud)[:3], None)
    assert len(sent) == len(broker.taken)


def test_more_than_a_batch_is_sent_in_one_round(cloud: Cloud, broker: Broker) -> None:
    with cloud.database.write() as tx:
        row = tx.outbox.list()[0]
        values = {key: getattr(row, key) for key in ("instance_id", "event_type", "priority", "payload", "created_at")}
        more = [{**values, "seq": 100 + n, "message_id": f"m{n}", "wanted": True} for n in range(2 * BATCH)]
        tx.session.execute(sa.insert(Notification), more)
    postman(cloud).round()
    assert broker.taken == ids(cloud, sent=True)
    assert len(broker.taken) == EVENTS + 2 * BATCH


def test_a_worker_sends_what_its_job_told_before_it_ends(cloud: Cloud, broker: Broker) -> None:
    settings = dataclasses.replace(cloud.settings, notifications=Notifications(transport_url=URL))
    job = cloud.service.confirm("web")
    with Worker(cloud.database, settings, clock=cloud.clock, announced=False) as worker:
        worker.take_and_run(job.job_id)
    assert cloud.job(job).state is JobState.DONE
    assert broker.taken == ids(cloud, sent=True) == ids(cloud)
    with cloud.database.read() as tx:
        state = tx.delivery.state()
    assert state is not None
    assert state.owner is None


# --- the setting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "rabbit://u:p@h:5672/",
        "rabbit://u:p@h1:5672,u:p@h2:5672/vhost",
        "rabbit://h",
        "rabbit://u:p%40%2C@[::1]:5672/%2F",
        "rabbit://u:@h/",
    ],
)
def test_a_transport_url_that_can_be_used(url: str) -> None:
    assert Notifications(transport_url=url).transport_url == url


@pytest.mark.parametrize(
    "url",
    [
        "rabbit://u:Geh3im/Wort@h:5672/",
        "rabbit://u:Geh3im%2FWort@h:5672/",
        "rabbit://u:Geh3im@Wort@h:5672/",
        "rabbit://u:Geh3im,Wort@h:5672/",
        "kafka://u:Geh3im@h:5672/",
        "rabbit:/u:Geh3im@h:5672/",
        "rabbit://u:Geh3im@h:port/",
        "Geh3im",
        "",
    ],
)
def test_one_that_cannot_is_refused_without_being_shown(memory_path: Path, url: str) -> None:
    file = memory_path / "resizeflow.conf"
    file.write_text(f"[notifications]\ntransport_url = {url}\n")
    if not url:
        assert config.load(str(file)).notifications.transport_url is None
        return
    with pytest.raises(UsageError, match="rabbit://user:password@host") as refused:
        config.load(str(file))
    assert "Geh3im" not in str(refused.value)


def test_options_of_oslo_messaging_are_read_from_the_same_file(memory_path: Path) -> None:
    file = memory_path / "resizeflow.conf"
    file.write_text(f"[notifications]\ntransport_url = {URL}\n[oslo_messaging_rabbit]\nheartbeat_rate = 7\n")
    made = notifier.Notifier(config.load(str(file)).notifications)
    options = made._transport.conf.oslo_messaging_rabbit
    assert (options.heartbeat_rate, options.amqp_durable_queues) == (7, True)
    file.write_text(f"[notifications]\ntransport_url = {URL}\n[oslo_messaging_rabbit]\namqp_durable_queues = false\n")
    assert (
        not notifier.Notifier(config.load(str(file)).notifications)
        ._transport.conf["oslo_messaging_rabbit"]
        .amqp_durable_queues
    )
    file.write_text(f"[notifications]\ntransport_url = {URL}\n[oslo_messaging_rabbit]\nheartbeat_rate = often\n")
    with pytest.raises(UsageError, match="heartbeat_rate"):
        notifier.Notifier(config.load(str(file)).notifications)


# --- what is loaded --------------------------------------------------------------------------------------


def modules_after(code: str) -> set[str]:
    """In a fresh process, which prints nothing by itself."""
    shown = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    *before, modules = shown.stdout.splitlines()
    assert before == []
    return set(modules.split())


def test_oslo_messaging_is_loaded_without_eventlet_and_without_a_word() -> None:
    loaded = modules_after("import resizeflow.drivers.notifier")
    assert "oslo_messaging" in loaded
    assert not [name for name in loaded if name.startswith("eventlet.")]


def test_who_does_not_send_does_not_load_it() -> None:
    loaded = modules_after("import resizeflow.cli, resizeflow.worker, resizeflow.commands.notification")
    assert not [name for name in loaded if name.startswith(("oslo_messaging", "oslo_service", "kombu"))]
