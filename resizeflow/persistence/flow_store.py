"""TaskFlow's persistence on our tables: every write fenced by the lease, two commits per task, no reads between.

What it does not write, and why that is safe:
- progress of a task (ours is in the migration's rows);
- a change of nothing but an atom's *intention*: intentions follow from the job's direction, which is stored once
  (the worker sets them anew when it loads a flow that goes back);
- the flow states RESUMING and SUSPENDED that `prepare()` passes through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session
from taskflow import exceptions as taskflow_exc
from taskflow import states
from taskflow.persistence import base, models

from resizeflow.handover import Attention
from resizeflow.lease import Lease
from resizeflow.persistence import next_actions
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import AtomDetail, FlowDetail, LogBook
from resizeflow.persistence.transaction import Transaction
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.states import JobState, Outcome

ENDED = frozenset({states.SUCCESS, states.REVERTED})
"""A flow in one of these states is never run again (TaskFlow would start a REVERTED one over)."""
_PASSING = frozenset({states.RESUMING, states.SUSPENDED, states.SUSPENDING})
_ATOMS, _FLOWS = cast("sa.Table", AtomDetail.__table__), cast("sa.Table", FlowDetail.__table__)
_SAVE_ATOM = sa.update(_ATOMS).where(_ATOMS.c.uuid == sa.bindparam("atom"))
_ADD_ATOMS = sa.insert(_ATOMS)
_SAVE_FLOW = sa.update(_FLOWS).where(_FLOWS.c.uuid == sa.bindparam("flow"))
_WORDS = {
    states.RUNNING: "started",
    states.SUCCESS: "done",
    states.FAILURE: "failed",
    states.REVERTING: "is being undone",
    states.REVERTED: "undone",
}
_FLOW_WORDS = {
    states.RUNNING: "is under way",
    states.SUCCESS: "has ended",
    states.FAILURE: "has failed",
    states.REVERTED: "is undone",
}
_OUTCOMES = {states.SUCCESS: Outcome.OK, states.FAILURE: Outcome.FAILED, states.REVERTED: Outcome.OK}


class FlowStore(base.Backend):
    """The backend of one run of one job."""

    def __init__(self, database: Database, lease: Lease, work: UnitOfWork) -> None:
        super().__init__({})
        self._connection = FlowConnection(self, database, lease, work)

    def get_connection(self) -> FlowConnection:
        return self._connection

    def close(self) -> None:
        """Nothing is held open between transactions."""


class FlowConnection(base.Connection):
    """Writes what changed. One object per run: it knows what the rows hold, so it never reads them back."""

    def __init__(self, backend: FlowStore, database: Database, lease: Lease, work: UnitOfWork) -> None:
        self._backend = backend
        self._database = database
        self._lease = lease
        self._work = work
        self._atom_states: dict[str, str | None] = {}
        self._flow_state: str | None = None
        self._progressed = False
        self._since = database.clock.boottime()
        """When this run began, or saved an atom's state: the engine is serial."""

    @property
    def backend(self) -> FlowStore:
        return self._backend

    # --- what the engine calls ---------------------------------------------------------------------------

    def update_atom_details(self, atom_detail: Any) -> Any:
        """Saves a new state of an atom, with the rows and log lines of its task in the same transaction."""
        state = atom_detail.state
        before = self._atom_states[atom_detail.uuid]
        if before == state:
            return atom_detail
        name, now = atom_detail.name, self._database.clock.boottime()
        with self._database.fenced(self._lease, f"{name}.{state}") as tx:
            tx.events.task = name
            saved = {"atom": atom_detail.uuid, "state": state, "content": _content(atom_detail)}
            tx.connection.execute(_SAVE_ATOM, saved)
            if state in ENDED:
                self._work.write_rows(tx)
                if not self._progressed:
                    tx.jobs.made_progress(self._lease)
            elif state == states.FAILURE:
                self._fail(tx, atom_detail)
            self._work.write_lines(tx)
            tx.events.add(
                self._lease.migration_id,
                "task",
                f"{name} {_WORDS.get(state, state)}",
                transition=f"{before or states.PENDING} -> {state}",
                seconds=round(now - self._since, 3) if state in _OUTCOMES else None,
                outcome=_OUTCOMES.get(state),
            )
        self._work.forget(rows=state in ENDED or state == states.FAILURE)
        self._progressed = self._progressed or state in ENDED
        self._atom_states[atom_detail.uuid], self._since = state, now
        return atom_detail

    def _fail(self, tx: Transaction, atom_detail: Any) -> None:
        """A failed task turns the job back, in the transaction that says it failed."""
        if not tx.jobs.turn_back(self._lease.job_id):
            raise Attention(f"{atom_detail.name} failed after the point of no return: {atom_detail.failure}")
        reason = str(atom_detail.failure.exception_str)
        tx.migrations.get(self._lease.migration_id).error = reason
        self._work.tell(
            "failure",
            reason,
            task=atom_detail.name,
            outcome=Outcome.FAILED,
            error=reason,
            next_action=next_actions.of_failure(reason),
        )

    def update_flow_details(self, flow_detail: Any) -> Any:
        """Saves new atoms and a flow state worth keeping; the last state also ends the job."""
        new = [atom for atom in flow_detail if atom.uuid not in self._atom_states]
        state = flow_detail.state
        if state in _PASSING:
            state = states.RUNNING if new else self._flow_state
        if not new and state == self._flow_state:
            return flow_detail
        with self._database.fenced(self._lease, f"flow.{state or 'opened'}") as tx:
            saved = {"flow": flow_detail.uuid, "state": state, "meta": flow_detail.meta or {}}
            tx.connection.execute(_SAVE_FLOW, saved)
            if new:
                tx.connection.execute(_ADD_ATOMS, [_atom_row(atom, flow_detail.uuid) for atom in new])
            if state in ENDED:
                tx.jobs.put_down(self._lease, JobState.DONE, reason=None)
            self._work.write_lines(tx)
            self._tell_flow(tx, flow_detail.name, state)
        self._work.forget(rows=False)
        self._flow_state = state
        self._atom_states.update({atom.uuid: atom.state for atom in new})
        return flow_detail

    def _tell_flow(self, tx: Transaction, name: str, state: str | None) -> None:
        before, now = self._flow_state or states.PENDING, state or states.PENDING
        if now == before:
            return  # Its tasks were made.
        asked_at = self._lease.asked_at or tx.now()
        tx.events.add(
            self._lease.migration_id,
            "flow",
            f"{name} {_FLOW_WORDS.get(now, now)}",
            transition=f"{before} -> {now}",
            seconds=round((tx.now() - asked_at).total_seconds(), 3),
            outcome=_OUTCOMES.get(now),
        )

    # --- reading -----------------------------------------------------------------------------------------

    def get_flow_details(self, fd_uuid: str, lazy: bool = False) -> Any:  # noqa: ARG002
        with self._database.read() as tx:
            row = tx.session.get(FlowDetail, fd_uuid)
            if row is None:
                raise taskflow_exc.NotFound(f"No flow detail {fd_uuid}")
            detail = _flow_detail(tx.session, row)
        self._flow_state = detail.state
        self._atom_states = {atom.uuid: atom.state for atom in detail}
        return detail

    def get_atoms_for_flow(self, fd_uuid: str) -> Iterator[Any]:
        with self._database.read() as tx:
            yield from _atoms(tx.session, fd_uuid)

    def get_atom_details(self, ad_uuid: str) -> Any:
        with self._database.read() as tx:
            row = tx.session.get(AtomDetail, ad_uuid)
            if row is None:
                raise taskflow_exc.NotFound(f"No atom detail {ad_uuid}")
            return _atom_detail(row)

    def get_flows_for_book(self, book_uuid: str) -> Iterator[Any]:
        with self._database.read() as tx:
            for row in tx.session.scalars(sa.select(FlowDetail).where(FlowDetail.parent_uuid == book_uuid)):
                yield _flow_detail(tx.session, row)

    def get_logbook(self, book_uuid: str, lazy: bool = False) -> Any:
        with self._database.read() as tx:
            row = tx.session.get(LogBook, book_uuid)
        if row is None:
            raise taskflow_exc.NotFound(f"No logbook {book_uuid}")
        return self._book(row, lazy)

    def get_logbooks(self, lazy: bool = False) -> Iterator[Any]:
        with self._database.read() as tx:
            rows = tx.session.scalars(sa.select(LogBook)).all()
        for row in rows:
            yield self._book(row, lazy)

    def _book(self, row: LogBook, lazy: bool) -> Any:
        book = models.LogBook(row.name, row.uuid)
        book.meta = row.meta
        if not lazy:
            for detail in self.get_flows_for_book(row.uuid):
                book.add(detail)
        return book

    # --- the rest of TaskFlow's interface ----------------------------------------------------------------

    def save_logbook(self, book: Any) -> Any:
        """Saves a logbook and its new flow details; ours are made with their job (`Jobs.create`)."""
        with self._database.fenced(self._lease, "logbook") as tx:
            tx.session.merge(LogBook(uuid=book.uuid, name=book.name, meta=book.meta or {}))
            for detail in book:
                tx.session.merge(
                    FlowDetail(
                        uuid=detail.uuid,
                        parent_uuid=book.uuid,
                        name=detail.name,
                        state=detail.state,
                        meta=detail.meta or {},
                    )
                )
        return book

    def destroy_logbook(self, book_uuid: str) -> None:
        """Flow history is the auditors': it is never destroyed from within a flow."""
        raise taskflow_exc.StorageFailure(f"Logbook {book_uuid} is kept: the history of a flow is for auditors.")

    def clear_all(self) -> None:
        raise taskflow_exc.StorageFailure("The state database is not cleared from within a flow.")

    def upgrade(self) -> None:
        """The schema is Alembic's: `resizeflow db upgrade`."""

    def validate(self) -> None:
        with self._database.read() as tx:
            tx.session.execute(sa.select(sa.literal(1)))

    def close(self) -> None:
        """Nothing is held open between transactions."""


def _content(atom: Any) -> dict[str, Any]:
    content: dict[str, Any] = atom.to_dict()
    for column in ("uuid", "name", "state", "version"):
        content.pop(column, None)
    return content


def _atom_row(atom: Any, flow_uuid: str) -> dict[str, Any]:
    return {
        "uuid": atom.uuid,
        "parent_uuid": flow_uuid,
        "name": atom.name,
        "atom_type": models.atom_detail_type(atom),
        "version": None,
        "state": atom.state,
        "content": _content(atom),
    }


def _atom_detail(row: AtomDetail) -> Any:
    cls = models.atom_detail_class(row.atom_type)
    return cls.from_dict({**row.content, "uuid": row.uuid, "name": row.name, "state": row.state, "version": None})


def _atoms(session: Session, flow_uuid: str) -> list[Any]:
    rows = session.scalars(sa.select(AtomDetail).where(AtomDetail.parent_uuid == flow_uuid))
    return [_atom_detail(row) for row in rows]


def _flow_detail(session: Session, row: FlowDetail) -> Any:
    detail = models.FlowDetail(row.name, row.uuid)
    detail.state = row.state
    detail.meta = row.meta
    for atom in _atoms(session, row.uuid):
        detail.add(atom)
    return detail
