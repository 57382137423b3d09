"""What a commit changes and no line of the log that it writes tells of: looked for in all rows, at each commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.models import Base

Row = Mapping[str, Any]
Line = Mapping[str, Any]
Tells = Callable[[Line, Row, Row], object]
"""Whether a line tells of a row's change; a row that is not there, before or after, is empty."""


def kind(*kinds: str) -> Tells:
    return lambda line, _before, _after: line["kind"] in kinds


def state(column: str) -> Tells:
    """The line has the column's change as its transition."""

    def tells(line: Line, before: Row, after: Row) -> object:
        gone = "deleted" if column == "vm_state" else "none"
        was = before[column] if before else "none"
        becomes = after[column] if after else gone
        arrow = f"{was or 'none'} -> {becomes or 'none'}"
        told = (line["transition"] or "").split(", ")
        return line["kind"] in ("state", "command") and (arrow in told or f"{column} {arrow}" in told)

    return tells


def task(line: Line, before: Row, after: Row) -> object:
    arrow = f"{before.get('state') or 'PENDING'} -> {after['state']}"
    return (line["kind"], line["task"], line["transition"]) == ("task", after["name"], arrow)


def flow(line: Line, before: Row, after: Row) -> object:
    was = (before["state"] or "PENDING") if before else "none"
    return line["kind"] == "flow" and line["transition"] == f"{was} -> {after['state'] or 'PENDING'}"


def counter(line: Line, before: Row, after: Row) -> object:
    if line["kind"] == "repair":
        return line["project_id"] == after["project_id"]
    moved = (line["data"].get("counters") or {}).get(after["resource"]) or {}
    return line["kind"] == "quota" and all(
        tuple(moved.get(name, ())) == (before.get(name, 0), after[name])
        for name in ("in_use", "reserved")
        if before.get(name, 0) != after[name]
    )


def message(line: Line, _before: Row, after: Row) -> object:
    return line["kind"] == "notification" and line["data"]["message_id"] == after["message_id"]


def change(*columns: str, by: Tells) -> tuple[Sequence[str], Tells]:
    """Columns whose change is told `by` a line; `*`: all."""
    return columns, by


def hold(line: Line, before: Row, after: Row) -> object:
    """`running -> queued` and the like, or the word of who did it from outside."""
    return kind("lease", "waiting", "stopped", "attention", "flow", "command", "restore")(line, before, after)


HOST = ("name", "uri", "peer_uri", "data_uri", "pool", "shell", "enabled", "disabled_reason", "fenced_at", "removed")
SIZE = ("max_moves", "vcpus", "memory_mb", "disk_gb", "reserved_memory_mb", "cpu_ratio", "ram_ratio", "disk_ratio")
MACHINE = ("id", "name", "project_id", "locked", "shutdown_timeout", "group_name", "availability_zone")
TOLD: Mapping[str, Sequence[tuple[Sequence[str], Tells]]] = {
    "flow_details": [change("state", by=flow)],
    "atom_details": [change("state", by=task)],
    "jobs": [
        change("state", "owner", "epoch", by=hold),
        change("direction", by=kind("failure", "command", "note", "flow")),
        change("pivot_at", by=kind("pivot", "state")),
        change("on_crash", by=kind("command", "flow")),
    ],
    "migrations": [change("status", by=state("status")), change("dest_host_id", by=kind("destination", "state"))],
    "instances": [
        change("vm_state", by=state("vm_state")),
        change("task_state", by=state("task_state")),
        change(*MACHINE, by=kind("command", "state")),
        change("host_id", "flavor_id", by=kind("state", "command")),
    ],
    "quota_usages": [change("in_use", "reserved", by=counter)],
    "reservations": [change("amount", by=kind("quota", "repair"))],
    "allocations": [change("consumer", "vcpus", "memory_mb", "disk_gb", by=kind("allocation", "repair"))],
    "debts": [change("object", "settled_at", "forgiven", by=kind("debt"))],
    "notifications": [change("message_id", by=message)],
    "postman": [change("failing_since", by=kind("notification"))],
    "workers": [change("name", by=kind("worker"))],
    "hosts": [
        change(*HOST, *SIZE, "traits", by=kind("command")),
        change("used_vcpus", "used_memory_mb", "used_disk_gb", by=kind("allocation", "repair")),
    ],
    **{
        table: [change("*", by=kind("command"))]
        for table in (
            "flavors",
            "flavor_access",
            "aggregates",
            "aggregate_hosts",
            "server_groups",
            "quota_limits",
            "quota_class_limits",
        )
    },
}
"""By table, what of it a line must tell of, and which line does."""
UNTOLD = {
    "events": "it is the log",
    "event_logs": "it is the log",
    "seals": "it is of the log",
    "audit_keys": "it is of the log",
    "logbooks": "TaskFlow's word for a migration",
    "stream_segments": "how far a copy is: its tenths are told",
    "server_events": "hints of Neutron's and Cinder's, which nothing is done by",
    "migration_disks": "told with the task that writes them",
    "migration_volumes": "told with the task that writes them",
    "migration_ports": "told with the task that writes them",
    "disks": "told with the machine's host",
    "volumes": "told with the machine's host",
    "ports": "told with the machine's host",
    "port_bindings": "told with the machine's host",
}
"""Tables without lines, and why."""


class Untold:
    """Watches a cloud's database, a file of SQLite's; `found` is what was missing.

    It looks right before each commit, when nobody else can write: so what is new is this transaction's.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.found: list[str] = []
        self.commits = 0
        self.anew()
        sa.event.listen(cloud.database.engine, "commit", self._see)

    def anew(self) -> None:
        """Forgets what another process has changed meanwhile."""
        with self._cloud.database.engine.connect() as connection:
            self._rows = _read(connection)

    def _see(self, connection: sa.Connection) -> None:
        before, self._rows = self._rows, _read(connection)
        lines = [row for key, row in self._rows[LOG].items() if key not in before[LOG]]
        self.commits += 1
        self.found += list(_missing(before, self._rows, lines))


LOG = "events"
NOT_BEGUN = (None, "PENDING")
"""States of a task that was only made: its flow tells that."""


def _read(connection: sa.Connection) -> dict[str, dict[tuple[Any, ...], Row]]:
    return {
        table.name: {
            tuple(row[column.name] for column in table.primary_key): dict(row)
            for row in connection.execute(sa.select(table)).mappings()
            if table.name != "atom_details" or row["state"] not in NOT_BEGUN
        }
        for table in Base.metadata.sorted_tables
        if table.name in TOLD or table.name == LOG
    }


def _missing(
    before: Mapping[str, Mapping[Any, Row]], after: Mapping[str, Mapping[Any, Row]], lines: Sequence[Line]
) -> Iterator[str]:
    for table, rules in TOLD.items():
        for key in before[table].keys() | after[table].keys():
            old, new = before[table].get(key, {}), after[table].get(key, {})
            for columns, tells in rules:
                changed = _changed(columns, old, new)
                if changed and not any(tells(line, old, new) for line in lines):
                    arrows = ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in changed)
                    said = [f"{line['kind']}: {line['text']} ({line['transition']})" for line in lines]
                    yield f"{table} {key}: {arrows}; told was {said}"


def _changed(columns: Iterable[str], old: Row, new: Row) -> list[str]:
    names = sorted(old.keys() | new.keys()) if "*" in columns else columns
    return [name for name in names if (old.get(name) or 0) != (new.get(name) or 0)]
