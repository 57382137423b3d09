"""Drivers: the edges to the world. Only `resizeflow.gate` may use what `connect` returns."""

from __future__ import annotations

from resizeflow.drivers.interface import Connection


def connect(uri: str) -> Connection:
    """A connection to what is behind a URI, not yet open: `sim:///FILE?host=NAME` is the simulator's, `cinder://FILE`
    the Cinder of a configuration, all others are hosts."""
    if uri.startswith("sim:"):
        from resizeflow.drivers.simulator import SimulatedConnection  # noqa: PLC0415 - not needed on real hosts

        return SimulatedConnection(uri)
    if uri.startswith("cinder:"):
        from resizeflow.drivers.cinder.connection import CinderConnection  # noqa: PLC0415 - slow to import

        return CinderConnection(uri)
    from resizeflow.drivers.libvirt.client import LibvirtConnection  # noqa: PLC0415 - slow to import

    return LibvirtConnection(uri)
