"""What happened to a migration, for a person: a line for each thing that matters, crashes and take-overs included.

A pure function over rows, on top of the timeline, so that the story and the chart never disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from resizeflow.audit.outcome import advice, sentence, standing, title
from resizeflow.audit.progress import duration, size
from resizeflow.audit.timeline import Downtime, TakeOver, Timeline, state_in, timeline
from resizeflow.persistence import next_actions
from resizeflow.persistence.models import Event, Job, Migration
from resizeflow.states import Direction, JobState


class Tone(StrEnum):
    """How a line is meant."""

    PLAIN = "plain"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Told:
    """A line of the story."""

    at: datetime
    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Story:
    """All of it, in the order in which it happened."""

    title: str
    lines: Sequence[Told]
    workers: Mapping[str, str]
    """By their letters: `host1, pid 812`."""
    ending: str
    to_do: str | None
    """What an operator does now; None: nothing."""


_SAID = {
    "failure": Tone.BAD,
    "attention": Tone.BAD,
    "unknown": Tone.WARNING,
    "retry": Tone.WARNING,
    "debt": Tone.WARNING,
    "fence": Tone.PLAIN,
    "pivot": Tone.PLAIN,
    "repair": Tone.WARNING,
    "restore": Tone.WARNING,
    "command": Tone.PLAIN,
    "destination": Tone.PLAIN,
    "stopped": Tone.PLAIN,
    "note": Tone.PLAIN,
    "state": Tone.GOOD,
}
"""Kinds of lines that are told as they are, and how they are meant."""
_TOLD_IF = {
    "note": re.compile(
        r"cannot take the machine|powered off hard|half made|goes on at byte|begun again|broke and goes on"
        r"|taken meanwhile|through the worker|not announced|was deleted at|was taken from|after a crash|stays as it is"
    ),
    "state": re.compile(
        r"^(finished|confirmed|reverted|rolled back): |^the resize is finished as before|not managed any more"
    ),
}
"""Of notes, those that are not of a day on which all goes well; of states, those by which an operation ends."""
_ASKED = {
    "confirm": "asked to confirm it",
    "revert": "asked to revert it",
    "remove": "asked to manage the machine no more, which confirms it first",
    "settle": "asked to settle what was left behind",
}
_BY_ITSELF = {"confirm": "confirms it by itself", "settle": "settles what was left behind"}
_VERBS = {"rollback": "roll it back", "resume": "resume it"}
_WAITS = ("waiting", "lease", "task", "effect", "quota", "allocation", "notification", "flow", "transfer")
"""Kinds of lines that do not end a wait which comes again with the same reason."""


def story(migration: Migration, jobs: Sequence[Job], events: Sequence[Event]) -> Story:
    """`jobs` in the order in which they were made, `events` as they were written; also of logs from before 0006."""
    told = timeline(migration, jobs, events)
    teller = _Teller(migration, jobs, told)
    lines = teller.tell(events)
    job = next((job for job in jobs if job.state is not JobState.DONE), None)
    stands, reason = standing(migration.status, job.state if job else None), job.reason if job else None
    to_do = advice(migration.id, migration.instance_name, stands, reason, migration.error)
    owed = left_behind(events)
    return Story(
        title(migration),
        lines,
        {letter: _who(name) for name, letter in teller.letters.items()},
        sentence(migration, job) + (f" Left behind: {', '.join(owed)}." if owed else ""),
        to_do or (next_actions.of_debt() if owed else None),
    )


def left_behind(events: Sequence[Event]) -> list[str]:
    """What is owed at a log's end: `disk web-1-vda.qcow2 of h1`."""
    owed: dict[str, None] = {}
    for event in events:
        if event.kind == "debt" and event.transition:
            thing = f"{event.data['what']} {event.data['object']} of {event.host}"
            if event.transition.endswith(" owed"):
                owed[thing] = None
            else:
                owed.pop(thing, None)
    return list(owed)


def _who(worker: str) -> str:
    host, _, rest = worker.partition(":")
    pid = rest.partition(":")[0]
    return f"{host}, pid {pid}" if pid.isdigit() else worker


@dataclass
class _Wait:
    """A wait that may come again and again for the same reason."""

    since: datetime
    reason: str
    tries: int = 1
    until: datetime | None = None
    """When it was taken up last; None: it still waits."""

    def told(self) -> Told:
        if self.until is None:
            return Told(self.since, f"waits: {self.reason}", Tone.WARNING)
        tries = f", {self.tries} tries" if self.tries > 1 else ""
        waited = duration((self.until - self.since).total_seconds())
        return Told(self.since, f"waited {waited}{tries}: {self.reason}", Tone.WARNING)


@dataclass
class _Teller:
    """Goes along a log, from line to line."""

    migration: Migration
    jobs: Sequence[Job]
    timeline: Timeline
    letters: dict[str, str] = field(default_factory=dict)
    _lines: list[Told] = field(default_factory=list)
    _wait: _Wait | None = None
    _holder: str | None = None
    _destinations: int = 0
    _why: dict[str, str] = field(default_factory=dict)
    """By job, why a worker queued it; not there: a person did."""

    def tell(self, events: Sequence[Event]) -> list[Told]:
        self.letters = dict(self.timeline.letters)
        self._why = {e.request_id: e.text.partition(": ")[2] for e in events if e.request_id and _by_itself(e)}
        between = sorted([*self._asked(), *self._downtimes(), *self._deaths()], key=lambda line: line.at)
        for event in events:
            while between and between[0].at <= event.at:
                self._end_wait()
                self._lines.append(between.pop(0))
            if event.kind not in _WAITS or (event.kind == "waiting" and not self._goes_on_waiting(event)):
                self._end_wait()
            self._lines += self._of(event)
        self._end_wait()
        return [*self._lines, *between]

    # --- what is between the lines -----------------------------------------------------------------------

    def _asked(self) -> Iterator[Told]:
        for job in self.jobs:
            flow = job.flow.partition("_v")[0]
            who = f"{job.asked_by} on {job.asked_from}" if job.asked_by else "somebody"
            if job.id in self._why:
                yield Told(job.created_at, f"a worker {_BY_ITSELF.get(flow, flow)}: {self._why[job.id]}")
            else:
                yield Told(job.created_at, f"{who} {_ASKED.get(flow) or self._request()}")

    def _request(self) -> str:
        row = self.migration
        if row.kind == "resize":
            return f"asked for a resize of {row.instance_name}: {row.old_flavor.name} → {row.new_flavor.name}"
        return f"asked to move {row.instance_name} from {row.source_host.name} to another host"

    def _downtimes(self) -> Iterator[Told]:
        source = self.migration.source_host.name
        destination = self.migration.dest_host.name if self.migration.dest_host else source
        for down in self.timeline.downtimes:
            came_from = source if down.start == self.migration.powered_off_at else destination
            yield Told(down.start, f"{self.migration.instance_name} is powered off on {came_from} (downtime begins)")
            if down.end is not None:
                yield self._runs_again(down, came_from, destination if came_from == source else source)

    def _runs_again(self, down: Downtime, came_from: str, went_to: str) -> Told:
        host = came_from if down.ended_by == "rollback" else went_to
        after = f"after {duration(down.seconds or 0.0)} of downtime"
        return Told(down.end or down.start, f"{self.migration.instance_name} runs again, on {host}, {after}", Tone.GOOD)

    def _deaths(self) -> Iterator[Told]:
        for over in self.timeline.takeovers:
            if over.died != over.by:
                during = f" during {over.task}" if over.task else " between two tasks"
                last = over.at - timedelta(seconds=over.silence)
                yield Told(last, f"worker {self._letter(over.died)} died{during}{_at(over.share)}", Tone.BAD)

    # --- line by line ------------------------------------------------------------------------------------

    def _of(self, event: Event) -> Iterator[Told]:
        if event.kind == "lease":
            yield from self._lease(event)
        elif event.kind == "waiting":
            self._wait = self._wait or _Wait(event.at, event.text)
        elif event.kind == "task":
            yield from self._task(event)
        elif event.kind in _SAID and (text := self._text(event)):
            settled = (event.transition or "").endswith("settled")
            yield Told(event.at, text, Tone.GOOD if settled else _SAID[event.kind])

    def _lease(self, event: Event) -> Iterator[Told]:
        over = next((o for o in self.timeline.takeovers if (o.by, o.at) == (event.worker, event.at)), None)
        if over is not None:
            self._end_wait()
            yield self._take_over(over)
        elif " takes the job " not in event.text:
            return
        elif self._wait is not None and event.worker == self._holder:
            self._wait.until = event.at
        else:
            self._end_wait(event.at)
            again = " again" if event.epoch > 1 else ""
            yield Told(event.at, f"worker {self._letter(event.worker)} took it up{again}")
        self._holder = event.worker

    def _take_over(self, over: TakeOver) -> Told:
        by, silence = self._letter(over.by), duration(over.silence)
        if over.died == over.by:
            return Told(over.at, f"worker {by} was cut off for {silence}, and went on", Tone.WARNING)
        return Told(over.at, f"worker {by} took over after {silence} and {self._how_it_went_on(over)}")

    def _how_it_went_on(self, over: TakeOver) -> str:
        first = next((run for run in self.timeline.runs if (run.worker, run.epoch) == (over.by, over.epoch)), None)
        if first is not None and first.direction is Direction.BACK:
            return "began to undo it"
        later = next((sample for sample in self.timeline.samples if sample.at > over.at), None)
        if over.share and later is not None and later.share < over.share:
            return "copied anew"
        return f"went on{_at(over.share)}"

    def _task(self, event: Event) -> Iterator[Told]:
        row = self.migration
        if event.task != "TransferDisks" or not row.bytes_total or row.same_host or row.dest_host is None:
            return
        state = state_in(event)
        runs = [run for run in self.timeline.runs if run.task == event.task]
        if state == "RUNNING":
            yield Told(
                event.at, f"copies {size(row.bytes_total)} of disks from {row.source_host.name} to {row.dest_host.name}"
            )
        elif state == "SUCCESS" and runs:
            seconds = (event.at - runs[0].start).total_seconds()
            rate = f", {size(row.bytes_total / seconds)}/s" if seconds >= 1 else ""
            yield Told(event.at, f"the disks are copied, in {duration(seconds)}{rate}", Tone.GOOD)

    def _text(self, event: Event) -> str | None:
        """What a line says, in a person's words; None: nothing that matters."""
        text = event.text
        if event.kind == "destination":
            return self._destination(event)
        if event.kind in _TOLD_IF:
            return text if _TOLD_IF[event.kind].search(text) else None
        if event.kind == "command" and event.asked_by:
            verb, _, rest = text.partition(" was asked for")
            did = f" asked to {_VERBS[verb]}{rest.removesuffix(', direction back')}" if verb in _VERBS else f": {text}"
            return f"{event.asked_by} on {event.asked_from}{did}"
        match event.kind:
            case "failure":
                text = f"{event.task} failed: {text.rstrip('.')}; what was done is undone"
            case "attention":
                text = f"stopped, a person is needed: {text}"
            case "stopped":
                text = f"worker {self._letter(event.worker)} was stopped, and put it down"
        return text

    def _destination(self, event: Event) -> str:
        self._destinations += 1
        host = event.text.removeprefix("destination ")
        if self._destinations > 1:
            return f"destination {host} taken instead"
        verdicts = event.data.get("verdicts") or {}
        others = [name for name, verdict in verdicts.items() if str(verdict).startswith("alternate")]
        what = "alternate" if len(others) == 1 else "alternates"
        return f"destination {host} chosen" + (f" ({', '.join(others)} as {what})" if others else "")

    def _goes_on_waiting(self, event: Event) -> bool:
        """Whether it is one wait with the one before."""
        if self._wait is None or self._wait.until is None or self._wait.reason != event.text:
            return False
        self._wait.tries += 1
        self._wait.until = None
        return True

    def _end_wait(self, at: datetime | None = None) -> None:
        if self._wait is not None:
            self._wait.until = self._wait.until or at
            self._lines.append(self._wait.told())
        self._wait = None

    def _letter(self, worker: str | None) -> str:
        name = worker or "?"
        return self.letters.setdefault(name, f"{chr(ord('A') + len(self.letters) % 26)}{len(self.letters) // 26 or ''}")


def _at(share: float | None) -> str:
    return "" if share is None else f" at {share * 100:.0f} %"


def _by_itself(event: Event) -> bool:
    return event.kind == "flow" and bool(event.data.get("by_itself"))
