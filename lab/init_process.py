"""The init of a lab host's processes: starts the daemon, and collects at once whatever ends after it.

libvirt waits for a QEMU that it ends until somebody has collected it. An ordinary host's init does so at once, but the
first process of some containers looks only every other second. Each start of the daemon gets an init of its own, which
stays until the last process is gone that descends from it: a machine keeps its init when its daemon is killed and
another one is started.

Run as a program, inside the host's namespaces; it needs nothing but the interpreter.
"""

import contextlib
import ctypes
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Runs a command that makes a daemon of itself, and ends when it has, with its exit status."""
    started, tell = os.pipe()
    if os.fork() == 0:
        os.close(started)
        os.setsid()
        _init(sys.argv[1:], tell)
    os.close(tell)
    status = os.read(started, 1)
    sys.exit(status[0] if status else 1)


def _init(command: list[str], tell: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    starter = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, tell)])
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            os._exit(0)
        if pid == starter:
            with contextlib.suppress(BrokenPipeError):  # whoever wanted to know was killed
                os.write(tell, bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
            os.close(tell)
            _let_go()


def _let_go() -> None:
    """Whoever started us reads our output until nobody holds it any more."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.close(nothing)


if __name__ == "__main__":
    main()
