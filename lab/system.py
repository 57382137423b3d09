"""Running the machine's own tools: every command has a deadline and dies with the lab that started it."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Root's tools are not on everybody's path.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class LabError(Exception):
    """Trouble that the person at the keyboard can understand from one sentence."""


# The kernel kills what starts so if the lab's own process dies first. Of a program that starts others only
# the second form ends all: they share a PID namespace, which ends with its first process.
TIED = ("setpriv", "--pdeathsig", "KILL")
TIED_FAMILY = (*TIED, "unshare", "--pid", "--fork", "--kill-child=KILL")


def run(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, tie: Sequence[str] = TIED) -> str:
    """Run a command to its end and return what it printed; a killed `up` has no children that go on."""
    command = [*tie, *argv]
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
            env=environment,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"'{' '.join(argv[:6])}' did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise LabError(f"'{' '.join(argv[:6])}' failed: {' '.join(line.strip() for line in said)}")
    return done.stdout


def require_root() -> None:
    """Namespaces, mounts and bridges need root: say so before anything is half built."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root, because it makes namespaces, mounts and bridges")


def require_programs(programs: dict[str, str]) -> None:
    """Check that programs (name → Debian package) are installed."""
    missing = sorted({package for name, package in programs.items() if shutil.which(name, path=_PATH) is None})
    if missing:
        raise LabError(f"missing Debian packages: apt-get install {' '.join(missing)}")


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.05) -> bool:
    """Poll until the condition holds; False when the time is up."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


@contextmanager
def locked(directory: Path, timeout: float = 180) -> Iterator[None]:
    """Hold the lock of a directory: one builder or remover at a time, over all labs.

    The lock is on the directory itself, so there is no lock file to leave behind, and the kernel drops it
    with its process.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not wait_until(lambda: _try_lock(descriptor), timeout):
            raise LabError(f"another lab command has been holding {directory} for {timeout:.0f} s")
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
