"""A PostgreSQL server of its own, for tests and benchmarks: its own folder, port on loopback, and end.

    with PostgreSQL() as server:
        server.create_database("state")
        Database(server.url("state"))

It leaves nothing behind, however its owner ends: a small process of the shell, the *keeper*, waits for a word or the
end of a pipe that the owner (and its forks) holds, then stops the server and removes the folder.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa

from lab.ports import ADDRESS, free_port
from lab.system import LabError, run

USER = "postgres"
PATIENCE = 240
"""Seconds that a busy machine gets for what takes one or two."""
PROGRAMS = Path("/usr/lib/postgresql")


class PostgreSQL:
    """One server, stopped until `start`. Its superuser `postgres` has a password that only `url` tells."""

    def __init__(self, parent: Path | None = None, **settings: str) -> None:
        """A new folder in `parent` (default: the machine's place for temporary files); `settings` are those of
        postgresql.conf. Raises LabError if PostgreSQL is not installed or cannot be set up."""
        self._programs = _programs()
        self._password = secrets.token_hex(8)
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="resizeflow-postgresql-", dir=parent))
        self.data = self.folder / "data"
        # PostgreSQL refuses to run as root.
        self._as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups") if os.geteuid() == 0 else ()
        if self._as_user:
            shutil.chown(self.folder, USER)
        self._keeper = self._start_keeper()
        try:
            self._initialise(settings)
        except BaseException:
            self.close()
            raise

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        stop = shlex.join([*self._as_user, *self._pg_ctl("stop", "immediate")])
        script = f"read -r _; {stop}; rm -rf {shlex.quote(str(self.folder))}"
        # In a session of its own: Ctrl-C at the terminal is its owner's.
        return subprocess.Popen(
            ["sh", "-c", script],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _initialise(self, settings: dict[str, str]) -> None:
        secret = self.folder / "password"
        secret.write_text(self._password)
        if self._as_user:
            shutil.chown(secret, USER)
        self._run(
            str(self._programs / "initdb"),
            f"--pgdata={self.data}",
            f"--username={USER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        own = {"listen_addresses": ADDRESS, "port": str(self.port), "unix_socket_directories": ""}
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in {**own, **settings}.items())

    def start(self) -> None:
        """Returns when it takes connections; on the same port as before."""
        self._run(*self._pg_ctl("start"), f"--log={self.folder / 'log'}")

    def stop(self) -> None:
        """The end that an administrator gives it (mode fast): open connections are cut, transactions undone."""
        self._run(*self._pg_ctl("stop", "fast"))

    def kill(self) -> None:
        """An end like a crash (mode immediate): the next start recovers from the log."""
        self._run(*self._pg_ctl("stop", "immediate"))

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the server, whatever it does, and removes its folder."""
        self._keeper.communicate(b"\n")

    def url(self, database: str) -> str:
        """For SQLAlchemy, with the password."""
        return f"postgresql+psycopg2://{USER}:{self._password}@{ADDRESS}:{self.port}/{database}"

    def create_database(self, name: str, template: str | None = None) -> None:
        """An empty one, or a copy of `template`, to which nobody may be connected."""
        self._execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))

    def drop_database(self, name: str) -> None:
        """Also if somebody is connected."""
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def __enter__(self) -> PostgreSQL:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.close()

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url(USER), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(statement))

    def _pg_ctl(self, command: str, mode: str | None = None) -> list[str]:
        how = [f"--mode={mode}"] if mode else []
        wait = ("--silent", "--wait", f"--timeout={PATIENCE}")
        return [str(self._programs / "pg_ctl"), command, *how, *wait, f"--pgdata={self.data}"]

    def _run(self, *argv: str) -> None:
        run([*self._as_user, *argv], timeout=PATIENCE)


def _programs() -> Path:
    """The newest version that Debian has installed."""
    found = sorted(PROGRAMS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise LabError("PostgreSQL is not installed: run scripts/bootstrap, or apt-get install postgresql-15")
    return found[-1].parent
