"""What must hold of any machine once its job has ended, and what is otherwise than it was."""

from __future__ import annotations

from collections.abc import Iterator

from resizeflow.chaos.cloud import Cloud
from resizeflow.service import Submitted
from resizeflow.states import JobState


def host_of(cloud: Cloud) -> str:
    """Where the machine is by the records."""
    with cloud.database.read() as tx:
        return tx.instances.get(cloud.uuid).host.name


def unfinished(cloud: Cloud, job: Submitted) -> Iterator[str]:
    """The job is done, and the machine runs there and nowhere else."""
    row = cloud.job(job)
    if row.state is not JobState.DONE:
        yield f"the job is {row.state}: {row.reason}"
    running = cloud.world.running(cloud.uuid)
    if running != (host_of(cloud),):
        yield f"the machine runs on {running}"


def changed(cloud: Cloud, job: Submitted, expected: dict[str, object]) -> list[str]:
    """What records and hosts have otherwise than in a state that was kept (`Cloud.state`)."""
    found, due = dict(_flat(cloud.state(job))), dict(_flat(expected))
    paths = sorted(path for path in found.keys() | due.keys() if found.get(path) != due.get(path))
    return [f"{path} is {found.get(path)!r} instead of {due.get(path)!r}" for path in paths]


def _flat(state: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from _flat(value, f"{path}/{key}")
    else:
        yield path, state
