"""A port on loopback for a server of its own."""

import contextlib
import secrets
import socket

ADDRESS = "127.0.0.1"
PORTS = range(20000, 32768)


def free_port() -> int:
    """Below those that the kernel gives to clients, so that it is still free after a while without the server."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((ADDRESS, port))
            return port
