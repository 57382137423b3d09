"""The event log: what happened, in order, each line chained to the one before (persistence/chain.py)."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry

from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import GENESIS, is_signed, link, signature
from resizeflow.persistence.flaws import Flaw, first_flaw
from resizeflow.persistence.models import FLEET, Event, EventLog, Instance, Migration
from resizeflow.persistence.state_changes import Change
from resizeflow.states import Outcome

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

KINDS = frozenset(
    {
        "allocation",
        "attention",
        "command",
        "debt",
        "destination",
        "effect",
        "failure",
        "fence",
        "flow",
        "lease",
        "note",
        "notification",
        "pivot",
        "quota",
        "repair",
        "restore",
        "retry",
        "state",
        "stopped",
        "task",
        "transfer",
        "unknown",
        "waiting",
        "worker",
    }
)
"""What lines are about; docs/reference.md says what each tells."""
_LOGS = cast("sa.Table", EventLog.__table__)
_LOCK = sa.select(_LOGS).where(_LOGS.c.id == sa.bindparam("log")).with_for_update(key_share=True)
_OPEN = sa.insert(_LOGS)
_MOVE_ON = (
    sa.update(_LOGS)
    .where(_LOGS.c.id == sa.bindparam("log"))
    .values(seq=sa.bindparam("last"), chain=sa.bindparam("end"), signature=sa.bindparam("signed"), sealed=False)
)
_INSERT = sa.insert(cast("sa.Table", Event.__table__))
_OF_WHOM = sa.select(Migration.instance_id, Migration.instance_name.label("instance"), Migration.project_id)


class Events:
    """Collects during a transaction; numbers, chains and writes at its end, so that whoever locks a log locks it last.

    Who asked is the job's requester under a lease, else whom the transaction is of.
    """

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.lease = tx.lease
        self.request_id: str | None = None
        """The job that this transaction queues or changes; without one each transaction is a request of its own."""
        self.task: str | None = None
        """The task that lines are of, unless they say so themselves."""
        self._new: list[dict[str, Any]] = []
        self.written: list[dict[str, Any]] = []
        """The lines that were written, as rows."""

    # --- writing -----------------------------------------------------------------------------------------

    def add(
        self,
        log_id: str,
        kind: str,
        text: str,
        *,
        task: str | None = None,
        host: str | None = None,
        transition: str | None = None,
        seconds: float | None = None,
        outcome: Outcome | None = None,
        error: str | None = None,
        next_action: str | None = None,
        **data: Any,
    ) -> None:
        """Appends a line to a migration's log; it is committed with what it tells. See `Event` for what is what.
        Raises ValueError for a kind that is none of KINDS."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of line.")
        self._put(
            {
                "migration_id": log_id,
                "host": host,
                "kind": kind,
                "task": task or self.task,
                "transition": transition,
                "seconds": None if seconds is None else float(seconds),
                "outcome": outcome,
                "text": text,
                "error": error,
                "next_action": next_action,
                "data": data,
            }
        )

    def fleet(
        self,
        kind: str,
        text: str,
        *,
        instance: Instance | None = None,
        project_id: str | None = None,
        host: str | None = None,
        transition: str | None = None,
        outcome: Outcome | None = None,
        **data: Any,
    ) -> None:
        """Appends what is of no migration to the fleet's log."""
        self.add(FLEET, kind, text, host=host, transition=transition, outcome=outcome, **data)
        self._new[-1] |= {
            "instance_id": instance.id if instance else None,
            "instance": instance.name if instance else None,
            "project_id": instance.project_id if instance else project_id,
        }

    def command(self, text: str, **fields: Any) -> None:
        """Appends a command that is about no migration to the fleet's log; `fields` are those of `fleet`."""
        self.fleet("command", text, outcome=Outcome.OK, **fields)

    def about(self, instance: Instance | None, kind: str, text: str, **fields: Any) -> None:
        """Appends what happens to a machine: to the log of the migration whose job does it, else to the fleet's."""
        if self.lease is not None:
            self.add(self.lease.migration_id, kind, text, **fields)
        else:
            self.fleet(kind, text, instance=instance, **fields)

    def _tell_states(self) -> None:
        """Each change of a state gets its line: the one that tells of it in words, or one of its own."""
        for change in self._tx.states.take():
            log_id = change.migration_id or (self.lease.migration_id if self.lease else FLEET)
            instance_id = change.instance.id if change.instance and log_id == FLEET else None
            told = ("command", instance_id) if log_id == FLEET else ("state", None)
            for line in reversed(self._new):
                if line["migration_id"] == log_id and (line["kind"], line.get("instance_id")) == told:
                    line["transition"] = change.transition
                    break
            else:
                self._tell_state(log_id, change)

    def _tell_state(self, log_id: str, change: Change) -> None:
        if log_id == FLEET:
            self.fleet("state", change.sentence, instance=change.instance, transition=change.transition)
        else:
            self.add(log_id, "state", change.sentence, transition=change.transition)

    def _put(self, line: dict[str, Any]) -> None:
        lease, actor = self.lease, self._tx.actor
        line |= {
            "at": self._tx.now(),
            "asked_by": lease.asked_by if lease else actor.user,
            "asked_from": lease.asked_from if lease else actor.host,
            "epoch": lease.epoch if lease else 0,
            "worker": lease.owner if lease else None,
        }
        self._new.append(line)

    def flush(self) -> None:
        """Writes what was added, in one statement: the end of a transaction does it."""
        self._tx.flush()
        self._tell_states()
        if not self._new:
            return
        if self.request_id is None:
            self.request_id = self.lease.job_id if self.lease else str(uuid.uuid4())
        new, self._new = self._new, []
        for log_id in sorted({line["migration_id"] for line in new}):
            self._chain(log_id, [line for line in new if line["migration_id"] == log_id])
        self._tx.connection.execute(_INSERT, new)
        self.written += new

    def _chain(self, log_id: str, lines: Sequence[dict[str, Any]]) -> None:
        """Numbers lines, and moves the log's end on."""
        log = self.end_of(log_id)
        genuine = is_signed(self._tx.audit_key, log)
        for line in lines:
            log["seq"] += 1
            line["seq"] = log["seq"]
            line["request_id"] = self.request_id
            for column in ("instance_id", "instance", "project_id"):
                line.setdefault(column, log[column])
            line["chain"] = log["chain"] = link(self._tx.audit_key, log["chain"], line)
        self.move_on(log, genuine=genuine)

    def move_on(self, log: Mapping[str, Any], *, genuine: bool) -> None:
        """Writes where a log ends from now on. One whose end was forged stays unsigned: else whoever cut it off would
        only have to wait for the next line."""
        signed = signature(self._tx.audit_key, log) if genuine else log["signature"]
        end = {"log": log["id"], "last": log["seq"], "end": log["chain"], "signed": signed}
        self._tx.connection.execute(_MOVE_ON, end)

    def end_of(self, log_id: str) -> dict[str, Any]:
        """Where a log stands, as a row of `event_logs`; nobody else writes it until the commit. One that is not there
        begins."""
        return self._locked(log_id) or self._opened(log_id)

    def _locked(self, log_id: str) -> dict[str, Any] | None:
        row = self._tx.connection.execute(_LOCK, {"log": log_id}).mappings().first()
        return None if row is None else dict(row)

    def _opened(self, log_id: str) -> dict[str, Any]:
        """A new log. Two first lines at once: the second transaction goes on from the first one's."""
        whose = self._tx.connection.execute(_OF_WHOM.where(Migration.id == log_id)).mappings().first()
        log = new_log(self._tx.audit_key, log_id, **(whose or {}))
        with contextlib.suppress(DBDuplicateEntry), self._tx.connection.begin_nested():
            self._tx.connection.execute(_OPEN, log)
        return self._locked(log_id) or log

    # --- reading -----------------------------------------------------------------------------------------

    def of(self, log_id: str, after: int = 0) -> Sequence[Event]:
        """The lines of a log, from after a number."""
        self.flush()
        query = sa.select(Event).where(Event.migration_id == log_id, Event.seq > after).order_by(Event.seq)
        return self._tx.session.scalars(query).all()

    def flaw(self, log_id: str) -> Flaw | None:
        """The first place where a log is not what was written, None if it verifies. Raises UsageError
        without its key."""
        self._tx.audit_key.require_same(self._tx.connection)
        events = self.of(log_id)
        return first_flaw(self._tx.audit_key, self._tx.session.get(EventLog, log_id, populate_existing=True), events)


def new_log(
    key: AuditKey,
    log_id: str,
    *,
    instance_id: str | None = None,
    instance: str | None = None,
    project_id: str | None = None,
    seq: int = 0,
    chain: str = GENESIS,
    plain_seq: int = 0,
) -> dict[str, Any]:
    """The row of a log that begins, or that is signed from now on."""
    log: dict[str, Any] = {
        "id": log_id,
        "instance_id": instance_id,
        "instance": instance,
        "project_id": project_id,
        "seq": seq,
        "chain": chain,
        "plain_seq": plain_seq,
        "pruned_seq": 0,
        "pruned_chain": GENESIS,
        "last_seal": 0,
    }
    return log | {"signature": signature(key, log)}


def sign_old_logs(connection: sa.Connection, key: AuditKey) -> None:
    """Signs the logs that were written without a key, before schema 0006; from now on they are chained under it."""
    last = sa.select(Event.migration_id, sa.func.max(Event.seq).label("seq")).group_by(Event.migration_id).subquery()
    rows = connection.execute(
        sa.select(
            Event.migration_id,
            Event.seq,
            Event.chain,
            Migration.instance_id,
            Migration.instance_name,
            Migration.project_id,
        )
        .join(last, sa.and_(last.c.migration_id == Event.migration_id, last.c.seq == Event.seq))
        .join(Migration, Migration.id == Event.migration_id)
    )
    logs = [
        new_log(
            key,
            row.migration_id,
            instance_id=row.instance_id,
            instance=row.instance_name,
            project_id=row.project_id,
            seq=row.seq,
            chain=row.chain,
            plain_seq=row.seq,
        )
        for row in rows
    ]
    if logs:
        connection.execute(_OPEN, logs)
