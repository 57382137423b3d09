"""How a demo tells its story: what an operator types, what they see, and a check of every claim made about it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.lab import Lab
from lab.system import LabError

LAB = "rf-demo"
GUEST = "web-1"
GIB = 2**30
CONFIG = """\
# The copy is slowed down so that there is time to kill the worker in the middle of it, and a worker that
# is silent for 20 seconds counts as gone (libvirtd here drops silent clients after 4).
[DEFAULT]
state_path = {state}
bandwidth = 64

[worker]
lease_seconds = 20
act_timeout = 8
fence_window = 4
"""
SHOW_CURSOR = "\033[?25h"


class ClaimError(Exception):
    """Something that the demo was about to say is not true."""


class Story:
    """Tells, types and checks."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.checked = 0
        self._terminal = sys.stdout.isatty()

    def chapter(self, title: str, text: str) -> None:
        """A heading and what the reader should know."""
        seconds = f"[{time.monotonic() - self.began:.0f} s]"
        print(f"\n{self._bold(f'== {title}')}  {seconds}\n\n{textwrap.fill(text, 100)}\n", flush=True)

    def check(self, claim: str, truth: object) -> None:
        """Prints a claim that is true; one that is not ends the demo."""
        if not truth:
            raise ClaimError(f"not true: {claim}")
        self.checked += 1
        print(f"  [checked] {claim}", flush=True)

    def type(self, *words: str, code: int = 0, environment: Mapping[str, str] | None = None) -> None:
        """Types a command, shows what it prints, and insists on its exit code."""
        given = environment or {}
        self._show(words, given)
        ended = subprocess.run(["resizeflow", *words], check=False, env={**os.environ, **given}).returncode
        print(flush=True)
        if ended != code:
            raise ClaimError(f"`resizeflow {' '.join(words)}` ended with exit code {ended} instead of {code}")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Types a command and goes on while it runs."""
        self._show(words, {})
        return subprocess.Popen(["resizeflow", *words])

    def show_cursor(self) -> None:
        """A killed program cannot give the terminal its cursor back."""
        if self._terminal:
            print(f"{SHOW_CURSOR}\n", flush=True)

    def _show(self, words: tuple[str, ...], environment: Mapping[str, str]) -> None:
        given = "".join(f"{name}='{value}' " for name, value in environment.items())
        print(self._bold(f"$ {given}resizeflow {' '.join(words)}"), flush=True)

    def _bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self._terminal else text


def ask(*words: str) -> Any:
    """What a command answers as JSON; not shown."""
    answer = subprocess.run(["resizeflow", *words, "-f", "json"], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def columns(*names: str) -> list[str]:
    """The options that show these columns only."""
    return [word for name in names for word in ("-c", name)]


@contextmanager
def stage() -> Iterator[Lab]:
    """An empty lab, a state directory and a configuration; all of it gone in the end."""
    lab = Lab(LAB)
    lab.down()
    state = Path(tempfile.mkdtemp(prefix="resizeflow-demo-"))
    try:
        config = state / "resizeflow.conf"
        config.write_text(CONFIG.format(state=state))
        os.environ["RESIZEFLOW_CONFIG"] = str(config)
        yield lab
    finally:
        # A second Ctrl-C must not leave hosts behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        lab.down()
        shutil.rmtree(state)


def nothing_done_twice(story: Story, log: list[dict[str, Any]]) -> None:
    """Of two workers that had a migration one after the other, by its log."""
    earlier = {line["task"] for line in log if line["epoch"] == 1 and line["text"].endswith(" done")}
    later = {line["task"] for line in log if line["epoch"] == 2 and line["text"].endswith(" done")}
    story.check(
        f"nothing that was done was done again ({len(earlier)} tasks before, {len(later)} after)", not earlier & later
    )


def run(tell: Callable[[Story, Lab], None]) -> int:
    """Tells a story on a stage of its own; 0 only if all was as told."""
    story = Story()
    try:
        with stage() as lab:
            tell(story, lab)
            story.chapter("Tear-down", "The hosts, the guest and the state directory are removed.")
        left = [*Lab(LAB).leftovers(), *Path(os.environ["RESIZEFLOW_CONFIG"]).parent.glob("*")]
        story.check("nothing of the demo is left on this machine", not left)
    except (ClaimError, LabError, subprocess.CalledProcessError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything was taken down.", file=sys.stderr)
        return 130
    print(f"\nAll {story.checked} claims were checked, in {time.monotonic() - story.began:.0f} s.")
    return 0
