"""The tables. Sizes: memory in MiB, `*_gb` in GiB, `*_bytes` and capacities in bytes; times aware, UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from resizeflow.states import TERMINAL, Direction, JobState, MigrationStatus, OnCrash, TaskState, VmState

GIB = 1024**3
_OPEN = "status NOT IN (" + ", ".join(f"'{word}'" for word in sorted(TERMINAL)) + ")"


W = TypeVar("W", bound=str)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database (SQLite stores none with a zone)."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value else None


class Word(TypeDecorator[W]):
    """A StrEnum stored as its word, so that the tables read well and new words need no migration."""

    impl = sa.String(32)
    cache_ok = True

    def __init__(self, words: type[W]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: W | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return str(self.words(value)) if value is not None else None

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> W | None:  # noqa: ARG002
        return self.words(value) if value is not None else None


class Base(DeclarativeBase):
    """All tables of resizeflow."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime, dict[str, Any]: sa.JSON, list[Any]: sa.JSON}


def _id() -> Mapped[int]:
    return mapped_column(primary_key=True, autoincrement=True)


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
    id: Mapped[int] = _id()
    host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"), index=True)
    consumer: Mapped[str] = mapped_column(sa.String(64))
    """`instance:<id>`, `migration:<id>` or `debt:<migration id>`."""
    vcpus: Mapped[int]
    memory_mb: Mapped[int]
    disk_gb: Mapped[int]
    __table_args__ = (sa.UniqueConstraint("consumer", "host_id"),)


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


class Disk(Base):
    """A local disk that a machine has now: a file in its host's pool."""

    __tablename__ = "disks"
    id: Mapped[int] = _id()
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
    id: Mapped[int] = _id()
    instance_id: Mapped[str] = mapped_column(sa.ForeignKey("instances.id"))
    volume_id: Mapped[str] = mapped_column(sa.String(36))
    device: Mapped[str] = mapped_column(sa.String(32))
    size_gb: Mapped[int]
    attachment_id: Mapped[str] = mapped_column(sa.String(36))
    """Its attached attachment, on the machine's host."""
    __table_args__ = (sa.UniqueConstraint("instance_id", "volume_id"),)


class Port(Base):
    """A NIC of a machine, plugged into a bridge of that name on whichever host it is."""

    __tablename__ = "ports"
    id: Mapped[int] = _id()
    instance_id: Mapped[str] = mapped_column(sa.ForeignKey("instances.id"))
    mac: Mapped[str] = mapped_column(sa.String(17))
    bridge: Mapped[str] = mapped_column(sa.String(64))
    bindings: Mapped[list[Binding]] = relationship(cascade="all, delete-orphan")
    __table_args__ = (sa.UniqueConstraint("instance_id", "mac"),)


class Binding(Base):
    """A port's place on a host: one is active; during a move one more, inactive, is the migration's."""

    __tablename__ = "port_bindings"
    id: Mapped[int] = _id()
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


class QuotaLimit(Base):
    """A project's own limit in place of the configured default."""

    __tablename__ = "quota_limits"
    project_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    hard_limit: Mapped[int]


class QuotaClassLimit(Base):
    """A limit of a quota class; class `default` holds for projects without a limit of their own (Nova)."""

    __tablename__ = "quota_class_limits"
    class_name: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    hard_limit: Mapped[int]


class QuotaUsage(Base):
    """What a project uses of a resource, and what open resizes may still need on top."""

    __tablename__ = "quota_usages"
    project_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    in_use: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    reserved: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class Reservation(Base):
    """A migration's claim on its project's quota, per resource: max(new - old, 0) until it is finished."""

    __tablename__ = "reservations"
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    project_id: Mapped[str] = mapped_column(sa.String(255))
    amount: Mapped[int] = mapped_column(sa.BigInteger)


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
    disks: Mapped[list[MovedDisk]] = relationship(order_by="MovedDisk.device", lazy="selectin")
    volumes: Mapped[list[MovedVolume]] = relationship(order_by="MovedVolume.device", lazy="selectin")
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
    id: Mapped[int] = _id()
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
    id: Mapped[int] = _id()
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


AT_CINDER = frozenset({"attachment", "volume"})
"""Kinds of debts for which it is Cinder that must answer."""


class Debt(Base):
    """Something of ours left on a host, or at Cinder; a worker sets it right when they answer."""

    __tablename__ = "debts"
    id: Mapped[int] = _id()
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"))
    instance_id: Mapped[str] = mapped_column(sa.String(36))
    host_id: Mapped[str] = mapped_column(sa.ForeignKey("hosts.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    """`domain` (object: its UUID), `disk` (its file's name), `secret` (a libvirt secret's UUID); at Cinder, while the
    machine is on the host: `attachment` (a blank one that nothing needs) and `volume` (one that the machine has, and
    Cinder does not say so), by their ids."""
    object: Mapped[str] = mapped_column(sa.String(255))
    reason: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    forgiven: Mapped[bool] = mapped_column(default=False)
    __table_args__ = (sa.UniqueConstraint("migration_id", "host_id", "kind", "object"),)

    @property
    def at_cinder(self) -> bool:
        """Whether it is Cinder that must answer."""
        return self.kind in AT_CINDER

    @property
    def holds_disk(self) -> bool:
        """Whether it takes space on its host."""
        return self.kind == "disk"


class Job(Base):
    """A flow to be run to its end, with its lease. `epoch` grows with each take-over and fences all writes."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"), index=True)
    instance_id: Mapped[str] = mapped_column(sa.String(36), index=True)
    flow: Mapped[str] = mapped_column(sa.String(32))
    """The factory's versioned name, `resize_v1`."""
    state: Mapped[JobState] = mapped_column(Word(JobState), index=True)
    direction: Mapped[Direction] = mapped_column(Word(Direction))
    pivot_at: Mapped[datetime | None]
    """After this the flow only goes forward."""
    on_crash: Mapped[OnCrash] = mapped_column(Word(OnCrash), default=OnCrash.RESUME)
    owner: Mapped[str | None] = mapped_column(sa.String(255))
    lease_until: Mapped[float] = mapped_column(sa.Double, default=0.0)
    """By the database's clock, seconds since 1970."""
    epoch: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float] = mapped_column(sa.Double, default=0.0)
    attempts: Mapped[int] = mapped_column(default=0)
    """Times it was taken up since it last made progress."""
    reason: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
    __table_args__ = (
        sa.Index(
            "uq_jobs_unfinished",
            "instance_id",
            unique=True,
            sqlite_where=sa.text("state != 'done'"),
            postgresql_where=sa.text("state != 'done'"),
        ),
    )


class WorkerRow(Base):
    """A worker process that said it is there."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    started_at: Mapped[datetime]
    seen_until: Mapped[float] = mapped_column(sa.Double)
    """By the database's clock: later it counts as gone."""
    flows: Mapped[list[str]] = mapped_column(sa.JSON, default=list)
    """The names of the flows that it knows."""


class Event(Base):
    """One line of a migration's log; each carries the hash of the one before (a chain per migration)."""

    __tablename__ = "events"
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    epoch: Mapped[int]
    worker: Mapped[str | None] = mapped_column(sa.String(255))
    kind: Mapped[str] = mapped_column(sa.String(32))
    task: Mapped[str | None] = mapped_column(sa.String(64))
    text: Mapped[str] = mapped_column(sa.Text)
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    chain: Mapped[str] = mapped_column(sa.String(64))


class Notification(Base):
    """The outbox: an event for others, written with the change that it tells of, sent after the commit."""

    __tablename__ = "notifications"
    id: Mapped[int] = _id()
    message_id: Mapped[str] = mapped_column(sa.String(36), unique=True)
    instance_id: Mapped[str] = mapped_column(sa.String(36))
    seq: Mapped[int]
    """Its number among those of its instance, from 1."""
    migration_id: Mapped[str | None] = mapped_column(sa.String(36), index=True)
    event_type: Mapped[str] = mapped_column(sa.String(64))
    priority: Mapped[str] = mapped_column(sa.String(16))
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    wanted: Mapped[bool]
    """Whether it is to be sent; False: there was nowhere to send it to when it was written, it is recorded only."""
    sent_at: Mapped[datetime | None]
    __table_args__ = (
        sa.UniqueConstraint("instance_id", "seq"),
        sa.Index(
            "ix_notifications_unsent",
            "id",
            sqlite_where=sa.text("wanted AND sent_at IS NULL"),
            postgresql_where=sa.text("wanted AND sent_at IS NULL"),
        ),
        sa.Index("ix_notifications_created_at", "created_at"),
    )


class Postman(Base):
    """The one row that says which worker sends notifications now, and what keeps it from doing so."""

    __tablename__ = "postman"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str | None] = mapped_column(sa.String(255))
    lease_until: Mapped[float] = mapped_column(sa.Double, default=0.0)
    """By the database's clock, seconds since 1970."""
    error: Mapped[str | None] = mapped_column(sa.Text)
    failing_since: Mapped[datetime | None]


class LogBook(Base):
    """TaskFlow's logbook: one per migration."""

    __tablename__ = "logbooks"
    uuid: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    meta: Mapped[dict[str, Any]] = mapped_column(default=dict)


class FlowDetail(Base):
    """TaskFlow's flow detail: one per job, under the job's id."""

    __tablename__ = "flow_details"
    uuid: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    parent_uuid: Mapped[str] = mapped_column(sa.ForeignKey("logbooks.uuid"), index=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    state: Mapped[str | None] = mapped_column(sa.String(32))
    meta: Mapped[dict[str, Any]] = mapped_column(default=dict)


class AtomDetail(Base):
    """TaskFlow's atom detail: one per task of a flow."""

    __tablename__ = "atom_details"
    uuid: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    parent_uuid: Mapped[str] = mapped_column(sa.ForeignKey("flow_details.uuid"), index=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    atom_type: Mapped[str] = mapped_column(sa.String(32))
    version: Mapped[str | None] = mapped_column(sa.String(32))
    state: Mapped[str | None] = mapped_column(sa.String(32))
    content: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The rest of the detail, as TaskFlow's to_dict gives it."""
