"""Which of a migration's disks a step is about.

A disk that moves has a file on both sides. Swap space moves no content: a machine that gets some has it at the
destination alone (`source_volume` is empty), one that loses it at the source alone (`dest_volume` is None).
"""

from __future__ import annotations

from resizeflow.persistence.models import Migration, MovedDisk


def with_content(migration: Migration) -> list[MovedDisk]:
    """Those whose content goes along: all but swap space."""
    return [disk for disk in migration.disks if disk.role != "swap"]


def no_disks(migration: Migration) -> str | None:
    """Says so of a machine that has volumes only."""
    return None if migration.disks else f"{migration.instance_name} has no disks of its own"


def at_source(migration: Migration) -> list[MovedDisk]:
    """Those that the machine had where it came from."""
    return [disk for disk in migration.disks if disk.source_volume]


def at_destination(migration: Migration) -> list[MovedDisk]:
    """Those that it has where it goes."""
    return [disk for disk in migration.disks if disk.dest_volume]


def outdated(migration: Migration) -> list[MovedDisk]:
    """Those at the source that a confirmed machine does not use any more: on the same host only its old swap space,
    because the others are under its new ones."""
    return [disk for disk in at_source(migration) if disk.role == "swap" or not migration.same_host]
