"""Migrations, what they move, and what they had to leave behind."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from resizeflow.persistence.models.columns import Base, Word, identity
from resizeflow.persistence.models.inventory import Flavor, Host
from resizeflow.states import TERMINAL, MigrationStatus, VmState

_OPEN = "status NOT IN (" + ", ".join(f"'{word}'" for word in sorted(TERMINAL)) + ")"


class Migration(Base):
    """A resize or cold migration: the truth about hosts, flavors and how far it is."""

    __tablename__ = "migrations"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    instance_id: Mapped[str] = mapped_column(sa.String(36), index=True)
    instance_name: Mapped[str] = mapped_column(sa.String(255))
    project_id: Mapped[str] = mapped_column(sa.String(255))
    kind: Mapped[str] = mapped_column(sa.String(16))
    """`resize`, or `migration` (cold; the flavor stays)."""
    status: Mapped[MigrationStatus] = mapped_column(Word(MigrationStatus))
    source_host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"))
    dest_host_id: Mapped[str | None] = mapped_column(sa.ForeignKey("hosts.id"))
    requested_host_id: Mapped[str | None] = mapped_column(sa.String(36))
    old_flavor_id: Mapped[str] = mapped_column(sa.ForeignKey("flavors.id"))
    new_flavor_id: Mapped[str] = mapped_column(sa.ForeignKey("flavors.id"))
    old_vm_state: Mapped[VmState] = mapped_column(Word(VmState))
    volume_backed: Mapped[bool] = mapped_column(default=False)
    alternates: Mapped[list[Any]] = mapped_column(default=list)
    verdicts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Per host name, why it was not chosen, or that it was."""
    was_running: Mapped[bool | None]
    autostart: Mapped[bool | None]
    definition: Mapped[str | None] = mapped_column(sa.Text)
    """The source's inactive definition as captured, without secrets."""
    has_secrets: Mapped[bool] = mapped_column(default=False)
    source_off_at: Mapped[datetime | None]
    """Proof of off: when the source was read back retired and shut off."""
    dest_was_running: Mapped[bool | None]
    dest_off_at: Mapped[datetime | None]
    dest_definition: Mapped[str | None] = mapped_column(sa.Text)
    """The destination's inactive definition when its revert began, without secrets."""
    bytes_done: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    bytes_total: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    merge_begun_at: Mapped[datetime | None]
    """Once a merge has begun the old disks are no way back any more."""
    discard_writes: Mapped[bool] = mapped_column(default=False)
    error: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
    powered_off_at: Mapped[datetime | None]
    resumed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    source_host: Mapped[Host] = relationship(foreign_keys=[source_host_id], lazy="joined")
    dest_host: Mapped[Host | None] = relationship(foreign_keys=[dest_host_id], lazy="joined")
    old_flavor: Mapped[Flavor] = relationship(foreign_keys=[old_flavor_id], lazy="joined")
    new_flavor: Mapped[Flavor] = relationship(foreign_keys=[new_flavor_id], lazy="joined")
    disks: Mapped[list[MovedDisk]] = relationship(order_by="MovedDisk.device")
    volumes: Mapped[list[MovedVolume]] = relationship(order_by="MovedVolume.device")
    ports: Mapped[list[MovedPort]] = relationship(order_by="MovedPort.id")
    __table_args__ = (
        sa.Index(
            "uq_migrations_open",
            "instance_id",
            unique=True,
            sqlite_where=sa.text(_OPEN),
            postgresql_where=sa.text(_OPEN),
        ),
        sa.Index("ix_migrations_created_at", "created_at"),
    )

    @property
    def same_host(self) -> bool:
        """Whether the machine stays on its host, so that disks are overlaid instead of copied."""
        return self.source_host_id == self.dest_host_id


class MovedDisk(Base):
    """A disk of a migration: where it was (captured once) and where it goes."""

    __tablename__ = "migration_disks"
    id: Mapped[int] = identity()
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"))
    device: Mapped[str] = mapped_column(sa.String(32))
    role: Mapped[str] = mapped_column(sa.String(16))
    source_volume: Mapped[str] = mapped_column(sa.String(255))
    source_path: Mapped[str] = mapped_column(sa.String(4096))
    source_format: Mapped[str] = mapped_column(sa.String(16))
    source_capacity: Mapped[int] = mapped_column(sa.BigInteger)
    source_allocation: Mapped[int] = mapped_column(sa.BigInteger)
    dest_volume: Mapped[str | None] = mapped_column(sa.String(255))
    dest_path: Mapped[str | None] = mapped_column(sa.String(4096))
    dest_format: Mapped[str | None] = mapped_column(sa.String(16))
    new_capacity: Mapped[int | None] = mapped_column(sa.BigInteger)
    copied_at: Mapped[datetime | None]
    """The destination has the whole content, durably."""
    merged_at: Mapped[datetime | None]
    segments: Mapped[list[Segment]] = relationship(order_by="Segment.offset", lazy="select")
    __table_args__ = (sa.UniqueConstraint("migration_id", "device"),)


class Segment(Base):
    """The journal of a stream copy: a piece that the destination has, with its checksum."""

    __tablename__ = "stream_segments"
    disk_id: Mapped[int] = mapped_column(sa.ForeignKey("migration_disks.id"), primary_key=True)
    offset: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    length: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str] = mapped_column(sa.String(64))


class MovedVolume(Base):
    """A volume of a migration, and Cinder's ids of its attachments; each is stored before it is used."""

    __tablename__ = "migration_volumes"
    id: Mapped[int] = identity()
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"))
    volume_id: Mapped[str] = mapped_column(sa.String(36))
    device: Mapped[str] = mapped_column(sa.String(32))
    source_attachment: Mapped[str | None] = mapped_column(sa.String(36))
    """With which the machine left; None for a volume that was attached at the destination since."""
    dest_attachment: Mapped[str | None] = mapped_column(sa.String(36))
    return_attachment: Mapped[str | None] = mapped_column(sa.String(36))
    """The way back to the source. Once it is stored, the source's own may be gone."""
    onward_attachment: Mapped[str | None] = mapped_column(sa.String(36))
    """A revert's way back to the destination. Once it is stored, the destination's own may be gone."""
    detached: Mapped[bool] = mapped_column(default=False)
    """It was detached at the destination since: it goes back to nobody."""
    __table_args__ = (sa.UniqueConstraint("migration_id", "volume_id"),)

    @property
    def attachments(self) -> frozenset[str]:
        """All of its attachments that are stored, also those that are gone by now."""
        stored = (self.source_attachment, self.dest_attachment, self.return_attachment, self.onward_attachment)
        return frozenset(filter(None, stored))


class MovedPort(Base):
    """A port of Neutron's that a migration moves."""

    __tablename__ = "migration_ports"
    id: Mapped[int] = identity()
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"))
    port_id: Mapped[str] = mapped_column(sa.String(36))
    mac: Mapped[str] = mapped_column(sa.String(17))
    detached: Mapped[bool] = mapped_column(default=False)
    """It was removed at the destination since: it goes back to nobody."""
    __table_args__ = (sa.UniqueConstraint("migration_id", "port_id"),)


SERVICE_OF = {"attachment": "Cinder", "volume": "Cinder", "binding": "Neutron", "port": "Neutron"}
"""Who must answer for debts of some kinds; for all others it is their host."""


class Debt(Base):
    """Something of ours left on a host, at Cinder or at Neutron; a worker sets it right when they answer."""

    __tablename__ = "debts"
    id: Mapped[int] = identity()
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"))
    instance_id: Mapped[str] = mapped_column(sa.String(36))
    host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    """`domain` (object: its UUID), `disk` (its file's name), `secret` (a libvirt secret's UUID), `vlan` (of the uplinks
    of a bridge: BRIDGE/VLAN), `vlan-port` (a port, by its MAC, that is not in its VLAN on its machine's host); at
    Cinder, while the machine is on the host: `attachment` (a blank one that nothing needs) and `volume` (one that the
    machine has, and Cinder does not say so), by their ids; at Neutron, by the port's id: `binding` (an inactive one to
    the host that nothing needs) and `port` (one that the machine has on the host, and Neutron does not say so)."""
    object: Mapped[str] = mapped_column(sa.String(255))
    reason: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    forgiven: Mapped[bool] = mapped_column(default=False)
    __table_args__ = (sa.UniqueConstraint("migration_id", "host_id", "kind", "object"),)

    @property
    def service(self) -> str | None:
        """Who must answer, `Cinder` or `Neutron`; None: its host."""
        return SERVICE_OF.get(self.kind)

    @property
    def holds_disk(self) -> bool:
        """Whether it takes space on its host."""
        return self.kind == "disk"
