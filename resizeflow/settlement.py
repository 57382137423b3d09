"""Finds hosts that answer again and queues the removal of what was left on them."""

from __future__ import annotations

import contextlib
import uuid

from oslo_db.exception import DBDuplicateEntry

from resizeflow.gate import HostAway, Looks
from resizeflow.persistence.database import Database


def queue_settlements(database: Database, looks: Looks) -> int:
    """A `settle_v1` job per closed migration with debts on a host that answers; how many were queued.

    A migration or instance that has an unfinished job waits for that one's end.
    """
    with database.read() as tx:
        debts = list(tx.debts.open())
        hosts = {debt.host_id: tx.hosts.get(debt.host_id) for debt in debts}
    answering = set()
    for host in hosts.values():
        try:
            looks.host(host, patience=0).facts()
        except HostAway:
            continue
        answering.add(host.id)
    wanted = {(debt.migration_id, debt.instance_id) for debt in debts if debt.host_id in answering}
    queued = 0
    for migration_id, instance_id in sorted(wanted):
        # Another worker may be about to queue it, too: the database takes one.
        with contextlib.suppress(DBDuplicateEntry), database.write(point="job.settle") as tx:
            if tx.jobs.busy(instance_id) is None:
                tx.jobs.create(str(uuid.uuid4()), migration_id, instance_id, "settle_v1")
                queued += 1
    return queued
