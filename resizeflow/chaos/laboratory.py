"""Runs cases of one scenario, each from a copy of the moment at which its job was queued."""

from __future__ import annotations

import contextlib
import gc
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resizeflow import failpoints
from resizeflow.chaos.case import Case
from resizeflow.chaos.child import Child, Overdue
from resizeflow.chaos.cloud import CHILD_SECONDS, Cloud, normal
from resizeflow.chaos.judge import Evidence, violations
from resizeflow.chaos.scenarios import SCENARIOS
from resizeflow.chaos.watched import Trace
from resizeflow.connections import Connections
from resizeflow.errors import Conflict
from resizeflow.persistence.models import Base
from resizeflow.states import Direction, JobState
from resizeflow.worker import Worker

FILES = ("state.sqlite", "state.sqlite-wal", "world.sqlite", "world.sqlite-wal", "trace")
RUNS = 4
"""After the faults, in so many runs a job must be done."""
LONG = 1e6
"""Seconds that a stopped worker has slept: more than any lease."""
FAULTS = {
    "fail": "raise",
    "lose": "lose-reply",
    "drop": "fault:unreachable",
    "miss": "fault:lose-call",
    "half": "fault:half",
    "hang": "fault:hang:1",
}


@dataclass
class Result:
    """What came of a case: nothing wrong, or what."""

    case: Case
    wrong: list[str]
    points: list[str] = field(default_factory=list)
    """The points that the runs after the last crash passed, each once."""
    happened: bool = True
    """False if a worker that was to be killed or stopped ended before it came to the point."""
    story: str = ""
    """The event log, if something is wrong."""
    seconds: float = 0.0


class Laboratory:
    """One scenario, warm: its clean run is known, and the points that it passes."""

    def __init__(self, scenario: str, folder: Path) -> None:
        self.name = scenario
        self.scenario = SCENARIOS[scenario]
        self._folder = folder
        self._folder.joinpath("run").mkdir(parents=True)
        self.cloud = self.scenario.cloud(folder / "run")
        self._trace = Trace(folder / "run" / "trace")
        failpoints.further["fault"] = self.cloud.world.fault_at
        self.scenario.build(self.cloud)
        before = self.cloud.state()
        self.job = self.scenario.submit(self.cloud)
        self.before = normal(before, self.job)
        self._saved: dict[tuple[str, ...], Path] = {}
        self._ahead: dict[tuple[str, ...], Path] = {}
        self._save(())
        self._work()  # In this process, whose forks then have all statements compiled.
        self.done = self.cloud.state(self.job)
        self.effects = self.cloud.world.effects()
        # What is warm now is not looked through again by every fork's garbage collector, and stays shared.
        gc.freeze()
        self.points = self.run(Case(scenario)).points

    @cached_property
    def way_back(self) -> Result:
        """The latest refused effect that turns the job back, and the points that it then passes; no words if none
        does."""
        for point in reversed([point for point in self.points if point.endswith(".checked")]):
            result = self.run(Case(self.name, (f"fail@{point}",)))
            if self.cloud.job(self.job).direction is Direction.BACK:
                return result
        return Result(Case(self.name), [])

    def fresh(self) -> Cloud:
        """The cloud at the moment at which the job was queued."""
        self._restore(())
        return self.cloud

    def remove(self) -> None:
        """Ends it; its folder goes."""
        self.cloud.release()
        shutil.rmtree(self._folder)

    # --- one case ----------------------------------------------------------------------------------------

    def run(self, case: Case) -> Result:
        """Runs a case and judges it."""
        result = Result(case, [])
        asleep: list[Child] = []
        began = time.monotonic()
        try:
            armed = self._go_through(case, result, asleep)
            self._finish(result, armed)
            result.wrong += violations(self._evidence(case))
            if asleep and not result.wrong:
                self._wake(asleep, result)
        except Overdue as overdue:
            result.wrong.append(f"a worker {overdue}")
        finally:
            for child in asleep:
                child.end()
        result.seconds = time.monotonic() - began
        if result.wrong:
            result.story = self.cloud.story(self.job)
        return result

    def _go_through(self, case: Case, result: Result, asleep: list[Child]) -> list[str]:
        """Does what the words say; the faults that are armed for the next run are left."""
        armed: list[str] = []
        done = self._restore(case.words)
        for number, word in enumerate(case.words[done:], start=done + 1):
            verb, _, point = word.partition("@")
            if verb in FAULTS:
                armed.append(f"{point}={FAULTS[verb]}")
            elif verb in ("kill", "stop"):
                child = self._child([*armed, f"{point}={verb}"])
                armed = []
                if verb == "stop" and child.stops(CHILD_SECONDS):
                    asleep.append(child)
                elif child.wait(CHILD_SECONDS) == 0:
                    result.happened = False
                elif number < len(case.words) or number == 1:
                    self._save(case.words[:number])
            elif verb == "rollback":
                self._turn_back()
            elif verb == "reboot" and self.cloud.job(self.job).state is not JobState.DONE:
                self.cloud.world.crash(point)
                self.cloud.world.set_up(point, True)
        return armed

    def _turn_back(self) -> None:
        try:
            self.cloud.service.rollback(self.job.migration_id)
        except Conflict:
            return  # After the pivot, or done: it only goes forward.

    def _finish(self, result: Result, armed: list[str]) -> None:
        """Runs the job until it is done; the points that were passed are the result's."""
        log = self._folder / "points"
        log.unlink(missing_ok=True)
        for _ in range(RUNS):
            if self._child(armed, log).wait(CHILD_SECONDS) != 0:
                result.wrong.append("a worker that nothing had happened to ended badly")
            if self.cloud.job(self.job).state is JobState.DONE:
                break
            armed = []
        result.points = list(dict.fromkeys(log.read_text(encoding="utf-8").split())) if log.exists() else []

    def _wake(self, asleep: list[Child], result: Result) -> None:
        """All is over; those that slept all the time go on, and nothing may change."""
        before = self._everything()
        self.cloud.release()
        for child in asleep:
            child.wake(LONG)
            child.wait(CHILD_SECONDS)
        asleep.clear()
        after = self._everything()
        result.wrong += [
            f"a stopped worker went on and changed {part}" for part in before if before[part] != after[part]
        ]

    def _everything(self) -> dict[str, Any]:
        """All that there is, to the last line of the log."""
        with self.cloud.database.read() as tx:
            tables = {
                table.name: [tuple(row) for row in tx.session.execute(sa.select(table)).all()]
                for table in Base.metadata.sorted_tables
                if table.name != "workers"
            }
        return {**tables, "the world": self.cloud.world.snapshot(), "its effects": self.cloud.world.effects()}

    def _evidence(self, case: Case) -> Evidence:
        return Evidence(case, self.cloud, self.job, self.before, self.done, self.effects, tuple(self._trace.calls()))

    # --- runs --------------------------------------------------------------------------------------------

    def _child(self, points: list[str], log: Path | None = None) -> Child:
        self.cloud.expire(self.job)
        self.cloud.release()
        return Child(self._work, ";".join(points), log)

    def _work(self) -> None:
        cloud = self.cloud
        connections = Connections(self._trace.connect)
        with Worker(
            cloud.database, cloud.settings, connections=connections, clock=cloud.clock, announced=False
        ) as worker:
            worker.take_and_run(self.job.job_id)

    # --- moments -----------------------------------------------------------------------------------------

    def go_ahead(self, beginnings: Sequence[tuple[str, ...]]) -> None:
        """Keeps what a worker leaves that is killed, for beginnings that differ in the point of their last word only:
        one worker is stopped at each of the points, and goes on once its files are copied, in which there is then what
        there would be if it were killed. A beginning whose point it does not pass is gone through as ever."""
        while self._ahead:
            shutil.rmtree(self._ahead.popitem()[1])
        before = beginnings[0][:-1]
        points = {words[-1].removeprefix("kill@"): words for words in beginnings}
        armed = [f"{point}={FAULTS[verb]}" for verb, _, point in (word.partition("@") for word in before)]
        log = self._folder / "ahead"
        log.unlink(missing_ok=True)
        self._restore(())
        child = self._child([*armed, *(f"{point}=stop" for point in points)], log)
        with contextlib.suppress(Overdue):  # Where it hangs, the beginnings' own runs tell.
            while child.stops(CHILD_SECONDS):
                words = points[log.read_text(encoding="utf-8").split()[-1]]
                if words not in self._ahead:
                    self._ahead[words] = self._folder / f"ahead{len(self._ahead)}"
                    self._ahead[words].mkdir()
                    _copy(self.cloud.folder, self._ahead[words])
                child.wake(0.0)
            child.wait(CHILD_SECONDS)

    def _save(self, words: tuple[str, ...]) -> None:
        """Keeps the state after these words, for the next cases that begin with them; one beside the first."""
        self.cloud.release()
        for old in [key for key in self._saved if key and words[: len(key)] != key]:
            shutil.rmtree(self._saved.pop(old))
        if words not in self._saved:
            self._saved[words] = self._folder / f"saved{len(words)}"
            self._saved[words].mkdir(exist_ok=True)
        _copy(self.cloud.folder, self._saved[words])

    def _restore(self, words: tuple[str, ...]) -> int:
        """The state after the most of these words that was kept; how many of them."""
        self.cloud.release()
        kept = self._ahead | self._saved
        most = max((key for key in kept if words[: len(key)] == key), key=len)
        _copy(kept[most], self.cloud.folder)
        return len(most)


def _copy(source: Path, target: Path) -> None:
    """Each file anew: a connection that a killed or careless run left open keeps the old one."""
    for name in (*FILES, "state.sqlite-shm", "world.sqlite-shm"):
        (target / name).unlink(missing_ok=True)
    for name in FILES:
        if (source / name).exists():
            shutil.copy(source / name, target / name)
