"""What all tasks share: how they run, what they may let out, and the look-act loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskflow import task

from resizeflow.connections import Away, HostAway, ServiceAway
from resizeflow.drivers.interface import DriverError, Missing, Unknown
from resizeflow.handover import Attention, Handover, Waiting
from resizeflow.persistence.database import AWAY, away
from resizeflow.persistence.models import Host, Migration
from resizeflow.states import Direction
from resizeflow.world import World

LOOK_AGAIN = 3
"""How often an act whose outcome is unknown is looked at and, if it did not happen, repeated."""
WAIT_FOR_HOST = 10.0
"""Seconds before a job that waits for a host, for Cinder or for Neutron is taken up again."""


class StorageAway(DriverError):
    """A machine's start hangs: its storage does not answer its host, which goes on with it for minutes."""


class MoveTask(task.Task):
    """A task of a migration. Subclasses write `do` and `undo`; both look at the world first and do what is missing.

    Of what leaves `do`: an ordinary exception is a failed task and turns the flow back, unless the task (or, after
    the pivot, every task) only goes forward: then it is a `Handover`, like everything that leaves `undo`.
    """

    forward_only = False
    """True for a task that no failure may turn back."""

    def __init__(self, world: World, migration_id: str) -> None:
        super().__init__(name=type(self).__name__)
        self.world = world
        self.gate = world.gate
        self.migration_id = migration_id

    def do(self, migration: Migration) -> None:
        """Brings the effect about."""
        raise NotImplementedError

    def undo(self, migration: Migration) -> None:
        """Takes the effect back, however much of it there is. By default there was none."""

    # --- TaskFlow's side ---------------------------------------------------------------------------------

    def execute(self) -> None:
        """Runs `do`. Provides nothing: what a successor needs is in our own rows."""
        with self.gate.scope(self.name, Direction.FORWARD):
            self.gate.glance()
            try:
                self._forward()
            except AWAY as error:
                # A database that hiccups is no reason to turn back.
                raise away(error) from error

    def _forward(self) -> None:
        migration = self.migration()
        try:
            self.do(migration)
        except AWAY:
            raise
        except ServiceAway as error:
            # The way back needs it as well, wherever something was done to a volume or a port.
            raise Waiting(str(error), delay=WAIT_FOR_HOST) from error
        except HostAway as error:
            if self._only_forward() or error.host.id == migration.source_host_id:
                raise Waiting(str(error), delay=WAIT_FOR_HOST) from error
            raise
        except StorageAway as error:
            if self._only_forward():
                raise Waiting(str(error), delay=WAIT_FOR_HOST) from error
            raise
        except Exception as error:
            if self._only_forward():
                raise Handover(f"{self.name}: {error}") from error
            raise

    def revert(self, *_args: Any, **_kwargs: Any) -> None:
        """Runs `undo`, which never fails: what cannot be undone now is tried again later."""
        with self.gate.scope(f"{self.name}.revert", Direction.BACK):
            self.gate.glance()
            try:
                self.undo(self.migration())
            except (Away, StorageAway) as error:
                raise Waiting(str(error), delay=WAIT_FOR_HOST) from error
            except Exception as error:
                raise Handover(f"undoing {self.name}: {error}") from error

    def _only_forward(self) -> bool:
        if self.forward_only:
            return True
        with self.world.database.read() as tx:
            return tx.jobs.get(self.world.lease.job_id).pivot_at is not None

    # --- for the tasks -----------------------------------------------------------------------------------

    def migration(self) -> Migration:
        """The migration's row as it is now, detached."""
        with self.world.database.read() as tx:
            return tx.migrations.whole(self.migration_id)

    def tell(self, text: str, **data: Any) -> None:
        """A line for the story of this migration."""
        self.world.work.tell("note", text, task=self.name, **data)

    def tell_retry(self, text: str) -> None:
        """What did not come about is tried again."""
        self.world.work.tell("retry", text, task=self.name)

    def notify(self, event_type: str) -> None:
        """Tells others, in the transaction of this task's success."""
        self.world.work.record(lambda tx: tx.notify(event_type, tx.migrations.get(self.migration_id), task=self.name))

    def ensure(self, done: Callable[[], bool], act: Callable[[], object], what: str) -> None:
        """Look, act, look again: the effect happened, once, however often we are killed in between.

        Raises what the act raises when it is refused and the effect is not there either.
        """
        last = ""
        for tries in range(LOOK_AGAIN):
            if done():
                return
            if tries:
                self.tell_retry(f"{what}: no sign of it yet{last}; tried again")
            try:
                act()
            except Unknown as error:
                last = f"; {error}"
                self.gate.pause(0.5)
            except DriverError:
                if done():
                    return
                raise
        if not done():
            raise DriverError(f"{what}: no sign of it after {LOOK_AGAIN} tries{last}")

    def forget(self, act: Callable[[], object]) -> None:
        """An act that removes something: gone already is fine, an unknown outcome is tried again."""
        for tries in range(LOOK_AGAIN):
            if tries:
                self.tell_retry("a removal without an answer is tried again")
            try:
                act()
            except Unknown:
                self.gate.pause(0.5)
            except Missing:
                return
            else:
                return
        raise DriverError("no answer to a removal, several times")

    def owe(self, migration: Migration, host: Host, kind: str, name: str, reason: str) -> None:
        """Writes a debt down: something of ours stays on a host that cannot be reached."""
        with self.world.intent("debt") as tx:
            row = tx.migrations.get(migration.id)
            tx.debts.record(row, host, kind=kind, name=name, reason=reason, task=self.name)

    def attention(self, reason: str) -> Attention:
        """Nothing is touched until a person has decided."""
        return Attention(f"{self.name}: {reason}")


def destination(migration: Migration) -> Host:
    """The destination, once it is selected."""
    if migration.dest_host is None:
        raise LookupError(f"migration {migration.id} has no destination yet")
    return migration.dest_host
