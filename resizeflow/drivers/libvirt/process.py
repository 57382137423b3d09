"""The worker's end of a child process: started, spoken to, and killed at a deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

from resizeflow.drivers.libvirt.wire import Channel

_MODULE = "resizeflow.drivers.libvirt.child"
_LAST_WORDS = 4096


class ChildProcess:
    """A child that serves one connection. It ends by itself when this process does."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._stderr = os.memfd_create("stderr")
        self._ending = threading.Lock()
        self._words: str | None = None
        # A session of its own: Ctrl-C at the worker is the worker's to handle, and ssh finds no terminal to
        # ask for a password. The modules are the worker's own, wherever its current directory is.
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        self.channel = Channel(ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def end(self) -> None:
        """Ends it, with whatever it started (ssh). Any thread may: the one that waits for it hears of it."""
        with self._ending:  # not after it has been reaped, when its id may be another's
            if self._words is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> str:
        """Ends and forgets it, and returns the last line it printed. For the thread whose turn it is."""
        self.end()
        with self._ending:
            if self._words is None:
                self._process.wait()
                self.channel.close()
                self._words = self._last_words()
            return self._words

    def _last_words(self) -> str:
        end = os.lseek(self._stderr, 0, os.SEEK_END)
        text = os.pread(self._stderr, _LAST_WORDS, max(0, end - _LAST_WORDS))
        os.close(self._stderr)
        lines = text.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
