"""Who asks: the user of this process and the machine it runs on, for the event log."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Actor:
    """A user on a machine."""

    user: str
    host: str

    @classmethod
    def here(cls) -> Actor:
        """This process's; under sudo the user who called it, since `root` would say nothing."""
        return cls(os.environ.get("SUDO_USER") or _user(), socket.gethostname())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())
