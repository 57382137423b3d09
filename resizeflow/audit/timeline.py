"""What a chart of a migration shows: who ran which task when, and what came between. Pure functions over rows.

A log says when a task's state changed and who held the job. It does not say that a worker died: that shows when the
next one takes the job over, and the last line of the dead one is the last sign of its life. TaskFlow runs a task that
was RUNNING then once more without saying so, so a run of the successor begins where it takes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from resizeflow.audit.progress import Sample, samples_of
from resizeflow.persistence.models import RETRIES, Event, Job, Migration
from resizeflow.states import Direction


class End(StrEnum):
    """How a worker's run of a task ended."""

    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"
    CRASHED = "crashed"
    """Its worker was silent until its lease had ended, and another one took the job over."""
    WAITING = "waiting"
    """The job was put down, to be tried again."""
    STOPPED = "stopped"
    """The worker was asked to stop."""
    ATTENTION = "needs attention"
    """The job was put down for a person."""
    TURNED_BACK = "turned back"
    """A rollback was asked for while it ran."""


@dataclass
class Run:
    """A task in the hands of one worker, from one sign of it to the next; `end` and `how` are None while it runs."""

    task: str
    flow: str
    worker: str
    epoch: int
    direction: Direction
    start: datetime
    end: datetime | None = None
    how: End | None = None
    why: str | None = None
    """What was said at its end, if it was not done."""
    share: float | None = None
    """Of a transfer: how much of it was there at its end, from 0 to 1."""
    worked: bool = False
    """Whether the log has more of it than its beginning."""

    @property
    def seconds(self) -> float | None:
        return (self.end - self.start).total_seconds() if self.end else None


@dataclass(frozen=True)
class TakeOver:
    """A worker died, or was silent for its whole lease, and another one went on."""

    died: str
    last_sign: datetime
    by: str
    at: datetime
    epoch: int
    """The successor's."""
    silence: float
    """Seconds since it was surely alive: it had written a line, or renewed its lease."""
    task: str | None
    """What the dead one was in; None: between two tasks."""
    share: float | None
    """How much of a transfer was there, from 0 to 1."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at one moment: a retry, the point of no return, what a person asked for."""

    at: datetime
    kind: str
    """As in the log: `waiting`, `unknown`, `retry`, `failure`, `pivot`, `command`, `attention`."""
    task: str | None
    worker: str | None
    text: str


@dataclass(frozen=True)
class Downtime:
    """The guest was off; `end` is None while it is."""

    start: datetime
    end: datetime | None
    ended_by: str
    """`resize`, `rollback`, `revert`: whose doing it is that it runs again."""

    @property
    def seconds(self) -> float | None:
        return (self.end - self.start).total_seconds() if self.end else None


@dataclass(frozen=True)
class Timeline:
    """All of it, in the order of time."""

    runs: Sequence[Run]
    takeovers: Sequence[TakeOver]
    marks: Sequence[Mark]
    downtimes: Sequence[Downtime]
    samples: Sequence[Sample]

    @property
    def retries(self) -> list[Mark]:
        return [mark for mark in self.marks if mark.kind in RETRIES]

    @cached_property
    def letters(self) -> dict[str, str]:
        """The workers by their names, in the order in which they came: A, B, C, up to Z, then A1, B1."""
        names = dict.fromkeys([run.worker for run in self.runs] + [over.by for over in self.takeovers])
        return {name: chr(ord("A") + at % 26) + (str(at // 26) if at >= 26 else "") for at, name in enumerate(names)}


_MARKED = RETRIES | {"failure", "pivot", "command", "attention", "stopped", "fence", "repair", "restore"}
_TRANSFER = "TransferDisks"
_PUT_DOWN = {"waiting": End.WAITING, "stopped": End.STOPPED, "attention": End.ATTENTION}
_ENDS = {"SUCCESS": End.DONE, "FAILURE": End.FAILED, "REVERTED": End.UNDONE}
_WORDS = {
    "started": "RUNNING",
    "done": "SUCCESS",
    "failed": "FAILURE",
    "is being undone": "REVERTING",
    "undone": "REVERTED",
}
"""Lines before schema 0006 have no transition, and say it in these words."""
_OFF_AND_ON = (
    ("PowerOffSource", "StartDestination", "resize"),
    ("PowerOffDestination", "StartSource", "revert"),
)
"""The task that powers the guest off, the one that lets it run, and the flow that they are of."""


def timeline(migration: Migration, jobs: Sequence[Job], events: Sequence[Event]) -> Timeline:
    """The facts of a migration's chart; `jobs` in the order in which they were made, `events` as they were written."""
    told = _Telling(jobs)
    for event in events:
        told.take(event)
    samples = told.samples
    began = next((run.start for run in told.runs if run.task == _TRANSFER), None)
    if samples and began is not None and began < samples[0].at:
        samples = [Sample(began, 0, samples[0].total), *samples]
    return Timeline(told.runs, told.takeovers, told.marks, downtimes(migration, told.runs), samples)


def downtimes(migration: Migration, runs: Sequence[Run]) -> list[Downtime]:
    """When the guest was off. Only what ran before can be down."""
    found = []
    for off, on, flow in _OFF_AND_ON:
        resize = flow == "resize"
        if not (migration.was_running if resize else migration.dest_was_running):
            continue
        # A revert that was undone may be asked for again.
        starts = [migration.powered_off_at] if resize else _ends(runs, off, End.DONE)
        done = [migration.resumed_at] if resize else _ends(runs, on, End.DONE)
        ends = dict.fromkeys(_ends(runs, off, End.UNDONE), "rollback") | dict.fromkeys(done, flow)
        for start in filter(None, starts):
            end = min((moment for moment in ends if moment and moment >= start), default=None)
            found.append(Downtime(start, end, ends[end] if end else flow))
    return sorted(found, key=lambda down: down.start)


def _ends(runs: Sequence[Run], task: str, how: End) -> list[datetime | None]:
    return [run.end for run in runs if run.task == task and run.how is how]


def state_in(event: Event) -> str | None:
    """The TaskFlow state that a task has from this line on; None if it is about something else."""
    if event.kind != "task" or event.task is None:
        return None
    if event.transition:
        return event.transition.rpartition(" ")[2]
    return _WORDS.get(event.text.removeprefix(event.task).strip())


def _is_taken(event: Event) -> bool:
    """Whether a line about a lease says that a worker has the job from now on."""
    return event.transition.endswith(" running") if event.transition else " takes the job " in event.text


@dataclass
class _Telling:
    """Goes along a log, from line to line."""

    jobs: Sequence[Job]
    runs: list[Run] = field(default_factory=list)
    takeovers: list[TakeOver] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    open: Run | None = None
    unfinished: Run | None = None
    """The run in which the job was put down: whoever takes it up goes on with its task."""
    holder: Event | None = None
    """The line by which the present worker took the job; None: nobody holds it."""
    last_sign: datetime | None = None
    """The time of the last line that the holder wrote."""

    def take(self, event: Event) -> None:
        self.samples += samples_of([event])
        if event.kind == "lease" and event.epoch:
            self._lease(event)
        elif state := state_in(event):
            self._task(event, state)
        elif event.kind in _PUT_DOWN:
            self.unfinished = self.open
            self._close(event.at, _PUT_DOWN[event.kind], event.error or event.text)
            self.holder = None
        elif event.kind == "restore":
            self._lose_holder()
        elif self.open is not None and event.task == self.open.task:
            self.open.worked = True
        if self.holder is not None and event.worker == self.holder.worker:
            self.last_sign = event.at
        kind = "command" if event.kind == "state" and event.worker is None else event.kind
        if kind in _MARKED:
            put_down = self.unfinished if kind in _PUT_DOWN else None
            task = put_down.task if put_down else event.task
            self.marks.append(Mark(event.at, kind, task, event.worker, event.error or event.text))

    def _lease(self, event: Event) -> None:
        """A worker has the job now, or it is done. Epochs of a job grow with each hold and begin with 1: with a later
        one, and nobody having put the job down, the holder is dead or was cut off."""
        if not _is_taken(event):
            self.holder = None
            return
        same_job = event.epoch > 1
        interrupted = (self.open or self.unfinished) if same_job else None
        if same_job and self.holder is not None and self.last_sign is not None:
            self.takeovers.append(self._take_over(event, self.holder, self.last_sign))
        self._lose_holder()
        self.unfinished = None
        self.holder, self.last_sign = event, event.at
        if interrupted is not None:
            self._begin(event, interrupted.task, interrupted.direction)

    def _lose_holder(self) -> None:
        """Nobody has the job any more, without having put it down."""
        self._close(self.last_sign, End.CRASHED, None)
        self.holder = None

    def _take_over(self, event: Event, holder: Event, last_sign: datetime) -> TakeOver:
        silent = (event.at - last_sign).total_seconds()
        return TakeOver(
            died=holder.worker or "?",
            last_sign=last_sign,
            by=event.worker or "?",
            at=event.at,
            epoch=event.epoch,
            silence=min(silent, event.data.get("silent_seconds", silent)),
            task=self.open.task if self.open else None,
            share=self._share(self.open),
        )

    def _task(self, event: Event, state: str) -> None:
        if state in _ENDS:
            self._close(event.at, _ENDS[state], None)
            return
        direction = Direction.BACK if state == "REVERTING" else Direction.FORWARD
        if self.open is not None and not self.open.worked and self.open.task == event.task:
            self.runs.remove(self.open)  # It was not run once more after all, but is undone.
        else:
            self._close(event.at, End.TURNED_BACK, None)
        self._begin(event, event.task or "", direction)

    def _begin(self, event: Event, task: str, direction: Direction) -> None:
        self.open = Run(task, self._flow(event), event.worker or "?", event.epoch, direction, event.at)
        self.runs.append(self.open)

    def _close(self, at: datetime | None, how: End, why: str | None) -> None:
        if self.open is not None:
            self.open.end, self.open.how, self.open.why = at, how, why
            self.open.share = self._share(self.open)
        self.open = None

    def _flow(self, event: Event) -> str:
        named = [job.flow for job in self.jobs if job.id == event.request_id]
        earlier = [job.flow for job in self.jobs if job.created_at <= event.at]
        return (named or earlier[-1:] or [""])[0]

    def _share(self, run: Run | None) -> float | None:
        """How much of a transfer was there when a run of it ended."""
        transfers = run is not None and run.task == _TRANSFER and run.direction is Direction.FORWARD
        return self.samples[-1].share if transfers and self.samples else None
