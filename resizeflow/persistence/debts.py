"""Debts: what an undo or a clean-up had to leave on a host that could not be reached, each told in the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from resizeflow.persistence import next_actions
from resizeflow.persistence.models import SERVICE_OF, Debt, Host, Migration
from resizeflow.states import Outcome

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction


class Debts:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session

    def open(self, host_id: str | None = None) -> Sequence[Debt]:
        query = sa.select(Debt).where(Debt.settled_at.is_(None)).order_by(Debt.id)
        if host_id:
            query = query.where(Debt.host_id == host_id)
        return self.session.scalars(query).all()

    def record(
        self,
        migration: Migration,
        host: Host,
        *,
        kind: str,
        name: str,
        reason: str,
        task: str | None = None,
        again: bool = False,
    ) -> None:
        """Writes a debt down, once. `again`: also if it was settled or forgiven since, as it was found there."""
        key = {"migration_id": migration.id, "host_id": host.id, "kind": kind, "object": name}
        debt = self.session.scalars(sa.select(Debt).filter_by(**key)).first()
        if debt is None:
            debt = Debt(**key, instance_id=migration.instance_id, created_at=self._tx.now())
            self.session.add(debt)
        elif debt.settled_at is None or not again:
            return
        debt.settled_at, debt.forgiven, debt.reason = None, False, reason
        self._tell(debt, host, f"{_what(debt, host)} is left over, and owed: {reason}", "none -> owed", task)

    def settle(self, debt: Debt, host: Host, outcome: str, task: str) -> None:
        """It is set right: `outcome` says how."""
        debt.settled_at = self._tx.now()
        self._tell(debt, host, outcome, "owed -> settled", task)

    def forgive(self, debt: Debt, host: Host) -> None:
        """It is given up with its host."""
        debt.forgiven, debt.settled_at = True, self._tx.now()
        self._tell(debt, host, f"{_what(debt, host)} is given up: nobody removes it any more", "owed -> forgiven")

    def _tell(self, debt: Debt, host: Host, text: str, transition: str, task: str | None = None) -> None:
        self._tx.events.add(
            debt.migration_id,
            "debt",
            text,
            task=task,
            host=host.name,
            transition=transition,
            outcome=Outcome.WAITING if debt.settled_at is None else Outcome.OK,
            next_action=next_actions.of_debt() if debt.settled_at is None else None,
            what=debt.kind,
            object=debt.object,
        )


def place(kind: str, host_name: str) -> str:
    """Where a debt of a kind is to be settled: `on h1`, `at Cinder`; a port's binding to a host is a host's, too."""
    service = SERVICE_OF.get(kind)
    if service is None:
        return f"on {host_name}"
    return f"to {host_name} at {service}" if service == "Neutron" else f"at {service}"


def _what(debt: Debt, host: Host) -> str:
    return f"{debt.kind} {debt.object} {place(debt.kind, host.name)}"
