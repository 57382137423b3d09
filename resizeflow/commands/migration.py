"""`resizeflow migration`: what was and is being done, and putting a stuck one right."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from resizeflow.commands.attachments import Attachments
from resizeflow.commands.base import (
    Command,
    Lines,
    Lister,
    Maybe,
    Moment,
    Sentence,
    ShortId,
    Shown,
    ShowOne,
    one,
    table,
)
from resizeflow.commands.moving import Acting, result_of
from resizeflow.commands.verdicts import Verdicts
from resizeflow.errors import ResizeflowError
from resizeflow.runbook import ATTENTION, ROLLED_BACK, WAITS, command_for, page_of_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resizeflow.persistence.models import Job, Migration
    from resizeflow.persistence.transaction import Transaction

COLUMNS = (
    "id",
    "instance",
    "kind",
    "status",
    "source",
    "destination",
    "old_flavor",
    "new_flavor",
    "job",
    "auto_confirm_at",
    "created_at",
    "why",
)
ID = "its id, or the beginning of it"


def rows_of(tx: Transaction, migrations: Sequence[Migration], window: float = 0.0) -> list[dict[str, Any]]:
    """Migrations as they are listed, with their unfinished jobs, and when they will be confirmed by themselves."""
    from resizeflow.auto_confirm import due  # noqa: PLC0415 - SQLAlchemy is not needed for help

    jobs = tx.jobs.unfinished_of([migration.id for migration in migrations])
    told = {key: f"{job.flow} {job.state}" for key, job in jobs.items()}
    stopped = {key: job.reason for key, job in jobs.items() if job.state != "running"}
    when = due(tx, window)
    return [
        {
            **_row_of(migration),
            "job": Maybe(told.get(migration.id)),
            "auto_confirm_at": Moment(when.get(migration.id)),
            "why": Sentence(stopped.get(migration.id) or migration.error),
        }
        for migration in migrations
    ]


def _row_of(migration: Migration) -> dict[str, Any]:
    return {
        "id": ShortId(migration.id),
        "instance": migration.instance_name,
        "kind": migration.kind,
        "status": str(migration.status),
        "source": migration.source_host.name,
        "destination": Maybe(migration.dest_host.name if migration.dest_host else None),
        "old_flavor": migration.old_flavor.name,
        "new_flavor": migration.new_flavor.name,
        "created_at": Moment(migration.created_at),
    }


def details_of(tx: Transaction, migration: Migration, window: float) -> dict[str, Any]:
    """All of it, with its latest job and what is left of it on hosts."""
    from resizeflow.auto_confirm import due  # noqa: PLC0415 - as above

    jobs = tx.jobs.of_migration(migration.id)
    return {
        **_row_of(migration),
        "id": migration.id,
        "error": Maybe(migration.error),
        "what_to_do": Maybe(_what_to_do(migration, jobs[-1] if jobs else None)),
        **_job_of(tx, jobs[-1] if jobs else None),
        "bytes_done": migration.bytes_done,
        "bytes_total": migration.bytes_total,
        "powered_off_at": Moment(migration.powered_off_at),
        "resumed_at": Moment(migration.resumed_at),
        "downtime_seconds": Maybe(_downtime(migration)),
        "finished_at": Moment(migration.finished_at),
        "auto_confirm_at": Moment(due(tx, window, migration.id).get(migration.id)),
        "closed_at": Moment(migration.closed_at),
        "source_off_at": Moment(migration.source_off_at),
        "hosts": Verdicts(migration.verdicts),
        "disks": Lines(
            [
                {
                    "device": disk.device,
                    "role": disk.role,
                    "from": disk.source_path or None,
                    "to": disk.dest_path,
                    "copied": disk.copied_at is not None,
                }
                for disk in migration.disks
            ]
        ),
        "volumes": Attachments(migration.volumes),
        "ports": Lines(
            [{"mac": port.mac, "port": port.port_id, "detached": port.detached or None} for port in migration.ports]
        ),
        "debts": Lines(
            [
                {"kind": debt.kind, "object": debt.object, "host": tx.hosts.get(debt.host_id).name}
                for debt in tx.debts.open()
                if debt.migration_id == migration.id
            ]
        ),
    }


def _job_of(tx: Transaction, job: Job | None) -> dict[str, Any]:
    if job is None:
        return {}
    owner = job.owner if job.state == "running" else None
    return {
        "job_id": job.id,
        "flow": job.flow,
        "job_state": str(job.state),
        "direction": str(job.direction),
        "reason": Maybe(job.reason),
        "waits_for": Maybe(_waits_for(tx, job)),
        "on_crash": str(job.on_crash),
        "pivot_at": Moment(job.pivot_at),
        "worker": Maybe(owner),
        "lease_seconds_left": round(tx.jobs.seconds_left(job.id), 1) if owner else 0.0,
        "epoch": job.epoch,
        "attempts": job.attempts,
    }


def _waits_for(tx: Transaction, job: Job) -> str | None:
    """What has to happen before anything goes on; None if something does, or nothing will."""
    if job.state == "needs-attention":
        return "a person: put right what the reason says, then `resizeflow migration resume`"
    if job.state == "running" and tx.jobs.seconds_left(job.id) == 0:
        return "a worker: the lease of the one that held it has ended"
    if job.state != "queued":
        return None
    if not tx.workers.up(job.flow):
        who = "none of those that are up does" if tx.workers.up() else "none is up"
        return f"a worker that knows flow {job.flow}: {who}"
    wait = tx.jobs.seconds_to_wait(job.id)
    return f"its next attempt, in {wait:.0f} s" if wait else "a worker that is free"


def _what_to_do(migration: Migration, job: Job | None) -> str | None:
    """The command that shows the page of the runbook; None if nothing is to be done."""
    if job is not None and job.state == "needs-attention":
        return command_for(page_of_reason(job.reason or "", ATTENTION))
    if job is not None and job.state == "queued":
        return command_for(page_of_reason(job.reason or "", WAITS))
    if migration.error:
        return command_for(page_of_reason(migration.error, ROLLED_BACK))
    return None


def _downtime(migration: Migration) -> float | None:
    if not migration.powered_off_at or not migration.resumed_at:
        return None
    return round((migration.resumed_at - migration.powered_off_at).total_seconds(), 1)


class MigrationList(Lister):
    """List migrations, the latest first, and why those that wait, stopped or were rolled back did.

    STATUS `error` is a resize that was rolled back: its machine is as before.
    """

    example = """
resizeflow migration list --open
resizeflow migration list --instance web-1 -f json
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--instance", metavar="I", help="only this machine's")
        parser.add_argument("--open", action="store_true", help="only those that are not confirmed, reverted or failed")
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="default: %(default)s")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend.database.read() as tx:
            instance = tx.instances.get(parsed_args.instance).id if parsed_args.instance else None
            found = tx.migrations.list(instance, parsed_args.limit, open_only=parsed_args.open)
            self._rows = rows_of(tx, found, self.backend.settings.resize_confirm_window)
        return table(self._rows, COLUMNS)

    def run(self, parsed_args: argparse.Namespace) -> int:
        code: int = super().run(parsed_args)
        if parsed_args.formatter == "table" and self._rows:
            told = next((row for row in self._rows if row["why"].machine_readable()), self._rows[0])["id"]
            short = told.human_readable()
            self.app.stdout.write(
                f"`resizeflow migration show {short}` tells all of it and what to do, "
                f"`resizeflow migration history {short}` how it came to this.\n"
            )
        return code


class MigrationShow(ShowOne):
    """Show a migration: how far it is, who works on it, what it waits for."""

    example = "resizeflow migration show 1a2b3c4d -f json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("migration", help=ID)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        window = self.backend.settings.resize_confirm_window
        with self.backend.database.read() as tx:
            return one(details_of(tx, tx.migrations.get(parsed_args.migration), window))


class MigrationWatch(Command):
    """Follow a migration's job until it ends, whichever worker carries it out.

    Ends with the exit code of the job's end. Ctrl-C only ends the watching (exit code 5). -f json writes an
    object a line as things happen: {"job": ...} how it stands, {"line": ...} of its log, {"transfer": ...}
    how far the disks are, {"end": ...} at last.
    """

    example = """
resizeflow migration watch 1a2b3c4d
resizeflow migration watch 1a2b3c4d -f json
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("migration", help=ID)
        form = "for people, or JSON lines (default: %(default)s)"
        parser.add_argument("-f", "--format", choices=["table", "json"], default="table", help=form)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from resizeflow.commands import follow  # noqa: PLC0415 - TaskFlow and rich are not needed for help
        from resizeflow.commands.json_lines import JsonLines  # noqa: PLC0415 - as above
        from resizeflow.service import Submitted  # noqa: PLC0415 - as above

        with self.backend.database.read() as tx:
            job = tx.jobs.of_migration(tx.migrations.get(parsed_args.migration).id)[-1]
        if parsed_args.format == "table":
            self.app.stdout.write(f"{follow.watch(self.backend, job.id, follow.display_on(sys.stdout))}\n")
            return
        lines, submitted = JsonLines(self.app.stdout, self.app.stderr), Submitted(job.migration_id, job.id)
        try:
            sentence = follow.watch(self.backend, job.id, lines)
        except ResizeflowError as error:
            lines.write("end", result_of(self.backend, submitted, str(error), error.exit_code))
            raise
        lines.write("end", result_of(self.backend, submitted, sentence, 0))


class MigrationResume(Acting):
    """Take a stopped, waiting or failing job up again, from where it is.

    Also for one that needs attention, once you have put right what it says. If no worker is up, the
    command carries it out itself. A job that another worker still holds is waited for.
    """

    example = "resizeflow migration resume 1a2b3c4d"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("migration", help=ID)
        super().arguments(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        return self.see_through(self.backend.service.resume(parsed_args.migration), parsed_args)


class MigrationRollback(Acting):
    """Undo a resize that is under way.

    Everything it did is undone, in reverse order: the machine runs on its source as before. Refused
    once the machine has run on its destination; then let it finish, and revert it. Exit code 0 means
    that it is rolled back.
    """

    example = "resizeflow migration rollback 1a2b3c4d"
    rollback_wanted = True

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("migration", help=ID)
        super().arguments(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        return self.see_through(self.backend.service.rollback(parsed_args.migration), parsed_args)


class MigrationCancel(MigrationRollback):
    """Another word for `migration rollback`."""

    example = "resizeflow migration cancel 1a2b3c4d"
