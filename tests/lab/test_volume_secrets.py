"""CHAP passwords, Ceph keys and tokens are on hosts and at Cinder, and in nothing else that a run leaves.

A machine with an RBD and an iSCSI volume is resized, reverted, turned back by failures of hosts and of Cinder, and
confirmed, with all loggers at DEBUG; then everything is searched. `tests/unit/test_secrets.py` does that on the
simulator, and tries the search on what is planted.
"""

from __future__ import annotations

import base64
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from resizeflow.connections import Connections
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.lab.cinder_cloud import MACHINE, USER, CinderCloud
from tests.lab.conftest import CinderMaker
from tests.lab.stage import ask
from tests.lab.trouble import away
from tests.searched import Calls, Search, printed

pytestmark = pytest.mark.lab


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that logs anything says all that it can: we, keystoneauth, cinderclient, SQLAlchemy with its rows."""
    names = {name.partition(".")[0] for name in logging.root.manager.loggerDict} | {"keystoneauth", "cinderclient"}
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield caplog
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def cloud(make_cinder_cloud: CinderMaker, loud: pytest.LogCaptureFixture) -> CinderCloud:
    cloud = make_cinder_cloud(act_timeout="8", look_timeout="8").build_machine("rbd", "iscsi")
    loud.clear()  # somebody else has attached the volumes
    return cloud


def secrets_of(cloud: CinderCloud) -> Search:
    """What must not be found, as it is and as libvirt, Ceph and Python write it."""
    with closing(sqlite3.connect(cloud.cinder.database)) as cinder:
        rows = cinder.execute("SELECT provider_auth FROM volumes WHERE id = ?", (cloud.volumes[-1],))
        ((_method, _user, chap),) = (str(credentials).split() for (credentials,) in rows)
    key = base64.b64decode(cloud.storage.ceph.key())
    return Search(
        {
            "the CHAP password": (chap.encode(), base64.b64encode(chap.encode())),
            "the Ceph key": (key, base64.b64encode(key), key.hex().encode(), repr(key)[2:-1].encode()),
            "the token": (USER.encode(),),
        }
    )


def run(cloud: CinderCloud, job: Submitted, calls: Calls) -> JobState:
    """Takes a job up once; all calls are written down."""
    cloud.expire(job)
    connections = Connections(calls.connect)
    with Worker(cloud.database, cloud.settings, connections=connections, clock=cloud.clock) as worker:
        worker.take_and_run(job.job_id)
    return cloud.job(job).state


def live(cloud: CinderCloud, calls: Calls) -> list[Submitted]:
    """All that happens; one job of each migration."""
    reverted = ask(cloud, "resize")
    assert run(cloud, reverted, calls) is JobState.DONE, cloud.story(reverted)
    assert run(cloud, ask(cloud, "revert"), calls) is JobState.DONE, cloud.story(reverted)

    refused = ask(cloud, "resize")
    cloud.world.fail("h2", "define_secret", "the host says no")
    assert run(cloud, refused, calls) is JobState.DONE
    assert "the host says no" in (cloud.migration(refused).error or "")

    failed = ask(cloud, "resize")
    cloud.world.fail("h2", "create_volume", "and no again")
    assert run(cloud, failed, calls) is JobState.DONE
    assert cloud.migration(failed).status is MigrationStatus.ERROR

    confirmed = ask(cloud, "resize")
    with away(cloud.cinder, "killed"):
        assert run(cloud, confirmed, calls) is JobState.QUEUED
    assert run(cloud, confirmed, calls) is JobState.DONE, cloud.story(confirmed)
    confirm = ask(cloud, "confirm")
    assert run(cloud, confirm, calls) is JobState.DONE, cloud.story(confirm)
    return [reverted, refused, failed, confirmed]


def test_no_secret_is_found_anywhere(cloud: CinderCloud, loud: pytest.LogCaptureFixture) -> None:
    calls = Calls()
    search = secrets_of(cloud)
    jobs = live(cloud, calls)
    told = "\n".join(calls.lines)
    texts = {"the log": loud.text, "the calls": told, **printed(cloud, MACHINE, jobs)}
    cloud.release()
    assert [*search.database(cloud), *search.texts(texts)] == []
    # It has looked at much, and at what would have shown a secret.
    assert search.seen > 1_000_000
    assert all(f"{method}(" in told for method in ("connection", "watchers", "secret_value", "define_secret"))
    assert "Cinder: create_attachment for job" in loud.text
    assert all(f" {name}." in loud.text for name in ("resizeflow", "taskflow", "urllib3", "sqlalchemy"))


def test_the_search_finds_what_keystoneauth_would_log(cloud: CinderCloud, loud: pytest.LogCaptureFixture) -> None:
    """Which is why the driver keeps it from that, whatever its level is."""
    logging.getLogger("keystoneauth").setLevel(logging.DEBUG)
    logger = logging.getLogger("keystoneauth.session")
    search, filters = secrets_of(cloud), list(logger.filters)
    for held, found in ((filters, []), ([], ["the CHAP password in the log"])):
        logger.filters = held
        for volume_id in cloud.volumes:
            cloud.openings(volume_id)
        assert [*search.texts({"the log": loud.text})] == found
    logger.filters = filters
