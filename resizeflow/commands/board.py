"""A flow's tasks as its log tells of them: state, beginning and end of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from resizeflow.commands.news import News
from resizeflow.persistence.models import Event


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

    def take(self, news: News) -> None:
        """Brings the board up to date."""
        for name in news.tasks:
            self.lines.setdefault(name, TaskLine(name))
        for event in news.events:
            if progress := progress_of(event):
                self._turn(self.lines.setdefault(event.task or "", TaskLine(event.task or "")), progress, event.at)

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


def megabytes(size: float) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 10 * 2**30 else f"{size / 2**20:.0f} MiB"
