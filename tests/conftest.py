"""Fixtures that all tests may use."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import Lab, Volumes
from lab.postgresql import PostgreSQL
from resizeflow.chaos.runner import MEMORY, work_folder
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database

TEMPLATE = "template"
"""The PostgreSQL database of which each test has a copy: migrations take longer than most tests."""


DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
"""Both in every run, but not in quick ones."""


def pytest_collection_finish() -> None:
    """What is imported by now is not looked through again by each collection of garbage, in forks neither."""
    gc.freeze()


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder for databases of which many are made: in memory where the machine has such a place."""
    folder = work_folder()
    yield folder
    shutil.rmtree(folder)


def new_postgresql() -> PostgreSQL:
    """A server with an empty state database of today's schema in it, to be copied."""
    server = PostgreSQL(MEMORY if MEMORY.is_dir() else None)
    server.start()
    server.create_database(TEMPLATE)
    database = Database(server.url(TEMPLATE))
    schema.upgrade(database)
    database.engine.dispose()
    return server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for all tests, started when the first one needs it. Who stops it takes one of its own."""
    server = new_postgresql()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _names() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"state{next(numbers)}"


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL, _names: Callable[[], str]) -> Iterator[str]:
    """An empty state database on PostgreSQL."""
    name = _names()
    postgresql.create_database(name, TEMPLATE)
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest) -> str | None:
    """A `Cloud`'s connection: a test that takes it runs on both databases. None is SQLite in the cloud's folder."""
    return _connection(request)


@pytest.fixture(params=DATABASES)
def slow_connection(request: pytest.FixtureRequest) -> str | None:
    """As `connection`, for tests that take too long for `--quick` on both."""
    return _connection(request)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.certify)])
def thorough_connection(request: pytest.FixtureRequest) -> str | None:
    """As `connection`, for long lists of cases that other tests run on both: on PostgreSQL in certification."""
    return _connection(request)


BOTH = pytest.mark.parametrize("thorough_connection", DATABASES, indirect=True)
"""For some of the tests whose `cloud` takes `thorough_connection`: these run on both in every run."""


def _connection(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture(scope="session")
def lab_name() -> str:
    """RESIZEFLOW_TEST_LAB names another lab for a second run beside this one."""
    return os.environ.get("RESIZEFLOW_TEST_LAB", "rf-flows")


@pytest.fixture(scope="session")
def volumes_lab(lab_name: str) -> Iterator[Lab]:
    """Two real hosts, and storage behind a real Cinder: one for all tests."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    lab = Lab(f"{lab_name}-volumes")
    lab.down()
    lab.up(hosts=2, volumes=True)
    yield lab
    lab.down()


@pytest.fixture(scope="session")
def storage(volumes_lab: Lab) -> Volumes:
    """That Cinder, with Ceph, iSCSI and NFS behind it."""
    return volumes_lab.volumes
