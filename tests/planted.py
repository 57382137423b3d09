"""Breaches planted past every rule of ours: by SQL, and by hand on a simulated host."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.connections import Connections
from resizeflow.doctor import Breach, Doctor
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker

UNKNOWN = "0c0ffee0-0000-4000-8000-000000000000"
Found = list[tuple[int, str]]


def doctor(cloud: Cloud) -> Doctor:
    return Doctor(cloud.database, cloud.settings, connections=cloud.connections, clock=cloud.clock)


def breaches(cloud: Cloud) -> tuple[Breach, ...]:
    return doctor(cloud).examine().breaches


def found(cloud: Cloud) -> Found:
    return [(breach.invariant, breach.subject) for breach in breaches(cloud)]


def sql(cloud: Cloud, *statements: sa.Update | sa.Delete | sa.Insert) -> None:
    """What no command of ours does."""
    with cloud.database.write() as tx:
        for statement in statements:
            tx.session.execute(statement)


def by_hand(cloud: Cloud, host: str, method: str, *args: Any) -> Any:
    """What somebody does on a host, past the gate."""
    connection = Connections().to(cloud.world.uri(host))
    connection.open(1)
    return connection.call(method, args, timeout=1)


def xml_of(cloud: Cloud, host: str) -> str:
    return str(by_hand(cloud, host, "definition_with_secrets", cloud.uuid))


def host_id(cloud: Cloud, name: str) -> str:
    with cloud.database.read() as tx:
        return tx.hosts.get(name).id


def resized(cloud: Cloud, host: str = "h2", *, kept: bool | None = None) -> Submitted:
    """A finished resize; `kept` decides it."""
    job = cloud.service.resize("web", "big", host=host)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    if kept is not None:
        decided = cloud.service.confirm("web") if kept else cloud.service.revert("web")
        assert cloud.run(decided) is JobState.DONE, cloud.story(job)
    assert found(cloud) == []
    return job


def rolled_back(cloud: Cloud) -> Submitted:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "TransferDisks.SUCCESS.after") == KILLED
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert found(cloud) == []
    return job


def repair(cloud: Cloud) -> None:
    """The repair, and what workers make of the debts."""
    doctor(cloud).repair("doctor, says test")
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()


def check_repaired(cloud: Cloud, expected: Found, before: dict[str, Any]) -> None:
    """The breaches are found, offered for repair, repaired, and everything is as it was before they were planted."""
    assert found(cloud) == expected
    assert all(breach.repair for breach in breaches(cloud))
    repair(cloud)
    assert [*map(str, breaches(cloud))] == []
    assert cloud.state() == before


def check_left_to_people(cloud: Cloud, expected: Found) -> None:
    """The breaches are found, and a repair does nothing about them, in the world or in the records."""
    assert found(cloud) == expected
    assert all(breach.repair is None for breach in breaches(cloud))
    before = cloud.state()
    repair(cloud)
    assert cloud.state() == before
    assert found(cloud) == expected
