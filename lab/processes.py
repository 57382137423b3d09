"""Finding and ending a lab's processes: by the namespaces they live in, not by what they are called."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from lab.paths import NETNS_DIRECTORY, ROOT, LabPaths
from lab.system import wait_until

PROC = Path("/proc")


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet collected does not."""
    return _state(pid) not in {None, "Z", "X"}


def stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal."""
    return _state(pid) == "T"


def lab_processes(paths: LabPaths, host: str | None = None) -> list[int]:
    """The processes of a host, or of the whole lab with its switch.

    A process belongs to it if it is in one of its network namespaces, or if its mount namespace has the
    host's own directory as /run/libvirt. Either is enough: one is found when the other is already gone.
    """
    inodes = _netns_identities(paths, host)
    own = os.getpid()
    return [pid for pid in _pids() if pid != own and _belongs(pid, inodes, paths, host)]


def belongs(pid: int, paths: LabPaths, host: str) -> bool:
    """Whether one process is a host's, by the same rule."""
    return _belongs(pid, _netns_identities(paths, host), paths, host)


def kill_lab_processes(paths: LabPaths, host: str | None = None) -> list[int]:
    """SIGKILL them all, again until none is left (a dying daemon may have started one more).

    Returns those that could not be killed.
    """

    def none_left() -> bool:
        left = lab_processes(paths, host)
        for pid in left:
            send_signal(pid, signal.SIGKILL)
        return not left

    return [] if wait_until(none_left, timeout=60) else lab_processes(paths, host)


def processes_named(pids: list[int], prefix: str) -> list[int]:
    """Those of the processes whose program is called so."""
    found = []
    for pid in pids:
        try:
            name = (PROC / str(pid) / "exe").readlink().name
        except OSError:
            continue
        if name.startswith(prefix):
            found.append(pid)
    return found


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone by now."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _netns_identities(paths: LabPaths, host: str | None) -> set[tuple[int, int]]:
    names = paths.netns_names() if host is None else [paths.netns(host)]
    return {identity for name in names if (identity := _identity(NETNS_DIRECTORY / name))}


def _belongs(pid: int, inodes: set[tuple[int, int]], paths: LabPaths, host: str | None) -> bool:
    if not alive(pid):
        return False
    return _identity(PROC / str(pid) / "ns/net") in inodes or _mounts_of(pid, paths, host)


def _pids() -> Iterator[int]:
    return (int(path.name) for path in PROC.iterdir() if path.name.isdigit())


def _identity(namespace: Path) -> tuple[int, int] | None:
    """What makes a namespace itself: the device and inode behind its file."""
    try:
        status = namespace.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _mounts_of(pid: int, paths: LabPaths, host: str | None) -> bool:
    """Whether the process sees a host's own run directory as /run/libvirt."""
    try:
        mounts = (PROC / str(pid) / "mountinfo").read_text()
    except OSError:
        return False
    for line in mounts.splitlines():
        fields = line.split()
        if fields[4] == "/run/libvirt":
            # The path is the one on the directory's own file system, which may be mounted anywhere: only its
            # end is certain.
            tail = Path(fields[3]).parts[-4:]
            if tail[:2] == (ROOT.name, paths.name) and tail[3:] == ("run",):
                return host is None or tail[2] == host
    return False


def _state(pid: int) -> str | None:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
