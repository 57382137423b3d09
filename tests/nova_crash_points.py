"""The 19 moments at which Nova was killed, the moment of ours that each corresponds to, and what is there afterwards.

    python -m tests.nova_crash_points

kills a worker at each and writes what it saw into docs/nova-parity.md; `tests/unit/test_nova_crash_points.py` does the
same and compares. The cloud is that of Nova's measurement in small: h1 is the source, h2 the destination, the machine
is resized from 1 vCPU/512 MiB/1 GiB to 2/1024/2 and has one port and one volume.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from taskflow import states

from resizeflow.chaos.child import KILLED, Child
from resizeflow.chaos.cloud import CHILD_SECONDS, Cloud
from resizeflow.chaos.judge import broken_invariants
from resizeflow.errors import Conflict
from resizeflow.persistence.models import AtomDetail, Job
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker
from tests.seen import Seen, look

PAGE = Path(__file__).parents[1] / "docs" / "nova-parity.md"
MOMENTS_MARK, OUTCOMES_MARK = "nova-crash-moments", "nova-crash-outcomes"
"""The comments between which the page has the two tables."""


VOLUMES = ("rbd",)
"""The kinds of the machine's volumes."""


@dataclass(frozen=True)
class Moment:
    """Where Nova died, what it left for good (measured, after a restart and its periodic tasks), and where we die."""

    name: str
    nova: str
    left: str
    operation: str
    """What is asked for: resize, or confirm or revert of a finished one."""
    point: str
    """The failpoint at which the worker is killed; `TASK: STATEMENT WORD` is inside a transaction, after the statement
    that has the word as a value."""
    because: str
    turns_back: bool = True
    """Whether a rollback can be asked for then."""


MOMENTS = (
    Moment(
        "a1",
        "destination, prep_resize before the claim",
        "RESIZE, resize_prep; pre-migrating; I=h2, M=h1",
        "resize",
        "PrepareDestination.RUNNING.after",
        "a destination is chosen and held, nobody has looked at it yet",
    ),
    Moment(
        "a2",
        "destination, after the claim, before the cast",
        "as a1, and the destination counts the machine",
        "resize",
        "PrepareDestination.SUCCESS.after",
        "the destination is accepted, the source not yet touched",
    ),
    Moment(
        "b1",
        "source, after power-off and disk copy",
        "ACTIVE; migrating for ever; I=h2, M=h1",
        "resize",
        "TransferDisks.SUCCESS.before",
        "the machine is off, its disks are on both hosts, no record says so",
    ),
    Moment(
        "b2",
        "source, host moved in the database, before the cast",
        "RESIZE, resize_migrated; volume reserved; runs nowhere",
        "resize",
        "MoveInstance.SUCCESS.after",
        "the record says h2, nothing is defined there",
    ),
    Moment(
        "c",
        "destination, finish_resize before the driver",
        "RESIZE, resize_finish; runs nowhere",
        "resize",
        "ResizeDisks.grow_volume#1.before",
        "records are the destination's, the first effect there is about to happen",
    ),
    Moment(
        "d1",
        "destination, after driver.finish_migration",
        "RESIZE, resize_finish; runs on h2",
        "resize",
        "StartDestination.SUCCESS.before",
        "the machine runs on h2, the task's success is not saved",
        turns_back=False,
    ),
    Moment(
        "d2",
        "destination, migration saved, instance not",
        "RESIZE, resize_finish; finished, but cannot be decided",
        "resize",
        "FinishResize: UPDATE migrations finished",
        "both are one transaction; it dies between them",
        turns_back=False,
    ),
    Moment(
        "e1",
        "conductor, after the allocation move",
        "RESIZE, resize_prep; I=none, M=h1",
        "resize",
        "SelectDestination: UPDATE allocations migration:",
        "the move and the destination's allocation are one transaction; it dies between them",
    ),
    Moment(
        "e2",
        "conductor, after scheduling, before the cast",
        "RESIZE, resize_prep; I=h2, M=h1",
        "resize",
        "SelectDestination.commit.allocate#1.after",
        "allocations are committed, the task's success is not; there is no cast to lose",
    ),
    Moment(
        "f0",
        "API or message bus, the confirm's cast lost",
        "VERIFY_RESIZE; confirming: neither confirm nor revert",
        "confirm",
        "job.submit.after",
        "the job is in the database with the answer; who submitted it dies, no worker is up",
        turns_back=False,
    ),
    Moment(
        "f1",
        "confirm, source, before the driver",
        "as f0; the port's source binding gone",
        "confirm",
        "RemoveSourceDomain.undefine#1.before",
        "bindings are removed, the source's domain and disks are there",
        turns_back=False,
    ),
    Moment(
        "f2",
        "confirm, source, after the driver",
        "as f0; the source's copy gone",
        "confirm",
        "RemoveSourceDisks.SUCCESS.before",
        "the source's copy is gone, no record says so",
        turns_back=False,
    ),
    Moment(
        "f3",
        "confirm, before the allocation's delete",
        "ACTIVE; M=h1 leaked silently",
        "confirm",
        "FinishConfirm: UPDATE migrations confirmed",
        "status and allocation are one transaction; it dies between them",
        turns_back=False,
    ),
    Moment(
        "f4",
        "confirm, before the flavor stash's delete",
        "ACTIVE; old and new flavor left in the record",
        "confirm",
        "FinishConfirm.SUCCESS.after",
        "all is committed but the job's own end",
        turns_back=False,
    ),
    Moment(
        "g1",
        "revert, destination, after destroy",
        "REVERT_RESIZE; reverting; runs nowhere, the destination's disks gone",
        "revert",
        "PowerOffDestination.SUCCESS.before",
        "the machine is off on h2; its disks stay until the source runs",
    ),
    Moment(
        "g2",
        "revert, destination, before the finish's cast",
        "REVERT_RESIZE; reverted; volume reserved; runs nowhere",
        "revert",
        "RetireDestination.SUCCESS.after",
        "the destination is put away, the record says h2 still",
    ),
    Moment(
        "g3",
        "finish_revert, source, before the allocation's revert",
        "REVERT_RESIZE; reverted; host h1, I=h2, M=h1",
        "revert",
        "MoveInstanceBack.SUCCESS.after",
        "the record says h1, allocations are those of the resize",
    ),
    Moment(
        "g4",
        "finish_revert, before the driver",
        "REVERT_RESIZE; reverted; not started",
        "revert",
        "StartSource.start_paused#1.before",
        "the source is whole again and not started",
    ),
    Moment(
        "g5",
        "finish_revert, after the driver, before the save",
        "REVERT_RESIZE; reverted; runs on h1",
        "revert",
        "StartSource.SUCCESS.before",
        "the machine runs on h1, the task's success is not saved",
        turns_back=False,
    ),
)


# --- how it is to end ----------------------------------------------------------------------------------------

FINISHED = Seen(
    "VERIFY_RESIZE; resized/-; h2, 2/1024/2",
    "finished",
    "I=h2 2/1024/2, M=h1 1/512/1",
    "h2, h1 kept",
    "runs: h2; disks: h1, h2",
    "2/1024/2",
    "in-use at h2, 1 reserved",
)
CONFIRMED = Seen(
    "ACTIVE; active/-; h2, 2/1024/2",
    "confirmed",
    "I=h2 2/1024/2",
    "h2",
    "runs: h2; disks: h2",
    "2/1024/2",
    "in-use at h2",
)
REVERTED = Seen(
    "ACTIVE; active/-; h1, 1/512/1",
    "reverted",
    "I=h1 1/512/1",
    "h1",
    "runs: h1; disks: h1",
    "1/512/1",
    "in-use at h1",
)
ROLLED_BACK = replace(REVERTED, migration="error")

DONE = {"resize": FINISHED, "confirm": CONFIRMED, "revert": REVERTED}
TURNED_BACK = {"resize": ROLLED_BACK, "revert": FINISHED}
AS_BEFORE = {"resize": "as before the resize", "revert": "resized as before the revert"}
REFUSED = "refused: it only goes forward"


# --- dying, and what a new worker makes of it ----------------------------------------------------------------


def die(cloud: Cloud, moment: Moment) -> Submitted:
    """Asks for the operation and dies at the moment; nobody works on the job any more, its lease has ended."""
    resize = cloud.service.resize("web", "big", host="h2")
    job = resize
    if moment.operation != "resize":
        if cloud.run(resize) is not JobState.DONE:
            raise RuntimeError(cloud.story(resize))
        job = _decide(cloud, moment, resize)
    if moment.point != "job.submit.after":
        cloud.release()
        point, _, in_transaction = moment.point.partition(": ")
        work = _dying_after(cloud, job, in_transaction) if in_transaction else lambda: cloud.run(job)
        status = Child(work, "" if in_transaction else f"{point}=kill").wait(CHILD_SECONDS)
        if status != KILLED or (in_transaction and not _was_at_work(cloud, job, point)):
            raise RuntimeError(f"{moment.point} was not passed:\n{cloud.story(job)}")
    cloud.expire(job)
    return job


def _decide(cloud: Cloud, moment: Moment, resize: Submitted) -> Submitted:
    """Asks for a confirm or revert in a process that may die as soon as it is accepted."""
    cloud.release()
    ask: Callable[[str], Submitted] = getattr(cloud.service, moment.operation)
    lost = moment.point == "job.submit.after"
    status = Child(lambda: ask("web"), "job.submit.after=kill" if lost else "").wait(CHILD_SECONDS)
    if status != (KILLED if lost else 0):
        raise RuntimeError(f"{moment.operation} ended with {status}")
    with cloud.database.read() as tx:
        latest = sa.select(Job).where(Job.migration_id == resize.migration_id, Job.state != JobState.DONE)
        return Submitted(resize.migration_id, tx.session.scalars(latest).one().id)


def _dying_after(cloud: Cloud, job: Submitted, in_transaction: str) -> Callable[[], object]:
    """A run that is killed inside a transaction, right after a statement with that word among its values."""
    statement, _, word = in_transaction.rpartition(" ")

    def after(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_more: Any) -> None:
        values = parameters.values() if isinstance(parameters, dict) else parameters
        if sql.startswith(statement) and any(str(value).startswith(word) for value in values):
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        sa.event.listen(cloud.database.engine, "after_cursor_execute", after)
        cloud.run(job)

    return run


def _was_at_work(cloud: Cloud, job: Submitted, task: str) -> bool:
    with cloud.database.read() as tx:
        atom = sa.select(AtomDetail.state).where(AtomDetail.parent_uuid == job.job_id, AtomDetail.name == task)
        return bool(tx.session.scalar(atom) == states.RUNNING)


def let_a_worker_run(cloud: Cloud) -> None:
    """Only a new worker, which finds by itself what there is to do."""
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()


def turn_back(cloud: Cloud, job: Submitted) -> bool:
    """Asks for a rollback; False if it is refused."""
    try:
        cloud.service.rollback(job.migration_id)
    except Conflict:
        return False
    return True


def wrong(cloud: Cloud, job: Submitted, expected: Seen) -> list[str]:
    """What is not as it should be, in sentences."""
    seen = look(cloud, job)
    differences = [f"{found} instead of {due}" for found, due in zip(seen.cells, expected.cells, strict=True)]
    unequal = [text for text in differences if len(set(text.split(" instead of "))) > 1]
    migration, row = cloud.migration(job), cloud.job(job)
    hosts = [host.name for host in (migration.source_host, migration.dest_host) if host]
    others = [] if hosts == ["h1", "h2"][: len(hosts)] else [f"the migration's hosts are {', '.join(hosts)}"]
    unfinished = [] if row.state is JobState.DONE else [f"the job is {row.state}: {row.reason}"]
    return [*unequal, *others, *unfinished, *broken_invariants(cloud)]


# --- the page ------------------------------------------------------------------------------------------------


def moment_row(moment: Moment, left: Seen) -> str:
    """How a moment of Nova's corresponds to ours, and what our kill leaves."""
    state = f"{left.state}; {left.migration}; {left.allocations}; {left.guest}; volume: {left.volume}"
    return _row(f"**{moment.name}**", moment.nova, moment.left, f"`{moment.point}`", moment.because, state)


def outcome_row(moment: Moment, seen: Seen, found: list[str], back: str) -> str:
    """What is there once a new worker has run, and what becomes of a rollback asked for instead."""
    return _row(f"**{moment.name}**", *seen.cells, "; ".join(found) or "clean", back)


def rolled_back(cloud: Cloud, moment: Moment, job: Submitted) -> str:
    """Asks for a rollback after the kill and lets a new worker run; what comes of it."""
    turned = turn_back(cloud, job)
    let_a_worker_run(cloud)
    if found := wrong(cloud, job, (TURNED_BACK if turned else DONE)[moment.operation]):
        return "; ".join(found)
    return AS_BEFORE[moment.operation] if turned else REFUSED


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([_row(*head), _row(*["---"] * len(head)), *rows])


def examine(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """The rows of each moment, and whether it ended clean."""
    for moment in MOMENTS:
        turned = _new_cloud(folder / f"{moment.name}-turned")
        back = rolled_back(turned, moment, die(turned, moment))
        cloud = _new_cloud(folder / moment.name)
        job = die(cloud, moment)
        first = moment_row(moment, look(cloud, job))
        let_a_worker_run(cloud)
        found = wrong(cloud, job, DONE[moment.operation])
        yield first, outcome_row(moment, look(cloud, job), found, back), not found


def _new_cloud(folder: Path) -> Cloud:
    folder.mkdir()
    return Cloud(folder).build(volumes=VOLUMES)


def write_between(text: str, mark: str, content: str) -> str:
    """The page with what is between a mark's two comments replaced."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Writes both tables."""
    with tempfile.TemporaryDirectory() as folder:
        moments, outcomes, clean = zip(*examine(Path(folder)), strict=True)
    first = ("point", "Nova: who dies", "what Nova keeps", "ours dies at", "because", "what our kill leaves")
    second = (
        "point",
        "status; vm/task; host, flavor",
        "migration",
        "allocations",
        "port",
        "volume",
        "guest",
        "quota",
        "doctor",
        "a rollback instead",
    )
    count = f"**{sum(clean)} of {len(clean)}** end clean by themselves once a worker runs; Nova: 0 of 19."
    page = write_between(PAGE.read_text(), MOMENTS_MARK, _table(first, list(moments)))
    PAGE.write_text(write_between(page, OUTCOMES_MARK, f"{count}\n\n{_table(second, list(outcomes))}"))
    print(count)


if __name__ == "__main__":
    main()
