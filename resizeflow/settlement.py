"""Finds hosts, Cinder and Neutron that answer again and queues the settlement of the debts there."""

from __future__ import annotations

import contextlib
import uuid

from oslo_db.exception import DBDuplicateEntry

from resizeflow.connections import Away
from resizeflow.drivers.interface import DriverError
from resizeflow.looks import Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Host
from resizeflow.tasks import vlans

BY_SHELL = frozenset({vlans.DEBT, vlans.PORT_DEBT})
"""Kinds of debts for which a host's shell must answer, too."""
ASK_NO_HOST = frozenset({"attachment", "binding", "port"})
"""Kinds of debts that are settled at a service alone."""


def queue_settlements(database: Database, looks: Looks) -> int:
    """A `settle_v1` job per closed migration with debts for which all answer that are needed; how many were queued.

    A migration or instance that has an unfinished job waits for that one's end.
    """
    with database.read() as tx:
        debts = list(tx.debts.open())
        hosts = {debt.host_id: tx.hosts.get(debt.host_id) for debt in debts}
    shells = {debt.host_id for debt in debts if debt.kind in BY_SHELL}
    answering = {host.id for host in hosts.values() if _host_answers(looks, host)}
    answers = {service: _answers(looks, service) for service in {debt.service for debt in debts} - {None}}
    silent = {host.id for host in hosts.values() if host.id in shells and not _shell_answers(looks, host)}
    payable = [
        debt
        for debt in debts
        if answers.get(debt.service, True)
        and (debt.kind in ASK_NO_HOST or debt.host_id in answering)
        and not (debt.kind in BY_SHELL and debt.host_id in silent)
    ]
    queued = 0
    for migration_id, instance_id in sorted({(debt.migration_id, debt.instance_id) for debt in payable}):
        # Another worker may be about to queue it, too: the database takes one.
        with contextlib.suppress(DBDuplicateEntry), database.write(point="job.settle") as tx:
            if tx.jobs.busy(instance_id) is None:
                why = "who has its debts answers"
                tx.jobs.create(str(uuid.uuid4()), migration_id, instance_id, "settle_v1", why=why)
                queued += 1
    return queued


def _host_answers(looks: Looks, host: Host) -> bool:
    try:
        looks.host(host, patience=0).facts()
    except Away:
        return False
    return True


def _shell_answers(looks: Looks, host: Host) -> bool:
    try:
        looks.bridges(host, patience=0).bridge_links("lo")
    except Away:
        return False
    except DriverError:
        pass  # which is no bridge anywhere
    return True


def _answers(looks: Looks, service: str | None) -> bool:
    """Also whether it lets us in: what it refuses to say, it refuses to do."""
    try:
        if service == "Cinder":
            looks.volumes(patience=0).service()
        else:
            looks.network(patience=0).network_service()
    except (Away, DriverError):
        return False
    return True
