"""What notifications say: versioned payloads whose names are those of Nova's (nova/notifications/objects), with what a
resize here has and a resize there has not. docs/notifications.md lists every field; a change of one raises the version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.persistence.models import Flavor, Host, Instance, Migration

NAMESPACE = "resizeflow"
"""Not `nova`: who reads by namespace must not take these for Nova's own, which have fields that we have not."""
VERSION = "1.0"
Payload = dict[str, Any]


def versioned(name: str, data: Payload) -> Payload:
    """An object as oslo.versionedobjects write it, without the library's registry of objects."""
    return {
        "nova_object.name": name,
        "nova_object.namespace": NAMESPACE,
        "nova_object.version": VERSION,
        "nova_object.data": data,
    }


def numbered(payload: Payload, sequence: int) -> Payload:
    """The payload with its number among those of its instance."""
    return {**payload, "nova_object.data": {**payload["nova_object.data"], "sequence": sequence}}


def moment(at: datetime | None) -> str | None:
    """A time as Nova's notifications write it."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}" if at else None


def of_migration(
    session: Session, event_type: str, migration: Migration, *, request_id: str | None, fault: str | None, now: datetime
) -> Payload:
    """What an event of a migration tells. `request_id` is the job's."""
    about = _About(session, migration, request_id, fault, now)
    for beginning, make in _KINDS.items():
        if event_type.startswith(beginning):
            return make(about)
    raise LookupError(f"{event_type} is not an event of ours")


def of_update(session: Session, instance: Instance, *, request_id: str | None, now: datetime) -> Payload:
    """`instance.update`: the state before and after, from what is about to be flushed."""
    vm_state, task_state = _before(instance, "vm_state"), _before(instance, "task_state")
    data = _instance(session, instance) | {
        "request_id": request_id,
        "audit_period": _audit_period(now),
        "state_update": versioned(
            "InstanceStateUpdatePayload",
            {
                "old_state": _word(vm_state),
                "state": _word(instance.vm_state),
                "old_task_state": _word(task_state),
                "new_task_state": _word(instance.task_state),
            },
        ),
    }
    return versioned("InstanceUpdatePayload", data)


class _About:
    """A migration's event, with the rows that it tells of as they are in its transaction."""

    def __init__(
        self, session: Session, migration: Migration, request_id: str | None, fault: str | None, now: datetime
    ) -> None:
        self.session = session
        self.migration = migration
        self.machine = session.get_one(Instance, migration.instance_id)
        self.request_id = request_id
        self.fault = fault
        self.now = now

    def instance(self) -> Payload:
        return {
            **_instance(self.session, self.machine),
            "request_id": self.request_id,
            "migration": self.move(),
            "fault": self.told_fault(),
        }

    def move(self) -> Payload:
        row = self.migration
        return versioned(
            "MigrationPayload",
            {
                "uuid": row.id,
                "migration_type": row.kind,
                "status": str(row.status),
                "source_compute": _host(self.session, row.source_host_id),
                "dest_compute": _host(self.session, row.dest_host_id),
                "old_flavor": self.session.get_one(Flavor, row.old_flavor_id).name,
                "new_flavor": self.session.get_one(Flavor, row.new_flavor_id).name,
            },
        )

    def new_flavor(self) -> Payload:
        return _flavor(self.session.get_one(Flavor, self.migration.new_flavor_id))

    def told_fault(self) -> Payload | None:
        return None if self.fault is None else versioned("ExceptionPayload", {"exception_message": self.fault})


def _action(about: _About) -> Payload:
    return versioned("InstanceActionPayload", about.instance())


def _prep(about: _About) -> Payload:
    return versioned("InstanceActionResizePrepPayload", {**about.instance(), "new_flavor": about.new_flavor()})


def _exists(about: _About) -> Payload:
    return versioned("InstanceExistsPayload", {**about.instance(), "audit_period": _audit_period(about.now)})


def _request_spec(about: _About) -> Payload:
    row = about.migration
    data = {
        "instance_uuid": row.instance_id,
        "project_id": row.project_id,
        "request_id": about.request_id,
        "flavor": about.new_flavor(),
        "num_instances": 1,
        "availability_zone": about.machine.availability_zone,
        "requested_destination": _host(about.session, row.requested_host_id),
        "migration": about.move(),
        "fault": about.told_fault(),
    }
    return versioned("RequestSpecPayload", data)


def _compute_task(about: _About) -> Payload:
    data = {
        "instance_uuid": about.migration.instance_id,
        "request_id": about.request_id,
        "state": str(about.machine.vm_state),
        "request_spec": _request_spec(about),
        "reason": about.told_fault(),
    }
    return versioned("ComputeTaskPayload", data)


_KINDS: Mapping[str, Callable[[_About], Payload]] = {
    "scheduler.select_destinations.": _request_spec,
    "compute_task.migrate_server.": _compute_task,
    "instance.exists": _exists,
    "instance.resize_prep.": _prep,
    "instance.resize": _action,
}


def _instance(session: Session, row: Instance) -> Payload:
    # By their ids: an instance that was just moved still refers to the rows of the place that it left.
    host = _host(session, row.host_id)
    return {
        "uuid": row.id,
        "display_name": row.name,
        "host_name": row.name,
        "tenant_id": row.project_id,
        "host": host,
        "node": host,
        "availability_zone": row.availability_zone,
        "state": str(row.vm_state),
        "task_state": _word(row.task_state),
        "locked": row.locked,
        "flavor": _flavor(session.get_one(Flavor, row.flavor_id)),
        "created_at": moment(row.created_at),
        "launched_at": moment(row.launched_at),
    }


def _flavor(row: Flavor) -> Payload:
    data = {
        "flavorid": row.id,
        "name": row.name,
        "vcpus": row.vcpus,
        "memory_mb": row.memory_mb,
        "root_gb": row.root_gb,
        "ephemeral_gb": row.ephemeral_gb,
        "swap": row.swap_mb,
        "is_public": row.is_public,
        "disabled": row.disabled,
        "extra_specs": row.extra_specs,
    }
    return versioned("FlavorPayload", data)


def _host(session: Session, host_id: str | None) -> str | None:
    return session.get_one(Host, host_id).name if host_id else None


def _audit_period(now: datetime) -> Payload:
    """From the beginning of the month until now, which is what Nova's `exists` of a resize has."""
    begin = now.replace(day=1, hour=0, minute=0, second=0)
    data = {"audit_period_beginning": moment(begin), "audit_period_ending": moment(now)}
    return versioned("AuditPeriodPayload", data)


def _before(instance: Instance, attribute: str) -> Any:
    history = sa.inspect(instance).attrs[attribute].history
    return history.deleted[0] if history.deleted else getattr(instance, attribute)


def _word(value: Any) -> str | None:
    return None if value is None else str(value)
