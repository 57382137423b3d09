"""The tables. Sizes: memory in MiB, `*_gb` in GiB, `*_bytes` and capacities in bytes; times aware, UTC."""

from resizeflow.persistence.models.accounts import QuotaClassLimit, QuotaLimit, QuotaUsage, Reservation
from resizeflow.persistence.models.audit import FLEET, SEALS, AuditKeyRow, Event, EventLog, Seal
from resizeflow.persistence.models.columns import GIB, Base, UtcDateTime, Word
from resizeflow.persistence.models.inventory import (
    Aggregate,
    AggregateHost,
    Allocation,
    Flavor,
    FlavorAccess,
    Host,
    ServerGroup,
)
from resizeflow.persistence.models.machines import Binding, Disk, Instance, Port, Volume
from resizeflow.persistence.models.moves import (
    SERVICE_OF,
    Debt,
    Migration,
    MovedDisk,
    MovedPort,
    MovedVolume,
    Segment,
)
from resizeflow.persistence.models.work import (
    AtomDetail,
    FlowDetail,
    Job,
    LogBook,
    Notification,
    Postman,
    ServerEvent,
    WorkerRow,
)

__all__ = [
    "FLEET",
    "GIB",
    "SEALS",
    "SERVICE_OF",
    "Aggregate",
    "AggregateHost",
    "Allocation",
    "AtomDetail",
    "AuditKeyRow",
    "Base",
    "Binding",
    "Debt",
    "Disk",
    "Event",
    "EventLog",
    "Flavor",
    "FlavorAccess",
    "FlowDetail",
    "Host",
    "Instance",
    "Job",
    "LogBook",
    "Migration",
    "MovedDisk",
    "MovedPort",
    "MovedVolume",
    "Notification",
    "Port",
    "Postman",
    "QuotaClassLimit",
    "QuotaLimit",
    "QuotaUsage",
    "Reservation",
    "Seal",
    "Segment",
    "ServerEvent",
    "ServerGroup",
    "UtcDateTime",
    "Volume",
    "Word",
    "WorkerRow",
]
