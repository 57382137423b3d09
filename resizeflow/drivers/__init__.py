"""Drivers: the edges to the world. Only `resizeflow.looks` and `resizeflow.gate` use what `connect` returns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resizeflow.drivers.interface import Connection

if TYPE_CHECKING:
    from resizeflow.drivers.openstack.product import Product


def connect(uri: str) -> Connection:
    """A connection to what is behind a URI, not yet open: `sim:///FILE?host=NAME` is the simulator's, `cinder://FILE`
    and `neutron://FILE` the services of a configuration, `shell:WORDS` a host's shell, all others are hosts."""
    if uri.startswith("sim:"):
        from resizeflow.drivers.simulator import SimulatedConnection  # noqa: PLC0415 - not needed on real hosts

        return SimulatedConnection(uri)
    if uri.startswith(("cinder:", "neutron:")):
        from resizeflow.drivers.openstack.connection import ServiceConnection  # noqa: PLC0415 - slow to import

        name, _, file = uri.partition("://")
        return ServiceConnection(_product(name), Path(file) if file else None)
    if uri.startswith("shell:"):
        from resizeflow.drivers.shell.connection import ShellConnection  # noqa: PLC0415 - for VLANs only

        return ShellConnection(uri.removeprefix("shell:"))
    from resizeflow.drivers.libvirt.client import LibvirtConnection  # noqa: PLC0415 - slow to import

    return LibvirtConnection(uri)


def _product(name: str) -> Product:
    if name == "cinder":
        from resizeflow.drivers.cinder.product import Cinder  # noqa: PLC0415 - slow to import

        return Cinder()
    from resizeflow.drivers.neutron.product import Neutron  # noqa: PLC0415 - slow to import

    return Neutron()
