"""What becomes of a machine's disks under another flavor."""

from __future__ import annotations

from resizeflow.persistence.models import GIB, Flavor

MIB = 1024**2
CONFIG_DRIVE_BYTES = 64 * MIB
"""What a config drive has at most: Nova's on vfat (nova/virt/configdrive.py), those on ISO 9660 are smaller."""


def new_capacity(old: Flavor, new: Flavor, role: str, *, first_ephemeral: bool, actual: int) -> int:
    """Bytes a disk is to have under a new flavor: the root disk the flavor's size, the first ephemeral disk what the
    flavor has more, neither less than now, which `actual` tells; swap space the flavor's size, 0 is none."""
    if role == "root" and new.root_gb != old.root_gb:
        return max(actual, new.root_gb * GIB)
    if role == "ephemeral" and first_ephemeral:
        return actual + max(new.ephemeral_gb - old.ephemeral_gb, 0) * GIB
    if role == "swap" and new.swap_mb != old.swap_mb:
        return new.swap_mb * MIB
    return actual
