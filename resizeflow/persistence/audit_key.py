"""The secret under which the event log is chained: in a file, never in the database whose log it protects.

The database knows the key's fingerprint, so that a program that was given another one cannot write a log that nobody
could verify: it refuses with a sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import shlex
import stat
import tempfile
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry

from resizeflow.errors import UsageError
from resizeflow.files import sync_folder
from resizeflow.persistence.models import AuditKeyRow

BYTES = 32
"""So much is drawn for a key, as much as the hash gives; it is written in hexadecimal digits."""
_MARK = b"fingerprint of a key of resizeflow's event log"


class AuditKey:
    """The key of a file. It is read when it is first needed: who only looks at lists needs none."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._secret: bytes | None = None
        self.known = False
        """Whether it is known to be the key of the database's log."""

    def require(self, connection: sa.Connection, now: datetime) -> None:
        """Sees that this is the key of the database's log; the first key that a database meets becomes its key, and is
        made where there is none. Raises UsageError for another one, and where the file cannot be used."""
        if _kept(connection) is None:
            self._make()
            row = {"id": 1, "fingerprint": self.fingerprint, "created_at": now}
            # Of two programs that meet an empty database at once, one is the first.
            with contextlib.suppress(DBDuplicateEntry), connection.begin_nested():
                connection.execute(sa.insert(AuditKeyRow).values(row))
        self.require_same(connection)

    def require_same(self, connection: sa.Connection) -> None:
        """Raises UsageError where the log is written under another key: under this one nothing at all would fit."""
        if (fingerprint := _kept(connection)) not in (None, self.fingerprint):
            raise UsageError(
                f"The log of this database is written under the audit key {fingerprint}, and {self.file} holds "
                f"{self.fingerprint}: copy the file from a machine that has the right one, or set [audit] key_file."
            )

    @property
    def fingerprint(self) -> str:
        """What may be known of the key: 16 hexadecimal digits. Raises UsageError."""
        return self.mac(_MARK)[:16]

    def mac(self, content: bytes) -> str:
        """The HMAC (RFC 2104, SHA-256) of some content, in hexadecimal digits. Raises UsageError."""
        if self._secret is None:
            self._secret = self._read()
        return hmac.digest(self._secret, content, hashlib.sha256).hex()

    def _read(self) -> bytes:
        try:
            with self.file.open() as file:
                if os.fstat(file.fileno()).st_mode & stat.S_IROTH:
                    raise UsageError(
                        f"The audit key {self.file} can be read by everybody, who could forge the log with it: "
                        f"`chmod o= {shlex.quote(str(self.file))}`."
                    )
                secret = bytes.fromhex(file.read().strip())
        except FileNotFoundError:
            raise UsageError(
                f"There is no audit key {self.file}: copy the file from a machine that has it, or set [audit] key_file."
            ) from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a line of hexadecimal digits"
            raise UsageError(f"The audit key {self.file} cannot be used: {why}.") from None
        if len(secret) < BYTES:
            raise UsageError(f"The audit key {self.file} cannot be used: it has less than {BYTES} bytes.")
        return secret

    def _make(self) -> None:
        """Makes the file unless it is there: whole, or not at all, and only by the first of several programs."""
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.file.exists():
                return
            handle, name = tempfile.mkstemp(dir=self.file.parent, prefix=f".{self.file.name}-")
            try:
                with os.fdopen(handle, "w") as out:
                    out.write(f"{secrets.token_hex(BYTES)}\n")
                    out.flush()
                    os.fsync(out.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(name, self.file)
            finally:
                Path(name).unlink()
            sync_folder(self.file.parent)  # The database must not know a key that nobody has any more.
        except OSError as error:
            raise UsageError(f"The audit key {self.file} cannot be made: {error.strerror}.") from None


def _kept(connection: sa.Connection) -> str | None:
    """The fingerprint of the key that the database's log is written under, None as long as there is none."""
    return connection.scalar(sa.select(AuditKeyRow.fingerprint))
