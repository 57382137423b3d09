"""What there is to run machines on, and in which sizes; and what of it is taken."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from resizeflow.persistence.models.columns import Base, identity


class Flavor(Base):
    """A size. Immutable; a deleted one stays for the machines that have it."""

    __tablename__ = "flavors"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    vcpus: Mapped[int]
    memory_mb: Mapped[int]
    root_gb: Mapped[int]
    ephemeral_gb: Mapped[int] = mapped_column(default=0)
    swap_mb: Mapped[int] = mapped_column(default=0)
    extra_specs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What a host must be like: `trait:NAME` = required or forbidden, `aggregate:PROPERTY` = a value."""
    is_public: Mapped[bool] = mapped_column(default=True)
    """A private one is only for the projects it is granted to."""
    disabled: Mapped[bool] = mapped_column(default=False)
    deleted: Mapped[bool] = mapped_column(default=False)
    access: Mapped[list[FlavorAccess]] = relationship(cascade="all, delete-orphan")
    __table_args__ = (
        sa.Index(
            "uq_flavors_name",
            "name",
            unique=True,
            sqlite_where=sa.text("NOT deleted"),
            postgresql_where=sa.text("NOT deleted"),
        ),
    )

    def local_gb(self, *, volume_backed: bool) -> int:
        """What a machine of it takes of its host's disk, GiB (Nova's DISK_GB: swap in whole GiB). One that boots from a
        volume has its root disk in Cinder, of whatever size."""
        root_gb = 0 if volume_backed else self.root_gb
        return root_gb + self.ephemeral_gb + math.ceil(self.swap_mb / 1024)


class FlavorAccess(Base):
    """A project that a private flavor is granted to."""

    __tablename__ = "flavor_access"
    flavor_id: Mapped[str] = mapped_column(sa.ForeignKey("flavors.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)


class Host(Base):
    """A libvirt host, identified by libvirt's host UUID, with its inventory and what is allocated of it."""

    __tablename__ = "hosts"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(255), unique=True)
    uri: Mapped[str] = mapped_column(sa.String(1024))
    peer_uri: Mapped[str | None] = mapped_column(sa.String(1024))
    data_uri: Mapped[str | None] = mapped_column(sa.String(1024))
    pool: Mapped[str] = mapped_column(sa.String(255))
    shell: Mapped[str | None] = mapped_column(sa.String(1024))
    """How commands are run there, for VLANs: words before a command, such as `ssh root@HOST`."""
    enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str | None] = mapped_column(sa.Text)
    fenced_at: Mapped[datetime | None]
    removed: Mapped[bool] = mapped_column(default=False)
    """No longer managed; kept for the migrations of the past."""
    max_moves: Mapped[int] = mapped_column(default=2)
    vcpus: Mapped[int]
    memory_mb: Mapped[int]
    disk_gb: Mapped[int]
    reserved_memory_mb: Mapped[int] = mapped_column(default=512)
    cpu_ratio: Mapped[float] = mapped_column(default=4.0)
    ram_ratio: Mapped[float] = mapped_column(default=1.0)
    disk_ratio: Mapped[float] = mapped_column(default=1.0)
    traits: Mapped[list[Any]] = mapped_column(default=list)
    """What it has, by names that flavors ask for (`CUSTOM_SSD`)."""
    used_vcpus: Mapped[int] = mapped_column(default=0)
    used_memory_mb: Mapped[int] = mapped_column(default=0)
    used_disk_gb: Mapped[int] = mapped_column(default=0)


class Aggregate(Base):
    """Hosts with properties in common; the property `availability_zone` is the zone that they are in (Nova)."""

    __tablename__ = "aggregates"
    name: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    properties: Mapped[dict[str, Any]] = mapped_column(default=dict)
    members: Mapped[list[AggregateHost]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class AggregateHost(Base):
    """A host of an aggregate."""

    __tablename__ = "aggregate_hosts"
    aggregate: Mapped[str] = mapped_column(sa.ForeignKey("aggregates.name"), primary_key=True)
    host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"), primary_key=True, index=True)


class ServerGroup(Base):
    """Machines that are to be on one host (`affinity`) or on different ones (`anti-affinity`)."""

    __tablename__ = "server_groups"
    name: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    project_id: Mapped[str] = mapped_column(sa.String(255))
    policy: Mapped[str] = mapped_column(sa.String(32))


class Allocation(Base):
    """Resources held on a host by an instance, by a migration (the other side of a move) or by a debt."""

    __tablename__ = "allocations"
    id: Mapped[int] = identity()
    host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"), index=True)
    consumer: Mapped[str] = mapped_column(sa.String(64))
    """`instance:<id>`, `migration:<id>` or `debt:<migration id>`."""
    vcpus: Mapped[int]
    memory_mb: Mapped[int]
    disk_gb: Mapped[int]
    __table_args__ = (sa.UniqueConstraint("consumer", "host_id"),)
