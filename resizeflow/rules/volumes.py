"""What a request about a machine with Cinder volumes must satisfy, by a look at them (resizeflow/volumes.py).

Nova finds both after it said yes, with the machine off: it is in ERROR then.
"""

from __future__ import annotations

from collections.abc import Callable

from resizeflow.errors import CinderConnectionFailed
from resizeflow.rules.request import Request


def cinder_answers(request: Request) -> None:
    """CinderConnectionFailed, 409. Without volumes there is nothing to ask."""
    if request.cinder_away is not None:
        raise CinderConnectionFailed(f"{request.cannot}: it has volumes, and {request.cinder_away.rstrip('.')}.")


def volumes_movable(request: Request) -> None:
    """InvalidVolume, 400: each is in use by this machine alone, once, by a connection that QEMU opens by itself."""
    if request.bad_volume is not None:
        raise request.bad_volume


VOLUMES: tuple[Callable[[Request], None], ...] = (cinder_answers, volumes_movable)
