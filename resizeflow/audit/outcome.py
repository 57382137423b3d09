"""What a migration is and how it stands, in a sentence each."""

from __future__ import annotations

import shlex
from enum import StrEnum

from resizeflow.persistence import next_actions
from resizeflow.persistence.models import Job, Migration
from resizeflow.runbook import ATTENTION, command_for, page_of_reason
from resizeflow.states import Direction, JobState, MigrationStatus


class Standing(StrEnum):
    """How a migration stands, in a word."""

    IN_FLIGHT = "in flight"
    ATTENTION = "needs attention"
    UNDECIDED = "to be decided"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    ROLLED_BACK = "rolled back"


_ENDED = {
    MigrationStatus.FINISHED: Standing.UNDECIDED,
    MigrationStatus.CONFIRMED: Standing.CONFIRMED,
    MigrationStatus.REVERTED: Standing.REVERTED,
    MigrationStatus.ERROR: Standing.ROLLED_BACK,
}


def standing(status: MigrationStatus, job_state: JobState | None) -> Standing:
    """`job_state` is that of the migration's unfinished job, None if it has none."""
    if job_state is JobState.NEEDS_ATTENTION:
        return Standing.ATTENTION
    return _ENDED.get(status, Standing.IN_FLIGHT) if job_state is None else Standing.IN_FLIGHT


def title(migration: Migration) -> str:
    """`resize of web-1, small to medium, h1 to h2`."""
    sizes = f", {migration.old_flavor.name} to {migration.new_flavor.name}" if migration.kind == "resize" else ""
    to = migration.dest_host.name if migration.dest_host else "a host yet to be chosen"
    return f"{migration.kind} of {migration.instance_name}{sizes}, {migration.source_host.name} to {to}"


def sentence(migration: Migration, job: Job | None) -> str:
    """How it stands; `job` is its unfinished one."""
    name = migration.instance_name
    old = f"on {migration.source_host.name} with flavor {migration.old_flavor.name}"
    new = f"on {migration.dest_host.name if migration.dest_host else '?'} with flavor {migration.new_flavor.name}"
    because = f" Reason: {migration.error.rstrip('.')}." if migration.error else ""
    match standing(migration.status, job.state if job else None):
        case Standing.ATTENTION:
            reason = (job.reason if job else None) or "no reason was stored"
            return f"It needs a person: {reason.rstrip('.')}."
        case Standing.UNDECIDED:
            return f"{name} runs, or can run, {new}. It is to be confirmed or reverted.{because}"
        case Standing.CONFIRMED:
            return f"Confirmed: {name} is {new}; the way back is removed."
        case Standing.REVERTED:
            return f"Reverted: {name} is {old}, as before."
        case Standing.ROLLED_BACK:
            return f"Rolled back: {name} is {old}, as before.{because or ' A person asked for it.'}"
        case _:
            return _in_flight(migration, job, because)


def _in_flight(migration: Migration, job: Job | None, because: str) -> str:
    if job is None:
        return f"It is {migration.status}, and has no job."
    what = job.flow.partition("_v")[0]
    if job.direction is Direction.BACK:
        return f"The {what} is being undone.{because}"
    if job.state is JobState.QUEUED:
        return f"The {what} waits: {job.reason.rstrip('.')}." if job.reason else f"The {what} waits for a worker."
    return f"The {what} is under way; nothing is decided yet."


def advice(migration_id: str, instance: str, stands: Standing, job_reason: str | None, error: str | None) -> str | None:
    """What an operator does about it, with commands between backquotes; None if nothing is asked of anybody."""
    if stands is Standing.ATTENTION:
        page = command_for(page_of_reason(job_reason or "", ATTENTION))
        return f"put right what the reason says (`{page}`), then `resizeflow migration resume {migration_id[:8]}`"
    if stands is Standing.UNDECIDED:
        name = shlex.quote(instance)
        return f"keep it with `resizeflow confirm {name}`, or go back with `resizeflow revert {name}`"
    if stands is Standing.IN_FLIGHT and job_reason:
        return next_actions.of_wait(job_reason)
    if stands is Standing.ROLLED_BACK and error:
        return next_actions.of_failure(error)
    return None
