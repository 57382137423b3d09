"""What the fleet does now: migrations in flight, what waits for a person, workers, hosts, debts. Each is one query over
an index, and limited: it must answer at once beside any amount of history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from taskflow import states

from resizeflow.audit.listed import listed
from resizeflow.audit.outcome import Standing, advice, standing
from resizeflow.audit.progress import Pace, Sample, pace, samples_of
from resizeflow.flows import TASKS
from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import AtomDetail, Debt, Event, Host, Job, Migration
from resizeflow.persistence.moves import OPEN
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import Direction, JobState

MOST = 200
"""So many of a kind are listed; how many there are is said."""


@dataclass(frozen=True)
class Moving:
    """An open migration."""

    id: str
    instance: str
    instance_id: str
    kind: str
    status: str
    source: str
    destination: str | None
    old_flavor: str
    new_flavor: str
    created_at: datetime
    stands: Standing
    doing: str
    """`resize`, `migration`, `confirm`, `revert` …"""
    job_state: JobState | None
    direction: Direction | None
    task: str | None
    step: int
    steps: int
    """It is in task number `step` of so many."""
    worker: str | None
    lease_left: float
    """Seconds for which its worker's lease still holds; negative: it has ended."""
    reason: str | None
    waits: float
    """Seconds until it may be taken again."""
    pace: Pace | None

    @property
    def advice(self) -> str | None:
        return advice(self.id, self.instance, self.stands, self.reason, None)


@dataclass(frozen=True)
class WorkerAtWork:
    """A worker that is up."""

    name: str
    started_at: datetime
    seen_until: datetime
    jobs: Sequence[Any]
    """Those that it holds (`persistence.jobs.Held`)."""


@dataclass(frozen=True)
class Room:
    """What of a resource is used on a host, and how much of it may be."""

    used: int
    total: int
    unit: str

    @property
    def share(self) -> float:
        return self.used / self.total if self.total > 0 else 0.0


@dataclass(frozen=True)
class HostRoom:
    """A host, as it is counted on."""

    name: str
    state: str
    """`enabled`, or why it takes no machines."""
    moves: int
    max_moves: int
    room: Sequence[Room]
    """vCPUs, memory, disk, each with its ratio and what is reserved."""


@dataclass(frozen=True)
class OpenDebt:
    """Something of ours that was left behind."""

    id: int
    migration_id: str
    host: str
    kind: str
    object: str
    reason: str
    created_at: datetime
    waits_for: str


@dataclass(frozen=True)
class Overview:
    """All of it, and how many there are where not all are listed."""

    in_flight: Sequence[Moving]
    attention: Sequence[Moving]
    undecided: Sequence[Moving]
    open_count: int
    workers: Sequence[WorkerAtWork]
    hosts: Sequence[HostRoom]
    debts: Sequence[OpenDebt]
    debts_count: int

    @property
    def listed(self) -> int:
        return len(self.in_flight) + len(self.attention) + len(self.undecided)


def overview(tx: Transaction) -> Overview:
    """How things are now."""
    moving = _open(tx)
    return Overview(
        in_flight=[one for one in moving if one.stands is Standing.IN_FLIGHT],
        attention=[one for one in moving if one.stands is Standing.ATTENTION],
        undecided=[one for one in moving if one.stands is Standing.UNDECIDED],
        open_count=_count(tx, sa.select(Migration.id).where(OPEN)),
        workers=_workers(tx),
        hosts=_hosts(tx),
        debts=_debts(tx),
        debts_count=_count(tx, sa.select(Debt.id).where(Debt.settled_at.is_(None))),
    )


def _count(tx: Transaction, query: sa.Select[Any]) -> int:
    return tx.session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0


def _open(tx: Transaction) -> list[Moving]:
    """What needs a person comes first, then what is worked on, the latest first."""
    rank = sa.case((Job.state == JobState.NEEDS_ATTENTION, 0), (Job.id.is_not(None), 1), else_=2)
    rows = tx.session.execute(
        listed(
            Migration.bytes_done,
            Migration.bytes_total,
            Job.flow,
            Job.direction,
            AtomDetail.name.label("task"),
            Job.owner,
            (Job.lease_until - database_now()).label("lease_left"),
            Job.reason,
            (Job.not_before - database_now()).label("waits"),
        )
        .outerjoin(
            AtomDetail,
            sa.and_(AtomDetail.parent_uuid == Job.id, AtomDetail.state.in_([states.RUNNING, states.REVERTING])),
        )
        .where(Migration.id.in_(sa.select(Migration.id).where(OPEN)))
        .order_by(rank, Migration.created_at.desc())
        .limit(MOST)
    ).all()
    copying = [row.id for row in rows if row.task == "TransferDisks" and row.state is JobState.RUNNING]
    samples = _samples(tx, copying)
    return [_moving(row, samples.get(row.id, []), tx.now()) for row in rows]


def _samples(tx: Transaction, migration_ids: Collection[str]) -> dict[str, list[Sample]]:
    """What logs say of bytes; there are as many migrations that copy as the hosts take part in."""
    lines = sa.select(Event).where(Event.migration_id.in_(migration_ids), Event.kind.in_(["transfer", "lease"]))
    found: dict[str, list[Sample]] = {}
    for event in tx.session.scalars(lines.order_by(Event.migration_id, Event.seq)):
        found.setdefault(event.migration_id, []).extend(samples_of([event]))
    return found


def _moving(row: Any, samples: list[Sample], now: datetime) -> Moving:
    tasks = [task.__name__ for task in TASKS.get(row.flow or "", ())]
    if samples:
        samples = [*samples, Sample(now, row.bytes_done, row.bytes_total)]
    return Moving(
        id=row.id,
        instance=row.instance_name,
        instance_id=row.instance_id,
        kind=row.kind,
        status=str(row.status),
        source=row.source,
        destination=row.destination,
        old_flavor=row.old_flavor,
        new_flavor=row.new_flavor,
        created_at=row.created_at,
        stands=standing(row.status, row.state),
        doing=_doing(row),
        job_state=row.state,
        direction=row.direction,
        task=row.task,
        step=tasks.index(row.task) + 1 if row.task in tasks else 0,
        steps=len(tasks),
        worker=row.owner,
        lease_left=row.lease_left or 0.0,
        reason=row.reason,
        waits=max(row.waits or 0.0, 0.0),
        pace=pace(samples),
    )


def _doing(row: Any) -> str:
    flow = row.flow.partition("_v")[0] if row.flow else "resize"
    return row.kind if flow == "resize" else flow


def _workers(tx: Transaction) -> list[WorkerAtWork]:
    held = tx.jobs.held()
    return [
        WorkerAtWork(
            worker.name,
            worker.started_at,
            datetime.fromtimestamp(worker.seen_until, UTC),
            [job for job in held if job.owner == worker.name],
        )
        for worker in tx.workers.up()
    ]


def _hosts(tx: Transaction) -> list[HostRoom]:
    moves: Counter[str] = tx.migrations.in_flight()
    return [
        HostRoom(
            host.name,
            _state(host),
            moves[host.id],
            host.max_moves,
            (
                Room(host.used_vcpus, int(host.vcpus * host.cpu_ratio), ""),
                Room(host.used_memory_mb, int(host.memory_mb * host.ram_ratio) - host.reserved_memory_mb, "MiB"),
                Room(host.used_disk_gb, int(host.disk_gb * host.disk_ratio), "GiB"),
            ),
        )
        for host in sorted(tx.hosts.rows(), key=lambda row: row.name)
    ]


def _state(host: Any) -> str:
    if host.fenced_at is not None:
        return f"fenced at {host.fenced_at:%Y-%m-%d %H:%M:%S}"
    if host.enabled:
        return "enabled"
    return f"disabled: {host.disabled_reason}" if host.disabled_reason else "disabled"


def _debts(tx: Transaction) -> list[OpenDebt]:
    query = sa.select(Debt, Host.name).join(Host, Host.id == Debt.host_id).where(Debt.settled_at.is_(None))
    return [
        OpenDebt(
            debt.id, debt.migration_id, host, debt.kind, debt.object, debt.reason, debt.created_at, debt.service or host
        )
        for debt, host in tx.session.execute(query.order_by(Debt.id).limit(MOST))
    ]
