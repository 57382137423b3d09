"""Cinder in one process: its API, its scheduler, and a volume service for each backend.

Run by the interpreter of Cinder's own virtual environment, in the network of a lab's switch:

    server.py --config-file FILE --machine PID PORT

The services find each other by oslo.messaging's in-process transport, so there is no broker. The API answers at the
lab's storage address, and on PORT of loopback in the network of the process PID: there the worker and the tests are.
"""

import ctypes
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cinder import monkey_patch  # type: ignore[import-not-found]

monkey_patch.patch()

import eventlet  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: E402
import os_brick  # type: ignore[import-not-found]  # noqa: E402
from cinder import coordination, i18n, objects, rpc, service, utils, version  # noqa: E402
from cinder.cmd import volume as volume_command  # type: ignore[import-not-found]  # noqa: E402
from cinder.common import config  # type: ignore[import-not-found]  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log  # noqa: E402
from oslo_privsep import priv_context  # type: ignore[import-not-found]  # noqa: E402
from oslo_service import wsgi  # noqa: E402

CLONE_NEWNET = 0x40000000
API = "osapi_volume"
CONF = cfg.CONF


def main() -> None:
    """Start everything; it ends when it is killed."""
    *arguments, _, machine, port = sys.argv[1:]
    with network_of(machine):
        loopback = listen(int(port))
    i18n.enable_lazy()
    objects.register_all()
    CONF(arguments, project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    log.setup(CONF, "cinder")
    utils.monkey_patch()
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    coordination.COORDINATOR.start()
    rpc.init(CONF)
    services = [service.Service.create(binary="cinder-scheduler")]
    for backend in CONF.enabled_backends:
        CONF.register_opt(volume_command.host_opt, group=backend)
        host = f"{CONF.host}@{backend}"
        services.append(
            service.Service.create(host=host, service_name=backend, binary="cinder-volume", coordination=True)
        )
    # The scheduler's start waits for what the others say when they start.
    for one in services:
        eventlet.spawn(one.start)
    at_switch = service.WSGIService(API)
    at_switch.start()
    on_machine = Server(loopback, at_switch.app)
    on_machine.start()
    while True:
        eventlet.sleep(3600)


class Server(wsgi.Server):
    """Serves the API on a socket that is there already."""

    def __init__(self, listening: socket.socket, app: object) -> None:
        self._listening = listening
        super().__init__(CONF, API, app)

    def _get_socket(self, *_: object) -> socket.socket:
        return self._listening


def listen(port: int) -> socket.socket:
    """A socket on loopback, in the network that this process is in now: it stays there."""
    listening: socket.socket = eventlet.listen(("127.0.0.1", port), backlog=128)
    return listening


@contextmanager
def network_of(process: str) -> Iterator[None]:
    """Be in another process's network for a moment."""
    with Path("/proc/self/ns/net").open() as own, Path("/proc", process, "ns/net").open() as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
