"""Progress for programs: a JSON object a line, each written as soon as it is known.

    {"job": {...}}         how the job stands; again whenever that has changed
    {"line": {...}}        a line of the log, with the columns of `audit log -f json`
    {"transfer": {...}}    bytes_done, bytes_total, rate (bytes a second), seconds_left; again with each change
    {"end": {...}}         the last one: what `resize -f json` shows of its job

What is said beside them is for people, on standard error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from cliff.columns import FormattableColumn

from resizeflow.commands.board import Board
from resizeflow.commands.event_row import row_of
from resizeflow.commands.news import News
from resizeflow.states import JobState


class JsonLines:
    """Writes what is new."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._board = Board()
        self._job: dict[str, Any] = {}
        self._bytes = (0, 0)

    def update(self, news: News) -> None:
        self._board.take(news)
        if (job := _job_of(news)) != self._job:
            self._job = job
            self.write("job", job)
        for event in news.events:
            self.write("line", row_of(event))
        self._tell_transfer(news)

    def say(self, sentence: str) -> None:
        self._err.write(f"{sentence}\n")
        self._err.flush()

    def close(self) -> None:
        """Nothing is left open."""

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """An object of one of the kinds."""
        self._out.write(json.dumps({kind: values}, default=FormattableColumn.machine_readable) + "\n")
        self._out.flush()

    def _tell_transfer(self, news: News) -> None:
        now, pace = (news.migration.bytes_done, news.migration.bytes_total), self._board.pace(news)
        if pace is None or now == self._bytes:
            return
        self._bytes = now
        told = {
            "bytes_done": pace.done,
            "bytes_total": pace.total,
            "rate": pace.rate,
            "seconds_left": pace.seconds_left,
        }
        self.write("transfer", told)


def _job_of(news: News) -> dict[str, Any]:
    job = news.job
    return {
        "migration": job.migration_id,
        "instance": news.migration.instance_name,
        "status": str(news.migration.status),
        "job": job.id,
        "flow": job.flow,
        "job_state": str(job.state),
        "direction": str(job.direction),
        "reason": job.reason,
        "worker": job.owner if job.state is JobState.RUNNING else None,
        "epoch": job.epoch,
        "attempts": job.attempts,
    }
