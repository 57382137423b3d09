"""Progress on a terminal: the flow's tasks as a list that is kept up to date, the transfer as a bar."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from resizeflow.commands.board import Board, TaskLine, TaskProgress, headline, speed, whereabouts
from resizeflow.commands.console import Console
from resizeflow.commands.news import News
from resizeflow.states import JobState

MARKS = {
    TaskProgress.TO_DO: Text("·", style="dim"),
    TaskProgress.DONE: Text("✔", style="green"),
    TaskProgress.FAILED: Text("✘", style="red"),
    TaskProgress.UNDONE: Text("↩", style="yellow"),
}
NOTES = 3
"""How many of the latest notes are shown."""
TOLD = frozenset(
    {"note", "waiting", "unknown", "retry", "failure", "debt", "fence", "command", "pivot", "attention", "stopped"}
)
"""Kinds of events that are shown as notes; tasks have their own lines, effects are in the history."""
SHOW_CURSOR = b"\x1b[?25h\n"


class LiveDisplay:
    """Draws the board a few times a second, in a thread of rich's."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Board()
        self._news: News | None = None
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)
        self._live.start()

    def update(self, news: News) -> None:
        """Takes what is new."""
        self._board.take(news)
        self._notes.extend(
            f"{event.at.astimezone():%H:%M:%S} {event.text}" for event in news.events if event.kind in TOLD
        )
        self._news = news

    def say(self, sentence: str) -> None:
        """A sentence above the list, which stays."""
        self._console.print(Text(sentence))

    def close(self) -> None:
        """Leaves the list as it is now on the screen."""
        self._live.stop()

    @staticmethod
    def abandon() -> None:
        """Gives the cursor back; for a process that is about to end at once."""
        with contextlib.suppress(OSError):
            os.write(1, SHOW_CURSOR)

    def _render(self) -> RenderableType:
        news = self._news
        whole = Table.grid(padding=(0, 0))
        if news is None:
            return whole
        whole.add_row(Text(headline(news), style="bold"))
        whole.add_row(Text(whereabouts(news), style="dim"))
        lines = Table.grid(padding=(0, 1))
        now = datetime.now(UTC)
        running = news.job.state is JobState.RUNNING
        for line in list(self._board.lines.values()):
            lines.add_row(*self._row(news, line, now, running))
        whole.add_row(lines)
        for note in self._notes:
            whole.add_row(Text(note, style="dim", overflow="ellipsis", no_wrap=True))
        return whole

    def _row(self, news: News, line: TaskLine, now: datetime, running: bool) -> tuple[RenderableType, ...]:
        busy = line.progress in (TaskProgress.STARTED, TaskProgress.UNDOING)
        mark: RenderableType = self._spinner if busy and running else MARKS.get(line.progress, Text("…"))
        name = Text(line.name, style="dim" if line.progress is TaskProgress.TO_DO else "")
        seconds = line.seconds(now) if not busy or running else None
        elapsed = Text(f"{seconds:.1f} s" if seconds is not None else "", style="dim", justify="right")
        return mark, name, elapsed, self._remark(news, line)

    def _remark(self, news: News, line: TaskLine) -> RenderableType:
        now = self._board.pace(news)
        if line.name == "TransferDisks" and line.progress is TaskProgress.STARTED and now is not None:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                ProgressBar(total=now.total, completed=now.done, width=10),
                Text(speed(now), no_wrap=True, overflow="ellipsis"),
            )
            return bar
        if line.progress in (TaskProgress.UNDOING, TaskProgress.UNDONE, TaskProgress.FAILED):
            return Text(str(line.progress), style="yellow")
        return Text("")
