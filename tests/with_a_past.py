"""A cloud with a migration that is closed and one that is open, for tests of many that only look at its log, or put
back what they did to it: it is made once for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.postgresql import PostgreSQL
from resizeflow.chaos.cloud import Cloud
from resizeflow.chaos.runner import work_folder
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.conftest import TEMPLATE

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
"""What a fixture that makes one has as its parameters."""


@contextmanager
def with_a_past(request: pytest.FixtureRequest, name: str) -> Iterator[tuple[Cloud, Submitted, Submitted]]:
    """The cloud, the closed migration's job, the open one's; `name` is the database's, on PostgreSQL."""
    folder, url, server = work_folder(), None, None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        assert isinstance(server, PostgreSQL)
        server.create_database(name, TEMPLATE)
        url = server.url(name)
    cloud = Cloud(folder, connection=url).build(running=False)
    first = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(first) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    second = cloud.service.migrate("web")
    assert cloud.run(second) is JobState.DONE
    yield cloud, first, second
    cloud.release()
    if server is not None:
        server.drop_database(name)
    shutil.rmtree(folder)
