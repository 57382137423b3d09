"""The managed machines, with what they have."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from resizeflow.persistence.models.columns import Base, Word, identity
from resizeflow.persistence.models.inventory import Flavor, Host
from resizeflow.states import TaskState, VmState


class Instance(Base):
    """A managed machine; its id is its libvirt domain's UUID."""

    __tablename__ = "instances"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(255), unique=True)
    project_id: Mapped[str] = mapped_column(sa.String(255), index=True)
    host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"), index=True)
    flavor_id: Mapped[str] = mapped_column(sa.ForeignKey("flavors.id"))
    vm_state: Mapped[VmState] = mapped_column(Word(VmState))
    task_state: Mapped[TaskState | None] = mapped_column(Word(TaskState))
    locked: Mapped[bool] = mapped_column(default=False)
    shutdown_timeout: Mapped[float | None]
    """Seconds this guest gets to shut down cleanly, where it is not the setting's."""
    availability_zone: Mapped[str | None] = mapped_column(sa.String(255))
    """The zone that it is to stay in; None: any."""
    group_name: Mapped[str | None] = mapped_column(sa.ForeignKey("server_groups.name"), index=True)
    volume_backed: Mapped[bool] = mapped_column(default=False)
    """It boots from a Cinder volume: its flavor's root disk is no disk of a host's."""
    launched_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    flavor: Mapped[Flavor] = relationship(lazy="joined")
    host: Mapped[Host] = relationship(lazy="joined")
    disks: Mapped[list[Disk]] = relationship(order_by="Disk.device", cascade="all, delete-orphan")
    volumes: Mapped[list[Volume]] = relationship(order_by="Volume.device", cascade="all, delete-orphan")
    ports: Mapped[list[Port]] = relationship(order_by="Port.id", cascade="all, delete-orphan")

    @property
    def port_ids(self) -> list[str]:
        """Of its ports those that Neutron has, by Neutron's ids."""
        return [port.port_id for port in self.ports if port.port_id]


class Disk(Base):
    """A local disk that a machine has now: a file in its host's pool."""

    __tablename__ = "disks"
    id: Mapped[int] = identity()
    instance_id: Mapped[str] = mapped_column(sa.ForeignKey("instances.id"))
    device: Mapped[str] = mapped_column(sa.String(32))
    role: Mapped[str] = mapped_column(sa.String(16))
    """`root`, `ephemeral`, `swap`, or `config` (the config drive)."""
    volume: Mapped[str] = mapped_column(sa.String(255))
    path: Mapped[str] = mapped_column(sa.String(4096))
    format: Mapped[str] = mapped_column(sa.String(16))
    capacity: Mapped[int] = mapped_column(sa.BigInteger)
    __table_args__ = (sa.UniqueConstraint("instance_id", "device"),)


class Volume(Base):
    """A Cinder volume that a machine has, as it was seen last."""

    __tablename__ = "volumes"
    id: Mapped[int] = identity()
    instance_id: Mapped[str] = mapped_column(sa.ForeignKey("instances.id"))
    volume_id: Mapped[str] = mapped_column(sa.String(36))
    device: Mapped[str] = mapped_column(sa.String(32))
    size_gb: Mapped[int]
    attachment_id: Mapped[str] = mapped_column(sa.String(36))
    """Its attached attachment, on the machine's host."""
    __table_args__ = (sa.UniqueConstraint("instance_id", "volume_id"),)


class Port(Base):
    """A NIC of a machine: Neutron's, or plugged into a bridge of that name on whichever host it is."""

    __tablename__ = "ports"
    id: Mapped[int] = identity()
    instance_id: Mapped[str] = mapped_column(sa.ForeignKey("instances.id"))
    mac: Mapped[str] = mapped_column(sa.String(17))
    bridge: Mapped[str] = mapped_column(sa.String(64))
    """Of a port of Neutron's: into which it is plugged where it was seen last."""
    port_id: Mapped[str | None] = mapped_column(sa.String(36), index=True)
    """Neutron's id; None: Neutron does not know of it."""
    vlan: Mapped[int | None]
    """The VLAN that it is in, on bridges that know VLANs; None: whichever the bridge gives it, or Neutron."""
    bindings: Mapped[list[Binding]] = relationship(cascade="all, delete-orphan")

    __table_args__ = (sa.UniqueConstraint("instance_id", "mac"),)

    @property
    def own_vlan(self) -> int | None:
        """The VLAN that it has to be put into; None: it is in none, or Neutron puts it there."""
        return self.vlan if self.port_id is None else None


class Binding(Base):
    """A port's place on a host: one is active; during a move one more, inactive, is the migration's. Of a port of
    Neutron's it is the record of what Neutron was made to have."""

    __tablename__ = "port_bindings"
    id: Mapped[int] = identity()
    port_id: Mapped[int] = mapped_column(sa.ForeignKey("ports.id"))
    host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"), index=True)
    active: Mapped[bool]
    migration_id: Mapped[str | None] = mapped_column(sa.String(36))
    __table_args__ = (
        sa.UniqueConstraint("port_id", "host_id"),
        sa.Index(
            "uq_port_bindings_active",
            "port_id",
            unique=True,
            sqlite_where=sa.text("active"),
            postgresql_where=sa.text("active"),
        ),
    )
