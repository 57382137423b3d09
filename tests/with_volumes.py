"""Machines with Cinder volumes, beside the one that a small cloud has."""

from __future__ import annotations

from collections.abc import Mapping

from resizeflow.chaos.cloud import Cloud


def add_volume(cloud: Cloud, uuid: str, device: str = "vdb", kind: str = "rbd", *, gib: int = 1) -> str:
    """A machine on h1 has one more volume; its id."""
    volume_id = cloud.world.create_cinder_volume(kind, gib)
    cloud.world.attach_volume("h1", uuid, volume_id, device)
    return volume_id


def booting_from_volume(cloud: Cloud, *, disks: Mapping[str, int] | None = None, running: bool = False) -> str:
    """The machine `db` on h1, not yet adopted, whose root disk is a volume of 20 GiB; its id. `disks` are its local
    ones, device → GiB."""
    root = cloud.world.create_cinder_volume("rbd", 20)
    return cloud.world.create_guest("h1", "db", 1, 512, disks or {}, running=running, volumes={"vda": root})
