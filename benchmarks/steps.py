"""What one durable flow costs: a resize on the simulator, and flows of empty steps on three engines.

Each runs in a process of its own, so that none pays for what another leaves behind, and waits there for the word to
run once: so they can be interleaved. All write to the same kind of database with the same durability: PostgreSQL as
it comes, or SQLite with WAL and synchronous=FULL.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from taskflow import engines, task
from taskflow.patterns import linear_flow
from taskflow.persistence import models
from taskflow.persistence.backends import impl_sqlalchemy

from benchmarks.bench import BenchError
from resizeflow import flows
from resizeflow.chaos.cloud import Cloud
from resizeflow.clock import Clock
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
from resizeflow.persistence.flow_store import FlowStore
from resizeflow.persistence.models import Flavor, Host, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.persistence.unit_of_work import UnitOfWork
from resizeflow.states import JobState, MigrationStatus, VmState
from resizeflow.worker import Worker

STEPS = len(flows.TASKS["resize_v1"])
MIGRATION = {
    "instance_name": "web",
    "project_id": "default",
    "kind": "resize",
    "status": MigrationStatus.CONFIRMED,
    "source_host_id": "h",
    "dest_host_id": "h",
    "old_flavor_id": "f",
    "new_flavor_id": "f",
    "old_vm_state": VmState.ACTIVE,
}
"""One that holds nothing: its id, instance and time are missing."""
_WRITES_OR_READS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"})


@dataclass(frozen=True)
class Cost:
    """Of one run; `cpu_seconds` are the client's alone, and the only ones that a busy machine hardly changes."""

    seconds: float
    cpu_seconds: float
    statements: int
    commits: int


class Engine(ABC):
    """Something that runs one flow of `STEPS` tasks on a database."""

    sql: sa.Engine

    def __init__(self, url: str, memory: Path) -> None:
        """Opens an empty database; `memory` is for what is not to be measured."""
        self.url = url
        self.memory = memory

    @abstractmethod
    def once(self) -> None:
        """One flow, from its submission to its end."""

    def between(self) -> None:  # noqa: B027 - most need nothing
        """What makes the next run possible; not measured."""


def durable(engine: sa.Engine) -> sa.Engine:
    """SQLite as resizeflow opens it; PostgreSQL is durable as it comes."""
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def connected(connection: Any, _record: object) -> None:
            cursor = connection.cursor()
            for pragma in ("busy_timeout=20000", "journal_mode=WAL", "synchronous=FULL"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    return engine


class Resize(Engine):
    """A whole resize to another host, of a running machine, with all that the simulator does for it."""

    def __init__(self, url: str, memory: Path) -> None:
        super().__init__(url, memory)
        schema.upgrade(Database(url))
        self.cloud = Cloud(memory, connection=url).build()
        self.cloud.world.set_speed(**dict.fromkeys(("transfer_seconds", "shutdown_seconds"), 0))
        self.sql = self.cloud.database.engine
        self.worker = Worker(self.cloud.database, self.cloud.settings, clock=self.cloud.clock, announced=False)

    def once(self) -> None:
        job = self.cloud.service.resize("web", "big", host="h2")
        self.worker.take_and_run(job.job_id)
        if self.cloud.migration(job).status is not MigrationStatus.FINISHED:
            raise BenchError(f"the resize did not finish:\n{self.cloud.story(job)}")

    def between(self) -> None:
        self.worker.take_and_run(self.cloud.service.revert("web").job_id)


def empty_flow() -> Any:
    """As many tasks as a resize has, which do nothing, for TaskFlow's engine."""

    def nothing() -> None:
        pass

    return linear_flow.Flow("empty").add(*(task.FunctorTask(nothing, name=f"empty{n}") for n in range(STEPS)))


class Ours(Engine):
    """TaskFlow's serial engine on our flow store: leases, fenced writes, the event log."""

    def __init__(self, url: str, memory: Path) -> None:
        super().__init__(url, memory)
        self.database = Database(url, key=memory / "audit.key")
        self.sql = self.database.engine
        schema.upgrade(self.database)
        with self.database.write() as tx:
            add_past_of_one_host(tx)

    def once(self) -> None:
        job_id, migration_id = str(uuid.uuid4()), str(uuid.uuid4())
        with self.database.write() as tx:
            tx.session.add(Migration(id=migration_id, instance_id=migration_id, created_at=tx.now(), **MIGRATION))
            tx.session.flush()
            tx.jobs.create(job_id, migration_id, migration_id, "empty")
        with self.database.write() as tx:
            lease = tx.jobs.take(job_id, "bench", 600)
        if lease is None:
            raise BenchError("our job could not be taken")
        store = FlowStore(self.database, lease, UnitOfWork(migration_id))
        detail = store.get_connection().get_flow_details(job_id)
        engines.load(empty_flow(), flow_detail=detail, backend=store, engine="serial").run()
        with self.database.read() as tx:
            if tx.jobs.get(job_id).state is not JobState.DONE:
                raise BenchError("our flow of empty tasks did not end")


def add_past_of_one_host(tx: Transaction) -> None:
    """The host and the flavor of MIGRATION."""
    tx.session.add(Host(id="h", name="h", uri="simulator://", pool="p", vcpus=1, memory_mb=1, disk_gb=1))
    tx.session.add(Flavor(id="f", name="f", vcpus=1, memory_mb=1, root_gb=1))


class StockTaskFlow(Engine):
    """TaskFlow's serial engine on its own SQL persistence."""

    def __init__(self, url: str, memory: Path) -> None:
        super().__init__(url, memory)
        self.sql = durable(sa.create_engine(url))
        self.backend = impl_sqlalchemy.SQLAlchemyBackend({"connection": url}, engine=self.sql)
        with contextlib.closing(self.backend.get_connection()) as connection:
            connection.upgrade()

    def once(self) -> None:
        engine = engines.load(empty_flow(), book=models.LogBook("one"), backend=self.backend, engine="serial")
        engine.run()
        if engine.storage.get_flow_state() != "SUCCESS":
            raise BenchError("TaskFlow's flow of empty tasks did not end")


class Dbos(Engine):
    """dbos, the durable execution library of Python that needs no server but a database."""

    def __init__(self, url: str, memory: Path) -> None:
        super().__init__(url, memory)
        from dbos import DBOS  # noqa: PLC0415 - it starts threads of its own

        self.sql = durable(sa.create_engine(sa.make_url(url).set(drivername=self._driver(url))))
        DBOS(
            config={
                "name": "bench",
                "system_database_engine": self.sql,
                "enable_otlp": False,
                "log_level": "ERROR",
                "application_version": "1",
            }
        )

        @DBOS.step()
        def step(_number: int) -> None:
            pass

        @DBOS.workflow()
        def flow() -> str:
            for number in range(STEPS):
                step(number)
            return "done"

        DBOS.launch()
        self._flow = flow

    @staticmethod
    def _driver(url: str) -> str:
        return "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"

    def once(self) -> None:
        if self._flow() != "done":
            raise BenchError("the workflow of dbos did not end")


ENGINES: dict[str, type[Engine]] = {
    "whole resize, simulator": Resize,
    "resizeflow, empty tasks": Ours,
    "stock TaskFlow, empty tasks": StockTaskFlow,
    "dbos, empty steps": Dbos,
}


class Runner:
    """An engine in a process of its own."""

    def __init__(self, name: str, url: str, memory: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, url, memory), daemon=True)
        self._process.start()
        theirs.close()
        self.once()  # the first run compiles statements and opens connections

    def once(self) -> Cost:
        """Runs one flow there. Raises BenchError if it did not end well."""
        self._pipe.send(True)
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise BenchError("an engine's process ended unexpectedly") from None
        if not isinstance(answer, Cost):
            raise BenchError(answer)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def runners(url_of: dict[str, str], memory: Path) -> Iterator[dict[str, Runner]]:
    """One process per engine; `url_of` gives each an empty database of its own."""
    with contextlib.ExitStack() as stack:
        running = {}
        for number, (name, url) in enumerate(url_of.items()):
            folder = memory / str(number)
            folder.mkdir()
            running[name] = Runner(name, url, folder)
            stack.callback(running[name].close)
        yield running


def _serve(pipe: Connection, name: str, url: str, memory: Path) -> None:
    logging.disable(logging.CRITICAL)
    engine = ENGINES[name](url, memory)
    counter = Counter(engine.sql)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while pipe.recv():
            counter.reset()
            began, cpu = Clock().boottime(), time.process_time()
            try:
                engine.once()
            except BenchError as error:
                pipe.send(str(error))
                return
            seconds, cpu_seconds = Clock().boottime() - began, time.process_time() - cpu
            cost = Cost(seconds, cpu_seconds, counter.statements, counter.commits)
            engine.between()
            pipe.send(cost)


class Counter:
    """Statements (BEGIN is not counted: not every driver shows it) and commits of an engine, of all its threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self.reset()

        @sa.event.listens_for(engine, "before_cursor_execute")
        def executed(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            self.statements += statement.split(None, 1)[0].upper() in _WRITES_OR_READS

        @sa.event.listens_for(engine, "commit")
        def committed(_connection: object) -> None:
            self.commits += 1

    def reset(self) -> None:
        self.statements = self.commits = 0
