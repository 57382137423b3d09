"""A fleet of real libvirt hosts on one Linux machine, for tests, demonstrations and measurements."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.guest import DiskSpec, Guest, VolumeSpec
    from lab.host import Host
    from lab.lab import Lab
    from lab.system import LabError
    from lab.volumes import Volumes

__all__ = ["DiskSpec", "Guest", "Host", "Lab", "LabError", "VolumeSpec", "Volumes"]


# The stand-ins for iproute2's commands are programs of this package that are started for every word that is said to a
# bridge: they load nothing else of it.
_MODULES = {
    "DiskSpec": "guest",
    "Guest": "guest",
    "Host": "host",
    "Lab": "lab",
    "LabError": "system",
    "VolumeSpec": "guest",
    "Volumes": "volumes",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
