"""What commands work with: settings, database, use cases. Each is opened when it is first needed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resizeflow.config import Settings
    from resizeflow.connections import Connections
    from resizeflow.inventory import Inventory
    from resizeflow.observer import Observer
    from resizeflow.persistence.database import Database
    from resizeflow.service import Service


class Backend:
    """One command's way to everything below the command line."""

    def __init__(self, config_file: str | None) -> None:
        self._config_file = config_file

    @cached_property
    def settings(self) -> Settings:
        """Raises UsageError for a configuration that cannot be used."""
        from resizeflow import config  # noqa: PLC0415 - oslo.config is not needed for help

        return config.load(self._config_file)

    @cached_property
    def unchecked_database(self) -> Database:
        """The database, of whatever version."""
        from resizeflow.persistence.database import Database  # noqa: PLC0415 - SQLAlchemy is not needed for help

        return Database.of(self.settings)

    @cached_property
    def database(self) -> Database:
        """The database at this program's version; a new one is made ready. Raises UsageError for another version."""
        from resizeflow.persistence import schema  # noqa: PLC0415 - Alembic is not needed for help

        schema.require_current(self.unchecked_database)
        return self.unchecked_database

    @cached_property
    def connections(self) -> Connections:
        """The hosts, connected when they are first asked."""
        from resizeflow.connections import Connections  # noqa: PLC0415 - as above

        return Connections()

    @cached_property
    def service(self) -> Service:
        """The use cases of moving."""
        from resizeflow.service import Service  # noqa: PLC0415 - TaskFlow is not needed for help

        return Service(self.database, self.settings, connections=self.connections)

    @cached_property
    def inventory(self) -> Inventory:
        """The use cases of what is kept."""
        from resizeflow.inventory import Inventory  # noqa: PLC0415 - as above

        return Inventory(self.database, self.settings, connections=self.connections)

    def traces(self) -> list[Observer]:
        """What makes spans of a worker's work, if that is configured. Raises UsageError if OpenTelemetry is missing."""
        if not self.settings.traces:
            return []
        from resizeflow.traces import Traces  # noqa: PLC0415 - as above; OpenTelemetry need not be installed

        return [Traces(self.database)]

    def close(self) -> None:
        """Ends the connections to hosts."""
        if "connections" in vars(self):
            self.connections.close()
