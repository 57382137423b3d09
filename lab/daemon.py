"""A server of the lab that outlives the command which started it: found again by its number and its network."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.paths import SWITCH, LabPaths
from lab.processes import alive, belongs, send_signal
from lab.system import LabError, run, wait_until

# The number is written by the process that becomes the server, before it does anything else. The starter's answer is
# read until nobody holds it any more: by then the server has its own output.
START = 'exec setsid --fork sh -c \'echo $$ >"$0.pid"; exec "$@" >>"$0.log" 2>&1 </dev/null\' "$@"'


class Daemon:
    """A server at the lab's switch. `Lab.down` finds it by its network, whatever became of its files."""

    def __init__(
        self,
        paths: LabPaths,
        folder: Path,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.paths = paths
        self.folder = folder
        self.name = name
        self.command = command
        self._environment = [f"{key}={value}" for key, value in (environment or {}).items()]

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / f"{self.name}.log"

    def pid(self) -> int | None:
        """The process, or None if it does not run."""
        try:
            pid = int((self.folder / f"{self.name}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if belongs(pid, self.paths, SWITCH) else None

    def start(self) -> None:
        """Start it; one that is stopped goes on. Returns before it answers."""
        if self.pid() is not None:
            self.thaw()
            return
        enter = ["ip", "netns", "exec", self.paths.switch_netns, "env", *self._environment]
        run([*enter, "sh", "-c", START, "sh", str(self.folder / self.name), *self.command])

    def stop(self, timeout: float = 15) -> None:
        """Ask it to end (SIGTERM); one that does not within the time is killed."""
        if (pid := self.pid()) is None:
            return
        send_signal(pid, signal.SIGTERM)
        send_signal(pid, signal.SIGCONT)
        if not wait_until(lambda: not alive(pid), timeout):
            self.kill()

    def kill(self) -> None:
        """SIGKILL: an end like a crash."""
        if (pid := self.pid()) is None:
            return
        send_signal(pid, signal.SIGKILL)
        if not wait_until(lambda: not alive(pid), timeout=60):
            raise LabError(f"{self.name} of lab '{self.paths.name}' (process {pid}) does not die")

    def freeze(self) -> None:
        """SIGSTOP: it takes connections and never answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def last_words(self) -> str:
        """The end of what it printed."""
        try:
            return self.log.read_text(errors="replace")[-1500:].strip() or "it said nothing"
        except FileNotFoundError:
            return "it said nothing"

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid()) is None:
            raise LabError(f"{self.name} of lab '{self.paths.name}' does not run")
        send_signal(pid, number)
