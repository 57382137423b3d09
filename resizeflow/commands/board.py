"""A flow's tasks as its log tells of them: state, beginning and end of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from resizeflow.audit.progress import Pace, Sample, duration, pace, samples_of, size
from resizeflow.commands.news import News
from resizeflow.persistence.models import Event
from resizeflow.states import JobState


class TaskProgress(StrEnum):
    """How far a task is, in the words of the log."""

    TO_DO = "to do"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "is being undone"
    UNDONE = "undone"


@dataclass
class TaskLine:
    """One task of the flow."""

    name: str
    progress: TaskProgress = TaskProgress.TO_DO
    began: datetime | None = None
    ended: datetime | None = None

    def seconds(self, now: datetime) -> float | None:
        """How long it took, or takes until now."""
        return ((self.ended or now) - self.began).total_seconds() if self.began else None


class Board:
    """All tasks of a flow, in order."""

    def __init__(self) -> None:
        self.lines: dict[str, TaskLine] = {}
        self._samples: list[Sample] | None = None
        """By this machine's clock, but for those of before we looked: None before the first look."""

    def take(self, news: News) -> None:
        """Brings the board up to date."""
        for name in news.tasks:
            self.lines.setdefault(name, TaskLine(name))
        for event in news.events:
            if progress := progress_of(event):
                self._turn(self.lines.setdefault(event.task or "", TaskLine(event.task or "")), progress, event.at)
        self._measure(news, datetime.now(UTC))

    def _measure(self, news: News, now: datetime) -> None:
        if self._samples is None:
            self._samples = [sample for sample in samples_of(news.events) if sample.at <= now]
        row = news.migration
        if row.bytes_total and (not self._samples or self._samples[-1].done != row.bytes_done):
            self._samples.append(Sample(now, row.bytes_done, row.bytes_total))

    def pace(self, news: News) -> Pace | None:
        """How the transfer goes now; None if there is none yet."""
        row = news.migration
        if not row.bytes_total:
            return None
        return pace([*(self._samples or []), Sample(datetime.now(UTC), row.bytes_done, row.bytes_total)])

    @property
    def done(self) -> list[str]:
        return [line.name for line in self.lines.values() if line.progress is TaskProgress.DONE]

    @staticmethod
    def _turn(line: TaskLine, progress: TaskProgress, at: datetime) -> None:
        line.progress = progress
        if progress in (TaskProgress.STARTED, TaskProgress.UNDOING):
            line.began, line.ended = at, None
        else:
            line.ended = at


def progress_of(event: Event) -> TaskProgress | None:
    """What a line of the log says about a task's progress, None if it says something else."""
    if event.kind != "task" or event.task is None:
        return None
    word = event.text.removeprefix(event.task).strip()
    return TaskProgress(word) if word in set(TaskProgress) else None


def headline(news: News) -> str:
    """What is being done, in one line."""
    migration, what = news.migration, news.job.flow.partition("_v")[0]
    hosts = [migration.source_host.name, migration.dest_host.name if migration.dest_host else "…"]
    sizes = [migration.old_flavor.name, migration.new_flavor.name]
    if what == "revert":
        hosts.reverse()
        sizes.reverse()
    route = " → ".join(hosts) if migration.kind == "migration" else f"{' → '.join(sizes)}, {' → '.join(hosts)}"
    if what == "resize" and migration.kind == "migration":
        what = "migration"
    return f"{what} of {migration.instance_name} ({route}), migration {migration.id[:8]}"


def whereabouts(news: News) -> str:
    """Who has the job, or what it waits for."""
    job = news.job
    if job.state is JobState.RUNNING:
        host, pid, _ = (job.owner or "?:?:?").rsplit(":", 2)
        lease = f"its lease holds for {news.lease_left:.0f} s" if news.lease_left else "its lease has ended"
        return f"worker on {host}, pid {pid}; {lease}"
    if job.state is JobState.QUEUED:
        return f"waits: {job.reason}" if job.reason else "waits for a worker"
    return "needs a person" if job.state is JobState.NEEDS_ATTENTION else "done"


def speed(pace: Pace) -> str:
    """`410 of 1024 MiB, 25 MiB/s, 24 s left`; rate and time as far as they are known."""
    done, total = size(pace.done), size(pace.total)
    words = [f"{done.removesuffix(total[-4:])} of {total}"]
    if pace.rate:
        words.append(f"{size(pace.rate)}/s")
    if pace.seconds_left:
        words.append(f"{duration(pace.seconds_left)} left")
    return ", ".join(words)
