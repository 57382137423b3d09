"""Invariant 6, of libvirt secrets: ours, by their mark, are on a host only while a domain there names them or the
migration that made them goes on."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from resizeflow.doctor.report import Breach, Owed, Suspect
from resizeflow.doctor.snapshot import Records, Seen, World
from resizeflow.drivers import definition
from resizeflow.drivers.hypervisor import SecretFacts
from resizeflow.persistence.models import Debt, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL

EXPECTED = "no such secret"
RECORDED = "it is recorded as a debt, which a worker removes"


def find(tx: Transaction, records: Records, world: World) -> Iterator[Suspect]:
    """Invariant 6. `tx` is asked about the migrations that made what is left over."""
    left = [(host_id, secret) for host_id, seen in world.seen.items() for secret in _left(records, host_id, seen)]
    ids = {secret.migration for _, secret in left}
    makers = tx.session.scalars(sa.select(Migration).where(Migration.id.in_(ids))) if ids else ()
    known = {row.id: row for row in makers}
    for host_id, secret in left:
        subject = f"secret {secret.uuid} on {records.host_name(host_id)}"
        maker = known.get(secret.migration or "")
        if maker is None:
            found = f"made by migration {secret.migration}, which the records do not know; no domain names it"
            yield Suspect(Breach(6, subject, found, f"{EXPECTED}: `virsh secret-undefine {secret.uuid}`"), None)
        elif maker.status in TERMINAL and maker.instance_id not in records.open_migrations:
            # Else the machine moves again: on the same host its old secret stays until that is decided.
            found = f"made by migration {maker.id}, whose status is {maker.status}; no domain names it"
            owed = Owed(maker.id, host_id, "secret", secret.uuid)
            yield Suspect(Breach(6, subject, found, EXPECTED, RECORDED), maker.instance_id, owed)


def _left(records: Records, host_id: str, seen: Seen) -> list[SecretFacts]:
    """Secrets of ours that no domain of the host names, that no migration that goes on needs, and that no debt has."""
    ours = [secret for secret in seen.secrets if secret.migration is not None]
    named = _named(seen) if ours else set()
    return [
        secret
        for secret in ours
        if secret.uuid not in named
        and not _goes_on(records, secret.migration or "")
        and not any(_takes(debt, secret) for debt in records.debts if debt.host_id == host_id)
    ]


def _named(seen: Seen) -> set[str]:
    """The secrets that domains of a host name, in what runs or in what would start next."""
    named: set[str] = set()
    for domain in seen.domains.values():
        for xml in (domain.inactive_xml, domain.live_xml):
            try:
                named |= definition.read(xml).secrets if xml else frozenset()
            except ValueError:
                continue
    return named


def _goes_on(records: Records, migration_id: str) -> bool:
    """Whether a migration is open, or a job of it is not done yet."""
    migration = records.migrations.get(migration_id)
    busy = any(job.migration_id == migration_id for job in records.jobs.values())
    return busy or (migration is not None and migration.status not in TERMINAL)


def _takes(debt: Debt, secret: SecretFacts) -> bool:
    """Whether the secret goes with a debt of its host: its own, or the domain's of its migration."""
    if debt.kind == "domain":
        return debt.migration_id == secret.migration
    return (debt.kind, debt.object) == ("secret", secret.uuid)
