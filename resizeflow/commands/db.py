"""`resizeflow db`: the state database."""

from __future__ import annotations

import argparse

from resizeflow.commands.base import Shown, Telling


class DbUpgrade(Telling):
    """Bring the state database to this program's version.

    A new database is made ready by the first command that uses it. After an upgrade of
    resizeflow, stop the workers, run this once, and start them again.
    """

    example = "resizeflow db upgrade"

    def take_action(self, parsed_args: argparse.Namespace) -> Shown:  # noqa: ARG002
        from resizeflow.persistence import schema  # noqa: PLC0415 - Alembic is not needed for help

        before, after = schema.upgrade(self.backend.unchecked_database)
        upgraded = f"The database is upgraded from version {before or 'none'} to {after}."
        sentence = f"The database is at version {after} already." if before == after else upgraded
        return self.told(sentence, before=before, after=after)
