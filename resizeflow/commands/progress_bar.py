"""How far something is that takes long, for who waits for it on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 0.1
"""Seconds between two steps of a bar: a step costs more than much of what is counted."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error that is told how much more is done, and is gone at the end; nothing where that is no
    terminal."""
    if not sys.stderr.isatty():
        yield lambda _more: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from resizeflow.commands.console import Console  # noqa: PLC0415 - rich is not needed for help

    shown = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*shown, console=Console(sys.stderr), transient=True) as bar:
        task, done, moved = bar.add_task(what, total=total), 0, 0.0

        def add(more: int) -> None:
            nonlocal done, moved
            done += more
            if (now := time.monotonic()) - moved >= EVERY:
                bar.update(task, completed=done)
                moved = now

        yield add
