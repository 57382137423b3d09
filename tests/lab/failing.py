"""A real service that fails in each phase of a resize, a confirm and a revert: what is tried of each, and what must
come of it.

A worker is stopped as it is about to call the service, that is made to fail, and the worker goes on: the job waits and
says for what, and once the service is back ends as if nothing had been; or turned back, as before.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from lab.system import wait_until
from resizeflow.chaos.child import Child
from resizeflow.chaos.judge import broken_invariants
from resizeflow.clock import Clock
from resizeflow.states import Direction, JobState
from tests.lab.stage import Stage, go_on, paused_at
from tests.lab.trouble import Server, away, has_unread, is_stuck, stuck_at

IMPATIENT = {"act_timeout": "4", "look_timeout": "4"}
LOOK_SECONDS = 2
"""What workers of others have for a call, before they look again."""
PATIENT = {"act_timeout": str(LOOK_SECONDS), "look_timeout": str(LOOK_SECONDS), "host_patience": "30"}
"""Of workers who do not wait long for what they do, but look again and again."""


@dataclass(frozen=True)
class Failing:
    """A service, by its name, and when it is called."""

    name: str
    calls: Mapping[str, Collection[str]]
    """By the operation, calls that change something: `TASK.METHOD#1`."""
    looks: Mapping[str, Collection[str]]
    """By the operation, tasks that only ask it."""
    only_forward: Collection[str]
    """Calls after which nothing is turned back."""
    writes: Mapping[str, str]
    """By the method, a write that the service makes for it, and before which it is killed."""
    each_run: Collection[tuple[str, str]]
    """Ways to be away, and points, that are not only for certification."""

    def each_call(self, *each_run: str) -> list[object]:
        """Each call, with its operation; all but a few only for certification."""
        return [
            pytest.param(operation, call, id=call, marks=[] if call in each_run else pytest.mark.certify)
            for operation, made in self.calls.items()
            for call in made
        ]

    def phases(self) -> list[object]:
        """Each moment before it is called, with its operation, and each way for it to be away."""
        points = [(operation, f"{call}.checked") for operation, made in self.calls.items() for call in made]
        points += [(operation, f"{task}.RUNNING.after") for operation, tasks in self.looks.items() for task in tasks]
        return [
            pytest.param(
                operation, point, how, id=f"{how}-{point}",
                marks=[] if (how, point) in self.each_run else pytest.mark.certify,
            )
            for operation, point in points
            for how in ("killed", "hung")
        ]  # fmt: skip

    @property
    def waiting(self) -> str:
        """What a job says that waits for it."""
        return f"{self.name} does not answer: "

    def check_away(self, stage: Stage[Any], server: Server, operation: str, point: str, how: str) -> None:
        """The job waits, the doctor says who was silent, and it ends when the service is back."""
        cloud = stage.cloud
        worker = paused_at(cloud, stage.begin(operation), point)
        with away(server, how):
            go_on(worker)
            stage.check_waits(self.waiting)
            assert next(broken_invariants(cloud)).startswith(f"{self.name} could not be examined")
        stage.check_done()

    def check_turned_back(self, stage: Stage[Any], server: Server, call: str) -> None:
        """The way back waits as well, and says so; then the machine is as before."""
        cloud = stage.cloud
        job = stage.begin("resize")
        worker = paused_at(cloud, job, f"{call}.checked")
        with away(server, "killed"):
            go_on(worker)
            cloud.service.rollback(job.migration_id)
            cloud.run(job)
            stage.check_waits(self.waiting)
            assert cloud.job(job).direction is Direction.BACK
            assert cloud.world.running(cloud.uuid) == ()
        stage.check_turned_back()

    def check_not_needed(self, stage: Stage[Any], server: Server) -> None:
        """Past the point of no return a resize goes on without it."""
        cloud = stage.cloud
        job = stage.begin("resize")
        worker = paused_at(cloud, job, "StartDestination.commit.pivot#1.after")
        with away(server, "killed"):
            go_on(worker)
            assert cloud.job(job).state is JobState.DONE, cloud.story(job)
        stage.check_done()

    def check_killed_in_the_middle(self, stage: Stage[Any], server: Server, operation: str, call: str) -> None:
        """It has made some of its writes, and not all."""
        worker = paused_at(stage.cloud, stage.begin(operation), f"{call}.checked")
        with stuck_at(server, self.writes[_method(call)]):
            worker.wake(0)
            assert wait_until(lambda: is_stuck(server), timeout=30, interval=0.05), "it did not begin to write"
            server.kill()
            go_on(worker)
            stage.check_waits(self.waiting)
        stage.check_done()

    def check_done_late(
        self,
        stage: Stage[Any],
        server: Server,
        operation: str,
        call: str,
        *,
        back: bool,
        patch: pytest.MonkeyPatch,
    ) -> None:
        """What a worker had sent who died is done after the service hung: the next worker finds that it hangs, and
        gives it time when it answers again."""
        if back and call in self.only_forward:
            pytest.skip("it only goes forward by then")
        cloud = stage.cloud
        patch.setattr(cloud, "clock", Clock())
        job = stage.begin(operation)
        worker = paused_at(cloud, job, f"{call}.checked")
        with away(server, "hung"):
            worker.wake(0)
            assert wait_until(lambda: has_unread(server), timeout=30, interval=0.02), "nothing was sent"
            worker.end()
            if back:
                cloud.service.rollback(job.migration_id)
            cloud.expire(job)
            cloud.release()
            successor = Child(lambda: cloud.run(job))
            assert wait_until(lambda: has_unread(server), timeout=30, interval=0.02), "the next worker asks nothing"
            time.sleep(LOOK_SECONDS + 1)
        go_on(successor)
        (stage.check_turned_back if back else stage.check_done)()

    def check_slow(self, stage: Stage[Any], server: Server, operation: str, call: str) -> None:
        """What it was asked for is done in the end, later than its client waits: the worker looks, and goes on."""
        cloud = stage.cloud
        job = stage.begin(operation)
        worker = paused_at(cloud, job, f"{call}.checked")
        with away(server, "hung"):
            worker.wake(0)
            assert wait_until(lambda: has_unread(server), timeout=30, interval=0.02), "nothing was sent"
            time.sleep(LOOK_SECONDS + 1)
        go_on(worker)
        assert f"{_method(call)} on {self.name.lower()}: no answer, looking again" in cloud.story(job)
        stage.check_done()


def _method(call: str) -> str:
    return call.split(".")[1].partition("#")[0]
