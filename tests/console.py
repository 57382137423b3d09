"""What an operator types, in this process, and what comes of it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resizeflow import cli, runbook
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.models import Base

PAGES = runbook.pages()


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refused(self, code: int, *words: str) -> None:
        """One clear sentence, and where to read what to do; the documented exit code, no traceback."""
        assert self.code == code, self
        said = re.fullmatch(r"resizeflow: \S[^\n]*\n  What to do: resizeflow runbook (\S+)\n", self.err)
        assert said, self.err
        assert said[1] in PAGES, self.err
        assert "Traceback" not in self.out + self.err
        assert all(word in self.err for word in words), self.err


class Console:
    """Types commands with a configuration file."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def type(self, *words: str) -> Answer:
        """Runs a command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with _process_kept(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(["--config-file", str(self.config), *words])
        return Answer(code, out.getvalue(), err.getvalue())

    def ask(self, *words: str) -> Any:
        """What a command answers as JSON."""
        answer = self.type(*words, "-f", "json")
        assert answer.code == 0, answer
        return answer.json

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "resizeflow.cli", "--config-file", str(self.config), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """The command line sets logging and signals up for a process of its own."""
    handlers_before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = [logging.getLogger(), logging.getLogger("resizeflow")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    hook = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers = handlers
        for number, handler in handlers_before.items():
            signal.signal(number, handler)


def everything(cloud: Cloud) -> dict[str, Any]:
    """Every row of every table, to be compared: nothing was changed."""
    with cloud.database.read() as tx:
        return {
            table.name: sorted(map(repr, tx.session.execute(sa.select(table)).all()))
            for table in Base.metadata.sorted_tables
        }
