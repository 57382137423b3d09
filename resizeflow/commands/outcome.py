"""How a job ended, in one sentence, with the exit code that goes with it."""

from __future__ import annotations

import shlex

from resizeflow.commands.news import News
from resizeflow.errors import Interrupted, NeedsAttention, ResizeflowError
from resizeflow.persistence.models import Instance, Migration
from resizeflow.runbook import DEBTS, command_for
from resizeflow.states import JobState, MigrationStatus


class RolledBack(ResizeflowError):
    """The job failed, and everything is as before."""

    exit_code = 1


def told(news: News, *, rollback_wanted: bool = False) -> str:
    """The sentence for a job that ended well. Raises RolledBack, NeedsAttention or Interrupted with theirs.

    `rollback_wanted`: who waits for the end asked for the rollback, so that it is no failure.
    """
    if news.job.state is JobState.NEEDS_ATTENTION:
        raise NeedsAttention(_attention(news))
    if news.job.state is JobState.RUNNING or (news.job.state is JobState.QUEUED and news.workers):
        short = news.migration.id[:8]
        raise Interrupted(f"Not watched any more, the job goes on. `resizeflow migration watch {short}` follows it.")
    if news.job.state is not JobState.DONE:
        raise Interrupted(f"The job is kept. {how_to_go_on(news)}")
    sentence, good = _ENDS[news.job.flow.partition("_v")[0]](news)
    if news.debts:
        left = ", ".join(f"{debt.kind} {debt.object}" for debt in news.debts)
        sentence += (
            f" Left behind on a host that did not answer: {left}; a worker removes it when the host is back "
            f"(`{command_for(DEBTS)}`)."
        )
    if good or rollback_wanted:
        return sentence
    raise RolledBack(sentence)


def how_to_go_on(news: News) -> str:
    """The commands that take up a job that was put down."""
    short = news.migration.id[:8]
    sentence = f"Go on with `resizeflow migration resume {short}`"
    if news.job.pivot_at is None and news.job.flow.startswith(("resize", "revert")):
        sentence += f", or undo it with `resizeflow migration rollback {short}`"
    return f"{sentence}."


def _attention(news: News) -> str:
    reason = (news.job.reason or "no reason was stored").rstrip(".")
    return (
        f"{_what(news.migration, news.job.flow)} of {news.migration.instance_name} needs a person: {reason}. "
        f"`resizeflow migration history {news.migration.id[:8]}` shows how it came to this; put it right. "
        f"{how_to_go_on(news)}"
    )


def _what(migration: Migration, flow: str) -> str:
    name = flow.partition("_v")[0]
    if name == "resize":
        return "The resize" if migration.kind == "resize" else "The migration"
    return f"The {name}"


def _size(instance: Instance | None) -> str:
    return f"{instance.vm_state} on {instance.host.name} with flavor {instance.flavor.name}" if instance else "gone"


def _resize_end(news: News) -> tuple[str, bool]:
    migration, name = news.migration, news.migration.instance_name
    if migration.status is MigrationStatus.ERROR:
        reason = f" Reason: {migration.error.rstrip('.')}." if migration.error else ""
        return (
            f"{_what(migration, news.job.flow)} of {name} is rolled back: {name} is {_size(news.instance)}.{reason}",
            False,
        )
    host = migration.dest_host.name if migration.dest_host else "?"
    done = f"resized to {migration.new_flavor.name}" if migration.kind == "resize" else "moved"
    where = f"{done} on {host}" if migration.same_host or migration.kind == "resize" else f"{done} to {host}"
    typed = shlex.quote(name)
    return (
        f"{name} is {where}. Look at it, then keep it with `resizeflow confirm {typed}`, "
        f"or go back with `resizeflow revert {typed}`.",
        True,
    )


def _confirm_end(news: News) -> tuple[str, bool]:
    name = news.migration.instance_name
    if news.migration.status is MigrationStatus.FINISHED:
        return f"{name} is not confirmed and nothing was removed: {_reason(news)}", False
    return f"{name} is confirmed: {_size(news.instance)}. The way back is removed.", True


def _remove_end(news: News) -> tuple[str, bool]:
    name = news.migration.instance_name
    if news.migration.status is MigrationStatus.FINISHED:
        return f"{name} is not removed and stays resized: {_reason(news)}", False
    return f"{name} is confirmed and no longer managed; its domain was not touched. The way back is removed.", True


def _revert_end(news: News) -> tuple[str, bool]:
    name = news.migration.instance_name
    if news.migration.status is MigrationStatus.FINISHED:
        return f"{name} is not reverted and stays resized: {_reason(news)}", False
    return f"{name} is reverted: {_size(news.instance)}.", True


def _settle_end(news: News) -> tuple[str, bool]:
    return f"What was left behind by migration {news.migration.id[:8]} is removed.", True


def _reason(news: News) -> str:
    return f"{(news.migration.error or 'it was turned back').rstrip('.')}."


_ENDS = {
    "resize": _resize_end,
    "confirm": _confirm_end,
    "remove": _remove_end,
    "revert": _revert_end,
    "settle": _settle_end,
}
