"""Somebody who can write the whole database, knows the program, and does not have the audit key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import GENESIS, link, plain_link, seal_link, signature
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import SEALS, AuditKeyRow, Base, Event, EventLog, Seal

Rows = list[dict[str, Any]]
EVENTS, LOGS, SEAL_ROWS = (cast("sa.Table", model.__table__) for model in (Event, EventLog, Seal))


class Forger:
    """`key` is one of his own; without one he computes the plain hashes of old, or with `careful` False nothing."""

    def __init__(self, database: Database, *, key: Path | None = None, careful: bool = True) -> None:
        self._engine = database.engine
        self._key = AuditKey(key) if key else None
        self.careful = careful

    # --- his hands ---------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        with self._engine.execution_options(resizeflow_write=True).begin() as connection:
            yield connection

    def lines(self, log_id: str) -> Rows:
        with self._engine.begin() as connection:
            query = sa.select(EVENTS).where(EVENTS.c.migration_id == log_id).order_by(EVENTS.c.seq)
            return [dict(row) for row in connection.execute(query).mappings()]

    def log(self, log_id: str) -> dict[str, Any]:
        with self._engine.begin() as connection:
            return dict(connection.execute(sa.select(LOGS).where(LOGS.c.id == log_id)).mappings().one())

    def seals(self) -> Rows:
        with self._engine.begin() as connection:
            return [dict(row) for row in connection.execute(sa.select(SEAL_ROWS).order_by("number")).mappings()]

    def write(self, log_id: str, lines: Rows, *, since: int = 1) -> None:
        """Puts these lines in place of a log's, numbered from 1, and computes what he can from line `since` on."""
        log = self.log(log_id)
        if self.careful:
            previous = lines[since - 2]["chain"] if since > 1 else GENESIS
            for line in lines[since - 1 :]:
                previous = line["chain"] = self._link(previous, line)
        with self.writing() as connection:
            connection.execute(sa.delete(EVENTS).where(EVENTS.c.migration_id == log_id))
            connection.execute(sa.insert(EVENTS), lines)
        if self.careful:
            self.end(log | {"seq": lines[-1]["seq"], "chain": lines[-1]["chain"]})

    def end(self, log: Mapping[str, Any]) -> None:
        """Says where a log ends, signed as well as he can."""
        signed = {**log, "signature": signature(self._key, log)} if self._key else log
        with self.writing() as connection:
            connection.execute(sa.update(LOGS).where(LOGS.c.id == log["id"]).values(signed))

    def write_seals(self, seals: Rows) -> None:
        """Puts these seals in place of all, with chains as well as he can."""
        previous = GENESIS
        for seal in seals:
            if self._key:
                seal["chain"] = seal_link(self._key, previous, seal)
            previous = seal["chain"]
        with self.writing() as connection:
            connection.execute(sa.delete(SEAL_ROWS))
            connection.execute(sa.insert(SEAL_ROWS), seals)
        if self.careful:
            self.end(self.log(SEALS) | {"seq": seals[-1]["number"], "chain": seals[-1]["chain"]})

    def _link(self, previous: str, line: Mapping[str, Any]) -> str:
        return link(self._key, previous, line) if self._key else plain_link(previous, line)

    # --- what he does ------------------------------------------------------------------------------------

    def change(self, log_id: str, seq: int, **values: Any) -> None:
        lines = self.lines(log_id)
        lines[seq - 1] |= values
        self.write(log_id, lines, since=seq)

    def delete(self, log_id: str, seq: int) -> None:
        """Takes a line out and closes the gap, if he is careful."""
        lines = self.lines(log_id)
        del lines[seq - 1]
        if self.careful:
            _renumber(lines)
        self.write(log_id, lines, since=seq)

    def insert(self, log_id: str, seq: int, text: str) -> None:
        """Makes a line like the one that is there, in front of it; behind it, if it is the last one."""
        lines = self.lines(log_id)
        lines.insert(seq - 1, {**lines[min(seq, len(lines)) - 1], "text": text})
        _renumber(lines)
        self.write(log_id, lines, since=seq)

    def swap(self, log_id: str, seq: int, other: int, *, with_chains: bool) -> None:
        lines = self.lines(log_id)
        one, two = lines[seq - 1], lines[other - 1]
        kept = ("seq",) if with_chains else ("seq", "chain")
        lines[seq - 1], lines[other - 1] = _at(two, one, kept), _at(one, two, kept)
        self.write(log_id, lines, since=seq)

    def cut(self, log_id: str, left: int) -> None:
        """Leaves so many lines, and says that the log ends there."""
        lines = self.lines(log_id)[:left]
        log = self.log(log_id)
        with self.writing() as connection:
            connection.execute(sa.delete(EVENTS).where(EVENTS.c.migration_id == log_id, EVENTS.c.seq > left))
        if self.careful:
            self.end(log | {"seq": left, "chain": lines[-1]["chain"]})

    def cut_seals(self, left: int) -> None:
        self.write_seals(self.seals()[:left])

    def remove(self, migration_id: str) -> None:
        """Removes a migration from every table, and its seals with it."""
        with self.writing() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                if "migration_id" in table.c and table is not SEAL_ROWS:
                    connection.execute(sa.delete(table).where(table.c.migration_id == migration_id))
                elif table.name in ("migrations", "event_logs"):
                    connection.execute(sa.delete(table).where(table.c.id == migration_id))
        seals = [seal for seal in self.seals() if seal["migration_id"] != migration_id]
        if self.careful:
            for number, seal in enumerate(seals, 1):
                seal["number"] = number
        self.write_seals(seals)

    def claim_key(self) -> None:
        """Says that the log is written under his key."""
        assert self._key is not None
        with self.writing() as connection:
            connection.execute(sa.update(AuditKeyRow).values(fingerprint=self._key.fingerprint))


def _renumber(lines: Rows) -> None:
    for number, line in enumerate(lines, 1):
        line["seq"] = number


def _at(line: dict[str, Any], place: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    return {**line, **{column: place[column] for column in kept}}


# --- a picture of the database, to be put back -----------------------------------------------------------


def picture(database: Database) -> Callable[[], None]:
    """Every row of every table as it is now; what is returned puts all of it back."""
    with database.engine.begin() as connection:
        rows = {
            table: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            for table in Base.metadata.sorted_tables
        }

    def put_back() -> None:
        with database.engine.execution_options(resizeflow_write=True).begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(sa.delete(table))
            for table in Base.metadata.sorted_tables:
                if rows[table]:
                    connection.execute(sa.insert(table), rows[table])

    return put_back
