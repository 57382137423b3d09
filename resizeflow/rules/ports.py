"""What a request about a machine with ports of Neutron's must satisfy, by a look at them (resizeflow/ports.py).

Nova finds both after it said yes, with the machine off: it is in ERROR then.
"""

from __future__ import annotations

from collections.abc import Callable

from resizeflow.errors import NeutronConnectionFailed
from resizeflow.rules.request import Request


def neutron_answers(request: Request) -> None:
    """NeutronConnectionFailed, 409. Without NICs, or without a Neutron, there is nothing to ask."""
    if request.neutron_away is not None:
        raise NeutronConnectionFailed(f"{request.cannot}: it has NICs, and {request.neutron_away.rstrip('.')}.")


def ports_movable(request: Request) -> None:
    """InvalidPort, 400: each is bound to the machine's host, and plugged in by libvirt alone."""
    if request.bad_port is not None:
        raise request.bad_port


PORTS: tuple[Callable[[Request], None], ...] = (neutron_answers, ports_movable)
