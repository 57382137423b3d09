"""Machines with ports of the simulated Neutron: how they are bound while a job runs, and jobs that stop on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from resizeflow import failpoints
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.service import Submitted
from resizeflow.states import JobState

HERE = "h1 ACTIVE ovs; ACTIVE"
"""A port of a machine that runs on h1, in the words of `bound`."""
THERE = "h2 ACTIVE ovs; ACTIVE"


def bound(cloud: Cloud, port_id: str | None = None) -> str:
    """A port's bindings, and its status; the cloud's first port by default."""
    seen = cloud.world.see_port(port_id or cloud.ports[0])
    return f"{', '.join(' '.join(binding) for binding in seen.bindings)}; {seen.status}"


def bound_after(
    cloud: Cloud, job: Submitted, tasks: Iterable[str], moment: str = "SUCCESS.before"
) -> Mapping[str, str]:
    """Runs a job to its end; how the first port was bound when each of the tasks was through."""
    seen: dict[str, str] = {}
    failpoints.further["see"] = lambda point, _: seen.update({point.partition(".")[0]: bound(cloud)})
    failpoints.arm(";".join(f"{task}.{moment}=see" for task in tasks))
    try:
        assert cloud.run(job) is JobState.DONE, cloud.story(job)
    finally:
        failpoints.arm("")
        del failpoints.further["see"]
    return seen


def stopped_after(cloud: Cloud, job: Submitted, task: str) -> Submitted:
    """A job whose worker died when a task was through."""
    assert cloud.run_in_child(job, f"{task}.SUCCESS.after") == KILLED, cloud.story(job)
    return job


def effects(cloud: Cloud, *methods: str) -> list[str]:
    """What was done, of these, in order, each with its place."""
    return [f"{effect.method} {effect.host}" for effect in cloud.world.effects() if effect.method in methods]
