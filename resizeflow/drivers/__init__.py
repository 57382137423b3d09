"""Drivers: the edges to the world. Only `resizeflow.gate` may use what `connect` returns."""

from __future__ import annotations

from resizeflow.drivers.hypervisor import HostConnection


def connect(uri: str) -> HostConnection:
    """A connection to the host behind a URI, not yet open: `sim:///FILE?host=NAME` is the simulator's."""
    if uri.startswith("sim:"):
        from resizeflow.drivers.simulator import SimulatedConnection  # noqa: PLC0415 - not needed on real hosts

        return SimulatedConnection(uri)
    from resizeflow.drivers.libvirt.client import LibvirtConnection  # noqa: PLC0415 - slow to import

    return LibvirtConnection(uri)
