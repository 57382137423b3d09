"""All about one migration: the facts of its report, and the report as one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from resizeflow import __version__
from resizeflow.audit.comparison import Line, comparison
from resizeflow.audit.outcome import Standing, standing
from resizeflow.audit.progress import Sample, duration, size
from resizeflow.audit.story import Story, story
from resizeflow.audit.timeline import Timeline, timeline
from resizeflow.audit.verify import verify
from resizeflow.errors import LogBroken, UsageError
from resizeflow.pages.chart import Chart, chart
from resizeflow.pages.rendering import environment, style
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import Event, Job, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import JobState


@dataclass(frozen=True)
class Verified:
    """Whether the log is what was written; None where that was not verified."""

    good: bool | None
    text: str


@dataclass(frozen=True)
class Report:
    """What is shown of a migration."""

    migration: Migration
    events: Sequence[Event]
    """Those that are listed: all, or the last ones."""
    count_told: str
    told: Timeline
    chart: Chart | None
    story: Story
    stands: Standing
    asked_by: str
    downtime: str
    bytes: str
    comparison: Sequence[Line]
    verified: Verified


def report_of(database: Database, migration_id: str, *, last: int | None = None) -> Report:
    """The facts as they are now; with `last` only so many lines of the log are listed. Raises NotFound,
    and LogBroken for a log that cannot even be told."""
    with database.read() as tx:
        migration = tx.migrations.get(migration_id)
        # Another transaction: what is written meanwhile verifies as well.
        return _report(tx, migration, _verified(database, migration.id), last)


def _report(tx: Transaction, migration: Migration, verified: Verified, last: int | None) -> Report:
    try:
        return _told(tx, migration, verified, last)
    except (AttributeError, TypeError, ValueError):
        if verified.good is not False:
            raise
        raise LogBroken(verified.text) from None  # What somebody wrote there cannot even be told.


def _told(tx: Transaction, migration: Migration, verified: Verified, last: int | None) -> Report:
    now = tx.now()
    jobs, events = tx.jobs.of_migration(migration.id), tx.events.of(migration.id)
    unfinished = next((job for job in jobs if job.state is not JobState.DONE), None)
    told = timeline(migration, jobs, events)
    if told.samples and told.runs[-1].end is None:
        told = replace(told, samples=[*told.samples, Sample(now, migration.bytes_done, migration.bytes_total)])
    instance = tx.instances.find(migration.instance_id)
    listed = events if last is None else events[-last:]
    return Report(
        migration=migration,
        events=listed,
        count_told=f"{len(events)} lines" if len(listed) == len(events) else f"the last {last} of {len(events)} lines",
        told=told,
        chart=chart(told, now),
        story=story(migration, jobs, events),
        stands=standing(migration.status, unfinished.state if unfinished else None),
        asked_by=_asked_by(jobs),
        downtime=_downtime(migration, told, now),
        bytes=f"{size(migration.bytes_done)} of {size(migration.bytes_total)}" if migration.bytes_total else "nothing",
        comparison=comparison(migration, instance.ports if instance else ()),
        verified=verified,
    )


def as_file(report: Report, now: datetime) -> str:
    """The report as one HTML document."""
    page = environment().get_template("report.html")
    return page.render(report=report, standalone=True, style=style(), now=now, version=__version__)


def _asked_by(jobs: Sequence[Job]) -> str:
    first = jobs[0] if jobs else None
    if first is None or first.asked_by is None:
        return "not known: it was asked for before this was kept"
    return f"{first.asked_by} on {first.asked_from}"


def _downtime(migration: Migration, told: Timeline, now: datetime) -> str:
    if not told.downtimes:
        return "none" if migration.was_running is not False else "none: it was off before"
    return ", ".join(
        duration(down.seconds) if down.seconds is not None else f"{duration((now - down.start).total_seconds())} so far"
        for down in told.downtimes
    )


def _verified(database: Database, migration_id: str) -> Verified:
    try:
        found = verify(database, migration=migration_id)
    except UsageError as error:
        return Verified(None, f"It was not verified: {error}")
    if found.findings:
        flaws = "; ".join(str(finding.flaw) for finding in found.findings)
        return Verified(False, f"The log is not what was written: {flaws}.")
    pruned = f" {found.pruned} more are only in archives." if found.pruned else ""
    return Verified(True, f"All {found.lines} lines verify: none was changed, added or removed.{pruned}")
