"""The tables. Sizes: memory in MiB, `*_gb` in GiB, `*_bytes` and capacities in bytes; times aware, UTC."""

from resizeflow.persistence.models.accounts import QuotaClassLimit, QuotaLimit, QuotaUsage, Reservation
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
from resizeflow.persistence.models.moves import AT_CINDER, Debt, Migration, MovedDisk, MovedVolume, Segment
from resizeflow.persistence.models.work import (
    AtomDetail,
    Event,
    FlowDetail,
    Job,
    LogBook,
    Notification,
    Postman,
    WorkerRow,
)

__all__ = [
    "AT_CINDER",
    "GIB",
    "Aggregate",
    "AggregateHost",
    "Allocation",
    "AtomDetail",
    "Base",
    "Binding",
    "Debt",
    "Disk",
    "Event",
    "Flavor",
    "FlavorAccess",
    "FlowDetail",
    "Host",
    "Instance",
    "Job",
    "LogBook",
    "Migration",
    "MovedDisk",
    "MovedVolume",
    "Notification",
    "Port",
    "Postman",
    "QuotaClassLimit",
    "QuotaLimit",
    "QuotaUsage",
    "Reservation",
    "Segment",
    "ServerGroup",
    "UtcDateTime",
    "Volume",
    "Word",
    "WorkerRow",
]
