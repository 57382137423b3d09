"""A call at a simulated host: what of the world is the host's, found or refused."""

from __future__ import annotations

import sqlite3

from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.simulator.disks import Shelf
from resizeflow.drivers.simulator.machines import find_domain
from resizeflow.drivers.simulator.session import Session
from resizeflow.drivers.simulator.store import address


class HostSession(Session):
    """One host, and the call under way."""

    def peer(self, uri: str) -> HostSession:
        """Another host, for the same call. Raises `Refused` if it is none of this world's."""
        try:
            path, name = address(uri)
        except ValueError as error:
            raise Refused(str(error)) from error
        if path.resolve() != self.store.path.resolve():
            raise Refused(f"'{uri}' is in another world")
        return HostSession(self.store, name, fence=self.fence, caused=self.origin.caused)

    def host(self, db: sqlite3.Connection) -> sqlite3.Row:
        """The host itself."""
        self.place(db)
        row: sqlite3.Row = db.execute("SELECT * FROM hosts WHERE name = ?", (self.name,)).fetchone()
        return row

    def shelf(self, db: sqlite3.Connection, pool: str) -> Shelf:
        """The host's pool. Raises `Missing` if it has another name."""
        shelf = Shelf.of(db, self.name)
        shelf.check_pool(pool)
        return shelf

    def domain_row(self, db: sqlite3.Connection, uuid: str) -> sqlite3.Row:
        """A domain of this host. Raises `Missing`."""
        row = find_domain(db, self.name, uuid)
        if row is None:
            raise Missing(f"{self.name} has no domain {uuid}")
        return row

    def active_row(self, db: sqlite3.Connection, uuid: str) -> sqlite3.Row:
        """A domain that runs or is paused. Raises `Refused`."""
        row = self.domain_row(db, uuid)
        if row["live_xml"] is None:
            raise Refused(f"domain '{row['name']}' is not running")
        return row

    def update(self, db: sqlite3.Connection, uuid: str, **values: object) -> None:
        """Changes columns of a domain."""
        columns = ", ".join(f"{column} = ?" for column in values)
        where = (*values.values(), self.name, uuid)
        db.execute(f"UPDATE domains SET {columns} WHERE host = ? AND uuid = ?", where)  # noqa: S608 - our names
