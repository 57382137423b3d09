"""A transaction and the repositories on it: `tx.jobs`, `tx.migrations`, `tx.hosts` …"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.actor import Actor
from resizeflow.clock import Clock
from resizeflow.config import Notifications
from resizeflow.lease import Lease
from resizeflow.persistence.aggregates import Aggregates
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.debts import Debts
from resizeflow.persistence.delivery import Delivery
from resizeflow.persistence.events import Events
from resizeflow.persistence.flavors import Flavors
from resizeflow.persistence.groups import Groups
from resizeflow.persistence.hosts import Hosts
from resizeflow.persistence.instances import Instances
from resizeflow.persistence.jobs import Jobs
from resizeflow.persistence.models import Migration
from resizeflow.persistence.moves import Migrations
from resizeflow.persistence.outbox import Outbox
from resizeflow.persistence.quotas import Quotas
from resizeflow.persistence.server_events import ServerEvents
from resizeflow.persistence.state_changes import StateChanges
from resizeflow.persistence.workers import Workers


class _Session(Session):
    """Shows the changes of states that it writes, before it does. A listener of the class: one for each session would
    cost more than most of them do."""


@sa.event.listens_for(_Session, "before_flush")
def _see(session: Session, *_: object) -> None:
    session.info["states"].see(session)


class Transaction:
    """One database transaction; `lease` is set where it is fenced."""

    def __init__(
        self,
        connection: sa.Connection,
        clock: Clock,
        notifications: Notifications,
        *,
        actor: Actor,
        key: AuditKey | None,
        lease: Lease | None = None,
    ) -> None:
        self.connection = connection
        self.clock = clock
        self.actor = actor
        self._key = key
        self.lease = lease
        self.moved = 0
        """Bytes of disks that were copied since the transaction before; written nowhere."""
        self.outbox = Outbox(self, notifications)
        self.states = StateChanges()
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """For objects. Made when it is first asked for: most commits of a flow have none, and are cheaper without."""
        if self._session is None:
            self._session = _Session(self.connection, expire_on_commit=False, join_transaction_mode="control_fully")
            self._session.info["states"] = self.states
            self.outbox.watch(self._session)
        return self._session

    def flush(self) -> None:
        """Writes what was done to objects."""
        if self._session is not None:
            self._session.flush()

    def commit(self) -> None:
        self.events.flush()
        self.outbox.flush()
        if self._session is not None:
            self._session.commit()
        # The session has done it, unless it was made and never used.
        self.connection.commit()

    def close(self) -> None:
        """Lets go of the objects; the connection is its owner's."""
        if self._session is not None:
            self._session.close()

    @property
    def audit_key(self) -> AuditKey:
        """The key of the event log."""
        if self._key is None:
            raise LookupError("this database was opened without the key of its log")
        return self._key

    def now(self) -> datetime:
        """The time that rows of this transaction carry."""
        return self.clock.now()

    @cached_property
    def aggregates(self) -> Aggregates:
        return Aggregates(self)

    @cached_property
    def server_events(self) -> ServerEvents:
        return ServerEvents(self.session)

    def notify(
        self,
        event_type: str,
        migration: Migration,
        *,
        task: str | None = None,
        fault: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Tells others of a migration, by the outbox and the log: see `Outbox.add`."""
        self.outbox.add(event_type, migration, task=task, fault=fault, request_id=request_id)

    @cached_property
    def debts(self) -> Debts:
        return Debts(self)

    @cached_property
    def delivery(self) -> Delivery:
        return Delivery(self.session, self.clock)

    @cached_property
    def events(self) -> Events:
        return Events(self)

    @cached_property
    def flavors(self) -> Flavors:
        return Flavors(self.session)

    @cached_property
    def groups(self) -> Groups:
        return Groups(self)

    @cached_property
    def hosts(self) -> Hosts:
        return Hosts(self)

    @cached_property
    def instances(self) -> Instances:
        return Instances(self.session)

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self)

    @cached_property
    def migrations(self) -> Migrations:
        return Migrations(self)

    @cached_property
    def quotas(self) -> Quotas:
        return Quotas(self)

    @cached_property
    def workers(self) -> Workers:
        return Workers(self)
