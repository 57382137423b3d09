"""Progress where there is no terminal: one line per event, no colours, nothing is written over."""

from __future__ import annotations

from typing import TextIO

from resizeflow.commands.board import Board, headline, speed
from resizeflow.commands.news import News
from resizeflow.persistence.models import Event

BOOKKEEPING = frozenset({"quota", "allocation", "flow"})
"""Kinds of lines that are left to the history."""


class PlainDisplay:
    """Writes time, task and text."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._board: Board | None = None

    def update(self, news: News) -> None:
        """Tells what is new."""
        if self._board is None:
            self._begin(news)
        else:
            self._board.take(news)
            for event in news.events:
                self._line(event)
            self._speed(news)

    def say(self, sentence: str) -> None:
        """A sentence of the program's own."""
        self._out.write(f"{sentence}\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is left open."""

    def _begin(self, news: News) -> None:
        self._board = Board()
        self._board.take(news)
        self.say(headline(news))
        if self._board.done:
            # Taken up again: what was told then is in the history.
            self.say(f"done before: {', '.join(self._board.done)}")
        else:
            for event in news.events:
                self._line(event)

    def _speed(self, news: News) -> None:
        """With each tenth of a transfer, how it goes."""
        board, copies = self._board, [event for event in news.events if event.kind == "transfer"]
        if board is not None and copies and (pace := board.pace(news)) is not None and pace.seconds_left:
            self.say(f"{'':<10}{'':<24} {speed(pace)}")

    def _line(self, event: Event) -> None:
        if event.kind in BOOKKEEPING:
            return
        text = event.text.removeprefix(f"{event.task} ") if event.kind == "task" else event.text
        who = event.task or event.kind
        self.say(f"{event.at.astimezone():%H:%M:%S}  {who:<24} {text}")
