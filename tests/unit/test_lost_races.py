"""Of two requests at once one is accepted; the other is a conflict with one clear sentence, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import InstanceInvalidState, InstanceNotFound, InstanceUpdateConflict, ResizeflowError
from resizeflow.lease import Lease
from resizeflow.persistence.database import Database
from resizeflow.persistence.transaction import Transaction
from resizeflow.service import Service, Submitted
from resizeflow.states import JobState
from tests.console import everything
from tests.rivals import Rival, at_once

pytestmark = pytest.mark.slow

Act = Callable[[Service], object]


class Overtaken(Database):
    """The database of somebody who is slow: between the look and the write another one is served."""

    def __init__(self, cloud: Cloud, rival: Callable[[], object]) -> None:
        super().__init__(cloud.settings.connection)
        self._rival: Callable[[], object] | None = rival

    @contextmanager
    def write(self, lease: Lease | None = None, *, point: str | None = None) -> Iterator[Transaction]:
        rival, self._rival = self._rival, None
        if rival is not None:
            rival()
        with super().write(lease, point=point) as tx:
            yield tx


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build()


@pytest.fixture
def resized(cloud: Cloud) -> Cloud:
    assert cloud.run(cloud.service.resize("web", "big", host="h2")) is JobState.DONE
    return cloud


def resize(service: Service) -> object:
    return service.resize("web", "big", host="h2")


def migrate(service: Service) -> object:
    return service.migrate("web")


def confirm(service: Service) -> object:
    return service.confirm("web")


def revert(service: Service) -> object:
    return service.revert("web")


def overtake(cloud: Cloud, slow: Act, fast: Callable[[], object]) -> tuple[Any, Any]:
    """The error of the slow one and the answer of the fast one, of which alone anything is left."""
    answers: list[object] = []
    after: list[object] = []

    def rival() -> None:
        answers.append(fast())
        after.extend([everything(cloud), cloud.world.snapshot()])

    database = Overtaken(cloud, rival)
    try:
        with pytest.raises(ResizeflowError) as refusal:
            slow(Service(database, cloud.settings, connections=cloud.connections))
    finally:
        database.engine.dispose()
    assert after == [everything(cloud), cloud.world.snapshot()]
    return refusal.value, answers[0]


def is_a_conflict(error: Exception, told: str) -> None:
    assert type(error) is InstanceUpdateConflict, repr(error)
    assert (error.http_code, error.exit_code) == (409, 4)
    assert re.fullmatch(rf"Another request was faster: [^\n]*{told}[^\n]*\.", str(error)), error


@pytest.mark.parametrize("fast", [resize, migrate])
@pytest.mark.parametrize("slow", [resize, migrate])
def test_of_two_moves_one_is_accepted(cloud: Cloud, slow: Act, fast: Act) -> None:
    error, accepted = overtake(cloud, slow, lambda: fast(cloud.service))
    is_a_conflict(error, f"'{slow.__name__}' instance web while it is in task_state resize_prep")
    assert cloud.run(accepted) is JobState.DONE


@pytest.mark.parametrize("fast", [confirm, revert])
@pytest.mark.parametrize("slow", [confirm, revert])
def test_of_two_decisions_one_is_accepted(resized: Cloud, slow: Act, fast: Act) -> None:
    error, accepted = overtake(resized, slow, lambda: fast(resized.service))
    why = "its migration is confirming" if fast is confirm else "task_state resize_reverting"
    is_a_conflict(error, f"'{slow.__name__}' instance web.* {why}")
    assert resized.run(accepted) is JobState.DONE


@pytest.mark.parametrize("slow", [confirm, revert])
def test_a_decision_after_one_that_is_carried_out(resized: Cloud, slow: Act) -> None:
    error, _ = overtake(resized, slow, lambda: resized.run(resized.service.revert("web")))
    is_a_conflict(error, "vm_state active: it has not been resized")


def test_a_machine_is_locked_before_it_is_resized(cloud: Cloud) -> None:
    error, _ = overtake(cloud, resize, lambda: cloud.inventory.lock("web", True))
    is_a_conflict(error, "web is locked")
    cloud.inventory.lock("web", False)
    assert isinstance(cloud.service.resize("web", "big"), Submitted)


def test_a_machine_is_forgotten_before_it_is_resized(cloud: Cloud) -> None:
    error, _ = overtake(cloud, resize, lambda: cloud.service.remove("web"))
    assert isinstance(error, InstanceNotFound)


def one_accepted(answers: list[Any]) -> Submitted:
    accepted = [answer for answer in answers if isinstance(answer, Submitted)]
    assert len(accepted) == 1, answers
    # Who came when the first one was through did not lose a race: that one is told the state.
    for answer in answers:
        assert answer is accepted[0] or isinstance(answer, InstanceUpdateConflict | InstanceInvalidState), repr(answer)
    return accepted[0]


def test_many_at_once(cloud: Cloud) -> None:
    job = one_accepted(at_once(*[lambda act=act: act(cloud.service) for act in (resize, migrate) * 3]))
    assert cloud.run(job) is JobState.DONE
    job = one_accepted(at_once(*[lambda act=act: act(cloud.service) for act in (confirm, revert) * 3]))
    assert cloud.run(job) is JobState.DONE
    assert [quota.reserved for quota in cloud.inventory.quotas("default")] == [0] * 4


def test_a_job_that_nobody_sees_yet(memory_path: Path, postgresql_url: str) -> None:
    """A worker queues a job of the machine's without a lock on its row: the database's constraint decides."""
    cloud = Cloud(memory_path, connection=postgresql_url).build()
    earlier = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(earlier) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    with cloud.database.write() as tx:
        tx.jobs.create("4e7c1a52-0000-4000-8000-000000000000", earlier.migration_id, cloud.uuid, "settle_v1")
        slow = Rival(lambda: cloud.service.migrate("web")).waits(cloud.database)
    error = slow.end()
    assert type(error) is InstanceUpdateConflict, repr(error)
    assert "Another request for instance web was faster" in str(error)
