"""One command on a host, with a deadline that really ends it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass

from resizeflow.drivers.interface import Fence, Refused, Unknown, Unreachable

TIED = ("setpriv", "--pdeathsig", "KILL")
"""It ends when its worker does, however that ends."""
NOT_THERE = (126, 127)
"""Exit codes of a shell whose command is not there, or cannot be run."""
BROKEN = 255
"""Of ssh that does not get through, or no longer; iproute2 has it for all that the kernel refuses."""
IPROUTE = ("RTNETLINK answers:", "Cannot find", "Error:", "Device ", "Invalid ")
"""What iproute2 says then begins with."""


def words_of(shell: str) -> list[str]:
    """A host's shell as words. Raises ValueError if there are none, or a quotation has no end."""
    words = shlex.split(shell)
    if not words:
        raise ValueError("no words")
    return words


@dataclass(frozen=True)
class Runner:
    """Runs the commands of one call, one after the other."""

    shell: tuple[str, ...]
    deadline: float
    """`time.monotonic` seconds."""
    fence: Fence | None = None

    def ask(self, *command: str) -> str:
        """What a command prints that changes nothing. Raises `Unreachable`, `Unknown`; `Refused` with what it said."""
        return self._run(command, acting=False)

    def act(self, *command: str) -> None:
        """A command that changes something. Raises as `ask`; a way that broke is `Unknown`, also where it never was."""
        if self.fence is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > self.fence.not_after:
            words = f"epoch {self.fence.epoch} of job {self.fence.job_id} may have ended"
            raise Refused(f"{self._place}: too late, {words}.")
        self._run(command, acting=True)

    @property
    def _place(self) -> str:
        return shlex.join(self.shell)

    def _run(self, command: tuple[str, ...], *, acting: bool) -> str:
        name = shlex.join(command)
        try:
            # A session of its own: ssh finds no terminal to ask for a password, and all it starts ends with it.
            process = subprocess.Popen(
                [*TIED, *self.shell, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            raise Unreachable(f"{self._place}: cannot be run: {error}.") from None
        try:
            printed, said = process.communicate(timeout=max(self.deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise Unknown(f"{self._place}: no answer to '{name}' in time.") from None
        finally:
            _end(process)
        if process.returncode == 0:
            return printed
        lines = said.strip().splitlines() or [f"exit code {process.returncode}"]
        text = f"{self._place}: '{name}': {lines[-1].strip().rstrip('.')}."
        if process.returncode in NOT_THERE:
            raise Unreachable(text)
        if process.returncode == BROKEN and not lines[-1].startswith(IPROUTE):
            raise (Unknown if acting else Unreachable)(text)
        if process.returncode < 0:
            raise Unknown(text)
        raise Refused(text)


def _end(process: subprocess.Popen[str]) -> None:
    """Kills it with all that it started, if it still runs, and lets its output go."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
