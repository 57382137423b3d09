"""`resizeflow resize | migrate | confirm | revert`: moving a machine and deciding about it."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

from resizeflow.commands.base import Shown, Telling, require_columns
from resizeflow.errors import ResizeflowError

if TYPE_CHECKING:
    from resizeflow.commands.backend import Backend
    from resizeflow.service import Submitted
    from resizeflow.states import OnCrash

RESULT = (
    "instance",
    "migration",
    "job",
    "flow",
    "status",
    "job_state",
    "source",
    "destination",
    "error",
    "message",
    "exit_code",
)
"""What programs are told of a job that was submitted."""


def result_of(backend: Backend, submitted: Submitted, message: str, exit_code: int) -> dict[str, Any]:
    """How a job stands, with what people are told of it: a value for each of RESULT."""
    with backend.database.read() as tx:
        migration, job = tx.migrations.get(submitted.migration_id), tx.jobs.get(submitted.job_id)
    found = (
        migration.instance_name,
        migration.id,
        job.id,
        job.flow,
        str(migration.status),
        str(job.state),
        migration.source_host.name,
        migration.dest_host.name if migration.dest_host else None,
        migration.error,
        message,
        exit_code,
    )
    return dict(zip(RESULT, found, strict=True))


class Acting(Telling):
    """A command that submits a job and, unless detached, sees it through.

    People see its progress on standard output; for programs that is on standard error, and nothing but the result on
    standard output.
    """

    rollback_wanted = False

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--detach", action="store_true", help="leave it to a worker and exit at once")

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Raises UsageError, before anything is submitted, for what could only be found wrong after it."""
        if not getattr(parsed_args, "dry_run", False):
            require_columns(parsed_args, RESULT)
            if not parsed_args.detach and self.backend.settings.traces:
                importlib.import_module("resizeflow.traces")
        code: int = super().run(parsed_args)
        return code

    def see_through(self, submitted: Submitted, parsed_args: argparse.Namespace) -> Shown:
        """Detached: says what was accepted. Else follows the job to its end and says how it ended."""
        if parsed_args.detach:
            return self._accepted(submitted)
        from resizeflow.commands.follow import carry_out  # noqa: PLC0415 - TaskFlow and rich are not needed for help

        quiet = not self.for_people(parsed_args)
        try:
            _, sentence = carry_out(self.backend, submitted, quiet=quiet, rollback_wanted=self.rollback_wanted)
        except ResizeflowError as error:
            if quiet:
                self.produce_output(parsed_args, *self._told(submitted, str(error), error.exit_code))
            raise
        return self._told(submitted, sentence)

    def _accepted(self, submitted: Submitted) -> Shown:
        short = submitted.migration_id[:8]
        with self.backend.database.read() as tx:
            if not tx.workers.up():
                self.app.stderr.write(
                    f"No worker is up: `resizeflow worker` carries it out, or `resizeflow migration resume {short}`.\n"
                )
        sentence = f"Accepted as migration {short}; `resizeflow migration watch {short}` follows it."
        return self._told(submitted, sentence)

    def _told(self, submitted: Submitted, sentence: str, exit_code: int = 0) -> Shown:
        return self.told(sentence, **result_of(self.backend, submitted, sentence, exit_code))


def recovery(parser: argparse.ArgumentParser) -> None:
    """What a job can be told about its worker's death. A confirm only goes forward, it has no choice."""
    parser.add_argument(
        "--on-crash",
        choices=["resume", "rollback"],
        help="if the worker dies, the next one goes on, or undoes it where that can be (default: as configured)",
    )


def policy(parsed_args: argparse.Namespace) -> OnCrash | None:
    """The choice, None if there is none."""
    from resizeflow.states import OnCrash  # noqa: PLC0415 - not needed for help

    return OnCrash(parsed_args.on_crash) if parsed_args.on_crash else None


class Resize(Acting):
    """Resize a machine to another flavor.

    The machine is shut down, its disks go to the destination (or stay, if that is its own host), its
    volumes are attached there, and it starts there with the new size. Then look at it, and confirm or
    revert: until then the source keeps everything that is needed to go back. If no worker is up, the
    command carries the resize out itself and shows its progress; Ctrl-C puts it down, and it can be
    resumed or rolled back.
    """

    example = """
resizeflow resize web-1 --flavor m1.large --dry-run
resizeflow resize web-1 --flavor m1.large
resizeflow confirm web-1
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")
        parser.add_argument("--flavor", required=True, metavar="F", help="the new size")
        self._moving(parser)

    def _moving(self, parser: argparse.ArgumentParser) -> None:
        recovery(parser)
        parser.add_argument("--host", metavar="H", help="the destination (default: the scheduler's choice)")
        parser.add_argument("--dry-run", action="store_true", help="show what would be done, change nothing")
        super().arguments(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        flavor = getattr(parsed_args, "flavor", None)
        if parsed_args.dry_run:
            return self._plan(parsed_args, flavor)
        service, host, on_crash = self.backend.service, parsed_args.host, policy(parsed_args)
        if flavor is None:
            submitted = service.migrate(parsed_args.instance, host=host, on_crash=on_crash)
        else:
            submitted = service.resize(parsed_args.instance, flavor, host=host, on_crash=on_crash)
        return self.see_through(submitted, parsed_args)

    def _plan(self, parsed_args: argparse.Namespace, flavor: str | None) -> Shown:
        from resizeflow.commands import plan_view  # noqa: PLC0415 - rich is not needed for help

        plan = self.backend.service.plan(parsed_args.instance, flavor, host=parsed_args.host)
        if self.for_people(parsed_args):
            plan_view.write(plan, self.app.stdout)
        return self.told("", **plan_view.as_data(plan))


class Migrate(Resize):
    """Move a machine to another host, with the size it has.

    A cold migration: the machine is off while its disks go to the destination. It is confirmed or
    reverted like a resize.
    """

    example = """
resizeflow migrate web-1 --host h2
resizeflow confirm web-1
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")
        self._moving(parser)


class Confirm(Acting):
    """Keep a finished resize.

    The destination is looked at once more; then everything that was kept to go back is removed from
    the source: its definition, its disks. There is no way back after this.
    """

    example = "resizeflow confirm web-1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")
        super().arguments(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        return self.see_through(self.backend.service.confirm(parsed_args.instance), parsed_args)


class Revert(Acting):
    """Go back from a finished resize.

    The machine starts again on its source with its old size and its old disks. What it has written
    since the resize is discarded, but for what is on volumes. With --discard-writes also from a resize
    that is past its point of no return and cannot finish, because its destination died: once that
    answers or is fenced.
    """

    example = """
resizeflow revert web-1
resizeflow revert web-1 --discard-writes
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("instance", help="its name or UUID")
        parser.add_argument(
            "--discard-writes", action="store_true", help="give up a resize that cannot finish, and what it wrote"
        )
        recovery(parser)
        super().arguments(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:
        submitted = self.backend.service.revert(
            parsed_args.instance, on_crash=policy(parsed_args), discard_writes=parsed_args.discard_writes
        )
        return self.see_through(submitted, parsed_args)
