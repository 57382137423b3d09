"""What is committed of a machine's states while a job runs: what everybody else sees of it, and what a kill leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.transaction import Transaction
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus, TaskState, VmState


@dataclass(frozen=True)
class States:
    """A machine, its migration and that one's latest job."""

    vm_state: VmState
    task_state: TaskState | None
    status: MigrationStatus
    flow: str
    direction: Direction
    pivoted: bool
    done: bool

    @property
    def nova(self) -> tuple[str, str | None, str]:
        """What Nova knows of it."""
        return str(self.vm_state), str(self.task_state) if self.task_state else None, str(self.status)


def states(cloud: Cloud, job: Submitted) -> States | None:
    """As they are now; None once the machine is forgotten."""
    with cloud.database.read() as tx:
        instance = tx.instances.find("web")
        migration, row = tx.migrations.get(job.migration_id), tx.jobs.of_migration(job.migration_id)[-1]
        if instance is None:
            return None
        return States(
            instance.vm_state,
            instance.task_state,
            migration.status,
            row.flow,
            row.direction,
            row.pivot_at is not None,
            row.state is JobState.DONE,
        )


@contextmanager
def watched(cloud: Cloud, job: Submitted, told: Callable[[States], None]) -> Iterator[None]:
    """Tells of the states after each commit in which they changed, the present ones first."""
    last: States | None = None
    commit = Transaction.commit

    def look() -> None:
        nonlocal last
        now = states(cloud, job)
        if now is not None and now != last:
            last = now
            told(now)

    def watching(tx: Transaction) -> None:
        commit(tx)
        look()

    look()
    with patch.object(Transaction, "commit", watching):
        yield
