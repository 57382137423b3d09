"""The commands, one module per noun. This table is all that is imported before one of them runs."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, str] = {
    "resize migrate confirm revert": "resize and cold migration",
    "migration": "migrations, open and past",
    "instance": "managed machines",
    "host": "hosts",
    "flavor": "flavors",
    "quota": "quotas",
    "worker": "workers",
    "doctor": "consistency",
    "db": "the state database",
    "chaos": "rehearsal",
}
"""What commands are about, in the order of the help: their first words and the title."""

COMMANDS: Mapping[str, str] = {
    "resize": "resizeflow.commands.moving:Resize",
    "migrate": "resizeflow.commands.moving:Migrate",
    "confirm": "resizeflow.commands.moving:Confirm",
    "revert": "resizeflow.commands.moving:Revert",
    "migration list": "resizeflow.commands.migration:MigrationList",
    "migration show": "resizeflow.commands.migration:MigrationShow",
    "migration watch": "resizeflow.commands.migration:MigrationWatch",
    "migration history": "resizeflow.commands.migration:MigrationHistory",
    "migration resume": "resizeflow.commands.migration:MigrationResume",
    "migration rollback": "resizeflow.commands.migration:MigrationRollback",
    "migration cancel": "resizeflow.commands.migration:MigrationCancel",
    "instance adopt": "resizeflow.commands.instance:InstanceAdopt",
    "instance list": "resizeflow.commands.instance:InstanceList",
    "instance show": "resizeflow.commands.instance:InstanceShow",
    "instance lock": "resizeflow.commands.instance:InstanceLock",
    "instance unlock": "resizeflow.commands.instance:InstanceUnlock",
    "instance remove": "resizeflow.commands.instance:InstanceRemove",
    "host add": "resizeflow.commands.host:HostAdd",
    "host list": "resizeflow.commands.host:HostList",
    "host show": "resizeflow.commands.host:HostShow",
    "host set": "resizeflow.commands.host:HostSet",
    "host drain": "resizeflow.commands.host:HostDrain",
    "host remove": "resizeflow.commands.host:HostRemove",
    "flavor create": "resizeflow.commands.flavor:FlavorCreate",
    "flavor list": "resizeflow.commands.flavor:FlavorList",
    "flavor show": "resizeflow.commands.flavor:FlavorShow",
    "flavor delete": "resizeflow.commands.flavor:FlavorDelete",
    "quota show": "resizeflow.commands.quota:QuotaShow",
    "quota set": "resizeflow.commands.quota:QuotaSet",
    "worker": "resizeflow.commands.worker:WorkerRun",
    "worker list": "resizeflow.commands.worker:WorkerList",
    "doctor": "resizeflow.commands.doctor:Doctor",
    "db upgrade": "resizeflow.commands.db:DbUpgrade",
    "chaos": "resizeflow.commands.chaos:Chaos",
}
"""Command → `module:class`, in the order of the help."""
