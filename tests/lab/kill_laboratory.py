"""Kills workers at the points of one operation that have to do with a real service.

Each case begins at the moment at which the job was queued.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from resizeflow.chaos.child import KILLED, Child
from resizeflow.chaos.cloud import CHILD_SECONDS, normal
from resizeflow.errors import Conflict
from resizeflow.states import Direction, JobState
from tests.lab.ended import changed
from tests.lab.stage import RUNS, C, Judge, Moment, ask

TOLD = ("lease", "effect", "unknown", "failure", "note")
"""The kinds of lines in the log that tell how a case came to what it is."""


@dataclass(frozen=True)
class Case:
    """A worker is killed at a point; then the job is taken up again, or turned back before. On the way back it is one
    that a refusal (`turned`, the effect that is refused) has begun."""

    operation: str
    point: str
    ending: str
    turned: str | None = None

    def __str__(self) -> str:
        turned = f"fail@{self.turned}/" if self.turned else ""
        return f"{self.operation}/{turned}kill@{self.point}/{self.ending}"

    @property
    def armed(self) -> str:
        """The failpoints."""
        return f"{self.turned}=raise;{self.point}=kill" if self.turned else f"{self.point}=kill"


class KillLaboratory(Generic[C]):
    """One operation on a cloud's machine, at the moment before it: its points are known from a run that nothing
    disturbs; those that `concerns` says are tried. `turning` is the effect whose refusal begins the way back; without
    one there is none."""

    def __init__(
        self,
        cloud: C,
        operation: str,
        folder: Path,
        judge: Judge[C],
        *,
        concerns: Callable[[str], bool],
        turning: str | None = None,
    ) -> None:
        self.cloud = cloud
        self._turning = turning
        self._judge = judge
        self._concerns = concerns
        self.operation = operation
        self._folder = folder
        folder.mkdir()
        self._before = cloud.state()
        self.job = ask(cloud, operation)
        self._before = normal(self._before, self.job)
        with cloud.database.read() as tx:
            self._accepted = max(event.seq for event in tx.events.of(self.job.migration_id))
        self._begin = Moment(cloud, folder / "begin")
        cloud.run(self.job)  # In this process, whose forks then have all statements compiled.
        self._done = cloud.state(self.job)
        self.points = self._passed()
        self.end = Moment(cloud, folder / "end")
        """As an undisturbed run leaves everything."""
        gc.freeze()  # what is warm now is not looked through again by every fork

    def cases(self) -> Iterator[Case]:
        """All there are: those on the way are killed once and end in two ways, if they still can be turned back."""
        for point in self.points:
            yield Case(self.operation, point, "resume")
            if self._turning is not None:
                yield Case(self.operation, point, "rollback")
        if self._turning is not None:
            points = self._passed(f"{self._turning}=raise")
            if self.cloud.job(self.job).direction is not Direction.BACK:
                raise LookupError(f"{self._turning} does not turn the {self.operation} back")
            only_then = [point for point in points if point not in self.points]
            yield from (Case(self.operation, point, "resume", self._turning) for point in only_then)

    def run(self, case: Case) -> list[str] | None:
        """What is wrong in the end; None if there is no such case, because the job only goes forward by then."""
        self._begin.restore()
        if self._child(case.armed).wait(CHILD_SECONDS) != KILLED:
            return [f"the worker did not come to {case.point}"]
        if case.ending == "rollback":
            try:
                self.cloud.service.rollback(self.job.migration_id)
            except Conflict:
                return None
        self._finish()
        back = case.ending == "rollback" or case.turned is not None
        return self._judge(self.cloud, self.job) + changed(self.cloud, self.job, self._before if back else self._done)

    def story(self) -> str:
        """What the job of the last case tells."""
        with self.cloud.database.read() as tx:
            events = [event for event in tx.events.of(self.job.migration_id) if event.seq > self._accepted]
        told = [event for event in events if event.kind in TOLD]
        return "\n".join(f"  {event.epoch} {event.kind} {event.task} {event.text}" for event in told)

    def _passed(self, armed: str = "") -> list[str]:
        """The points of concern that workers pass each time: a service that fails for a moment is asked once more."""
        runs = []
        for _ in range(2):
            self._begin.restore()
            runs.append(self._finish(armed))
        return [point for point in runs[0] if point in runs[1]]

    def _finish(self, armed: str = "") -> list[str]:
        """Workers run the job until it is done; the points of concern that they passed, each once."""
        log = self._folder / "points"
        log.unlink(missing_ok=True)
        for _ in range(RUNS):
            if self._child(armed, log).wait(CHILD_SECONDS) != 0:
                raise RuntimeError(f"a worker ended badly:\n{self.cloud.story(self.job)}")
            if self.cloud.job(self.job).state is JobState.DONE:
                break
        return [point for point in dict.fromkeys(log.read_text().split()) if self._concerns(point)]

    def _child(self, armed: str, log: Path | None = None) -> Child:
        self.cloud.expire(self.job)
        self.cloud.release()
        return Child(lambda: self.cloud.run(self.job), armed, log)


def try_all(laboratory: KillLaboratory[C], every: int, about: str) -> list[str]:
    """Runs `every` so-manieth case of an operation and prints a line about them, which says what it is `about`; the
    stories of those that ended wrong."""
    cases = list(laboratory.cases())
    cases = cases[every // 2 % len(cases) :: every]
    stories: list[str] = []
    points, tried = set(), 0
    began = time.monotonic()
    for case in cases:
        found = laboratory.run(case)
        if found is None:
            continue
        tried += 1
        points.add(case.point)
        if found:
            stories.append("\n".join([str(case), *found, laboratory.story()]))
    seconds = (time.monotonic() - began) / max(tried, 1)
    print(
        f"| {laboratory.operation:9} | {about:11} | {len(points):6} | {tried:5} | {len(stories):10} | {seconds:14.1f} |"
    )
    return stories
