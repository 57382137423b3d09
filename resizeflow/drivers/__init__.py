"""Drivers: the edges to the world. Only `resizeflow.gate` may use what `connect` returns."""

from __future__ import annotations

from resizeflow.drivers.interface import Connection


def connect(uri: str) -> Connection:
    """A connection to what is behind a URI, not yet open: `sim:///FILE?host=NAME` is the simulator's, `cinder://FILE`
    the Cinder of a configuration, `shell:WORDS` a host's shell, all others are hosts."""
    uri = uri.removeprefix("shell:") if uri.startswith("shell:sim:") else uri
    if uri.startswith("sim:"):
        from resizeflow.drivers.simulator import SimulatedConnection  # noqa: PLC0415 - not needed on real hosts

        return SimulatedConnection(uri)
    if uri.startswith("cinder:"):
        from resizeflow.drivers.cinder.connection import CinderConnection  # noqa: PLC0415 - slow to import

        return CinderConnection(uri)
    if uri.startswith("shell:"):
        from resizeflow.drivers.shell.connection import ShellConnection  # noqa: PLC0415 - for VLANs only

        return ShellConnection(uri.removeprefix("shell:"))
    from resizeflow.drivers.libvirt.client import LibvirtConnection  # noqa: PLC0415 - slow to import

    return LibvirtConnection(uri)
