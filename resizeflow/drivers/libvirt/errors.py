"""libvirt's errors turned into the driver's: the one place that knows libvirt's codes."""

from __future__ import annotations

import libvirt

from resizeflow.drivers.interface import DriverError, Exists, Missing, Refused, Unknown

_MISSING = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_NO_STORAGE_VOL})
_EXISTS = frozenset({libvirt.VIR_ERR_STORAGE_VOL_EXIST, libvirt.VIR_ERR_DOM_EXIST, libvirt.VIR_ERR_BLOCK_COPY_ACTIVE})


def reason(error: libvirt.libvirtError) -> str:
    """libvirt's own words, without a full stop."""
    return " ".join(str(error.get_error_message() or error).split()).rstrip(".")


def translated(error: libvirt.libvirtError, host: str, doing: str, *, alive: bool, begun: bool) -> DriverError:
    """The driver's error for one of libvirt's.

    `doing` completes "could not"; `alive` is whether the connection still was after the error; `begun` is
    whether something long had begun. A connection that broke during a call leaves its effect unknown. An answer
    means that libvirt refused, with nothing changed, unless something long failed half-way.
    """
    if not alive:
        return Unknown(f"{host}: the connection broke while asked to {doing}: {reason(error)}.")
    code = error.get_error_code()
    kind = Missing if code in _MISSING else Exists if code in _EXISTS else DriverError if begun else Refused
    return kind(f"{host} could not {doing}: {reason(error)}.")
