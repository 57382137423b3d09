"""Who asks: the user of this process and the machine it runs on, for the event log."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

LOGIN_UID = Path("/proc/self/loginuid")
"""Who logged in, as the kernel knows since then: neither sudo nor su changes it (pam_loginuid(8))."""
NOBODY_LOGGED_IN = 2**32 - 1
"""What it says of a service's process."""


@dataclass(frozen=True)
class Actor:
    """A user on a machine."""

    user: str
    host: str

    @classmethod
    def here(cls) -> Actor:
        """This process's: who logged in; where nobody did who called sudo, since `root` would say nothing; else the
        process's user. Not $USER, in which anybody may write anybody."""
        login = _login_uid()
        user = os.environ.get("SUDO_USER") if login is None else None
        return cls(user or _name(os.getuid() if login is None else login), socket.gethostname())


def _login_uid() -> int | None:
    try:
        uid = int(LOGIN_UID.read_text())
    except (OSError, ValueError):  # a kernel without audit
        return None
    return None if uid == NOBODY_LOGGED_IN else uid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user may have no name
        return str(uid)
