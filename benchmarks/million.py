"""A database with many lines in its event log: logs of migrations as they really are, with chains that verify."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.bench import BenchError
from benchmarks.steps import MIGRATION
from resizeflow.chaos.cloud import Cloud
from resizeflow.clock import Clock
from resizeflow.persistence import schema
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import COVERED, GENESIS, link
from resizeflow.persistence.database import Database
from resizeflow.persistence.events import new_log
from resizeflow.persistence.models import COMMON_KINDS, Event, EventLog, Flavor, Host, Job, Migration
from resizeflow.states import Direction, JobState, Outcome

LINES = 50
"""Of each migration."""
AT_ONCE = 200
"""Migrations that are written in one transaction."""
HOSTS, MACHINES, PROJECTS, USERS = 20, 400, 12, 9
FAILED_EACH = 50
"""Each so many-th migration has a line that failed."""
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
RARE = "xyzzy"
"""A word that is in one line, in the middle of all."""


class Million:
    """So many confirmed migrations, of some hundred machines, one each quarter of an hour."""

    def __init__(self, url: str, migrations: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="resizeflow-million-")
        self.database = Database(url, key=Path(self._folder.name) / "audit.key")
        self.migrations = migrations
        schema.upgrade(self.database)
        with self.database.write() as tx:
            self._key: AuditKey = tx.audit_key
            for number in range(HOSTS):
                tx.session.add(_host(number))
            tx.session.add(Flavor(id="f", name="f", vcpus=1, memory_mb=1, root_gb=1))
        self._template = template()
        self.rare_kind = next(line["kind"] for line in self._template if line["kind"] not in COMMON_KINDS)
        self.seconds = 0.0
        """That it took to make it."""
        self._fill()

    def _fill(self) -> None:
        began = Clock().boottime()
        for first in range(0, self.migrations, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, self.migrations))
            migrations = [self._migration(number) for number in numbers]
            logs = [list(self._log(number, row)) for number, row in zip(numbers, migrations, strict=True)]
            ends = [
                new_log(self._key, lines[-1]["migration_id"], **_whose(lines[-1]), **_end(lines[-1])) for lines in logs
            ]
            jobs = [_job(row) for row in migrations]
            rows: tuple[tuple[Any, list[dict[str, Any]]], ...] = (
                (Migration, migrations),
                (Job, jobs),
                (Event, [line for lines in logs for line in lines]),
                (EventLog, ends),
            )
            with self.database.write() as tx:
                for model, values in rows:
                    tx.session.execute(sa.insert(model.__table__), values)
        if not self.database.sqlite:
            with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(sa.text("VACUUM ANALYZE"))
        self.seconds = Clock().boottime() - began

    def _migration(self, number: int) -> dict[str, Any]:
        machine = number % MACHINES
        at = BEGINNING + timedelta(minutes=15 * number)
        return {
            **MIGRATION,
            "id": str(uuid.uuid4()),
            "instance_id": str(uuid.UUID(int=machine)),
            "instance_name": f"vm-{machine}",
            "project_id": f"project-{machine % PROJECTS}",
            "source_host_id": f"h{number % HOSTS}",
            "dest_host_id": f"h{(number + 1) % HOSTS}",
            "created_at": at,
            "closed_at": at + timedelta(minutes=10),
        }

    def _log(self, number: int, migration: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A real log, of other names and times."""
        names = {"h1": f"host-{number % HOSTS}", "h2": f"host-{(number + 1) % HOSTS}"}
        previous, request = GENESIS, str(uuid.uuid4())
        for line in self._template:
            row = {
                **line,
                "migration_id": migration["id"],
                "at": migration["created_at"] + timedelta(seconds=line["seq"] * 7),
                "instance_id": migration["instance_id"],
                "instance": migration["instance_name"],
                "project_id": migration["project_id"],
                "host": names.get(line["host"]),
                "request_id": request,
                "asked_by": f"user-{number % USERS}",
                "text": line["text"].replace("web", migration["instance_name"]),
            }
            if line["seq"] == LINES // 2 and number % FAILED_EACH == 0:
                row |= {"outcome": Outcome.FAILED, "error": f"no route to {names['h2']}", "next_action": "look at it"}
            if line["seq"] == LINES // 2 and number == self.migrations // 2:
                row["text"] += f" {RARE}"
            row["chain"] = previous = link(self._key, previous, row)
            yield row

    def close(self) -> None:
        self.database.engine.dispose()
        self._folder.cleanup()


def template() -> list[dict[str, Any]]:
    """Lines of a real resize and its confirm, spread evenly over it."""
    folder = Path(tempfile.mkdtemp(prefix="resizeflow-template-"))
    try:
        cloud = Cloud(folder).build()
        job = cloud.service.resize("web", "big", host="h2")
        cloud.run(job)
        cloud.run(cloud.service.confirm("web"))
        with cloud.database.read() as tx:
            lines = [{name: getattr(line, name) for name in COVERED} for line in tx.events.of(job.migration_id)]
        cloud.release()
    finally:
        shutil.rmtree(folder)
    if len(lines) < LINES:
        raise BenchError(f"a resize and its confirm are only {len(lines)} lines")
    chosen = [lines[number * len(lines) // LINES] for number in range(LINES)]
    return [{**line, "seq": seq} for seq, line in enumerate(chosen, 1)]


def _host(number: int) -> Host:
    room = dict.fromkeys(("vcpus", "memory_mb", "disk_gb"), 10**6)
    return Host(id=f"h{number}", name=f"host-{number}", uri=f"simulator:///none?{number}", pool="p", **room)


def _job(migration: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "migration_id": migration["id"],
        "instance_id": migration["instance_id"],
        "flow": "resize_v1",
        "state": JobState.DONE,
        "direction": Direction.FORWARD,
        "created_at": migration["created_at"],
    }


def _whose(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("instance_id", "instance", "project_id")}


def _end(line: dict[str, Any]) -> dict[str, Any]:
    return {"seq": line["seq"], "chain": line["chain"]}
