"""Finds hosts, and a Cinder, that answer again and queues the settlement of the debts there."""

from __future__ import annotations

import contextlib
import uuid

from oslo_db.exception import DBDuplicateEntry

from resizeflow.drivers.interface import DriverError
from resizeflow.gate import Away, Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Host


def queue_settlements(database: Database, looks: Looks) -> int:
    """A `settle_v1` job per closed migration with debts for which all answer that are needed; how many were queued.

    A migration or instance that has an unfinished job waits for that one's end.
    """
    with database.read() as tx:
        debts = list(tx.debts.open())
        hosts = {debt.host_id: tx.hosts.get(debt.host_id) for debt in debts}
    answering = {host.id for host in hosts.values() if _host_answers(looks, host)}
    cinder = any(debt.at_cinder for debt in debts) and _cinder_answers(looks)
    payable = [
        debt
        for debt in debts
        if (cinder or not debt.at_cinder) and (debt.kind == "attachment" or debt.host_id in answering)
    ]
    queued = 0
    for migration_id, instance_id in sorted({(debt.migration_id, debt.instance_id) for debt in payable}):
        # Another worker may be about to queue it, too: the database takes one.
        with contextlib.suppress(DBDuplicateEntry), database.write(point="job.settle") as tx:
            if tx.jobs.busy(instance_id) is None:
                tx.jobs.create(str(uuid.uuid4()), migration_id, instance_id, "settle_v1")
                queued += 1
    return queued


def _host_answers(looks: Looks, host: Host) -> bool:
    try:
        looks.host(host, patience=0).facts()
    except Away:
        return False
    return True


def _cinder_answers(looks: Looks) -> bool:
    """Also whether it lets us in: what it refuses to say, it refuses to do."""
    try:
        looks.volumes(patience=0).service()
    except (Away, DriverError):
        return False
    return True
