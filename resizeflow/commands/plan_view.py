"""A dry run's answer, for people and for machines."""

from __future__ import annotations

from typing import Any, TextIO

from rich.table import Table
from rich.text import Text

from resizeflow.audit.progress import size
from resizeflow.commands.console import Console
from resizeflow.commands.verdicts import shown
from resizeflow.persistence.models import Flavor
from resizeflow.plan import Plan

WIDTH = 120
"""Columns where there is no terminal that says how many it has."""

STAYS = {
    "overlay": "stays where it is, under an overlay until the confirm",
    "made anew": "made anew, nothing to move",
    "removed": "removed by the confirm",
    "kept": "kept where it is",
}
"""Ways of a disk of which nothing moves, and how they are told."""


def as_data(plan: Plan) -> dict[str, Any]:
    """All of it, in JSON's types; sizes in bytes."""
    return {
        "instance": plan.instance,
        "kind": plan.kind,
        "old_flavor": _flavor(plan.old_flavor),
        "new_flavor": _flavor(plan.new_flavor),
        "source": plan.source.name,
        "destination": plan.destination,
        "hosts": plan.verdicts,
        "disks": [
            {
                "device": disk.device,
                "role": disk.role,
                "capacity": disk.capacity,
                "new_capacity": disk.new_capacity,
                "bytes_to_move": 0 if disk.way in STAYS else disk.allocation,
                "way": disk.way,
            }
            for disk in plan.disks
        ],
        "volume_backed": plan.volume_backed,
        "volumes": [
            {
                "device": volume.device,
                "id": volume.volume_id,
                "size_gb": volume.size_gb,
                "bytes_to_move": 0,
                "way": "reattached",
            }
            for volume in plan.volumes
        ],
        "bytes_to_move": plan.bytes_to_move,
        "checks": list(plan.checks),
        "steps": [{"task": name, "does": does} for name, does in plan.steps],
        "downtime": list(plan.downtime),
    }


def _flavor(flavor: Flavor) -> dict[str, Any]:
    return {
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram_mb": flavor.memory_mb,
        "disk_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "swap_mb": flavor.swap_mb,
    }


def write(plan: Plan, out: TextIO) -> None:
    """Prints it as sections: where to, what changes, the disks, the steps, the downtime."""
    console = Console(file=out, highlight=False)
    if not console.is_terminal:
        console = Console(file=out, highlight=False, width=WIDTH)
    kind = "Cold migration" if plan.kind == "migration" else "Resize"
    console.print(Text(f"{kind} of {plan.instance}: {plan.source.name} → {plan.destination}", style="bold"))
    console.print("A dry run: nothing was changed.\n")
    _section(console, "Hosts", _hosts(plan))
    _section(console, "Size", _sizes(plan))
    _section(console, "Disks", _disks(plan))
    _section(console, "Checked", _lines(plan.checks))
    _section(console, "Steps", _steps(plan))
    _section(console, "Downtime", _lines(plan.downtime))


def _section(console: Console, title: str, table: Table) -> None:
    console.print(Text(title, style="bold cyan"))
    console.print(table)
    console.print()


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=0)
    return grid


def _hosts(plan: Plan) -> Table:
    grid = _grid()
    for name, verdict in shown(plan.verdicts):
        chosen = name == plan.destination
        grid.add_row("", Text(name, style="green" if chosen else ""), Text(verdict))
    return grid


def _sizes(plan: Plan) -> Table:
    grid = _grid()
    old, new = plan.old_flavor, plan.new_flavor
    root = ("a volume", "a volume", "") if plan.volume_backed else (old.root_gb, new.root_gb, " GiB")
    rows = (
        ("flavor", old.name, new.name, ""),
        ("vCPUs", old.vcpus, new.vcpus, ""),
        ("memory", old.memory_mb, new.memory_mb, " MiB"),
        ("root disk", *root),
        ("ephemeral disk", old.ephemeral_gb, new.ephemeral_gb, " GiB"),
        ("swap", old.swap_mb, new.swap_mb, " MiB"),
    )
    for what, before, after, unit in rows:
        change = f"{before}{unit} → {after}{unit}" if before != after else f"{after}{unit}"
        grid.add_row("", what, Text(change))
    return grid


def _disks(plan: Plan) -> Table:
    grid = _grid()
    for disk in plan.disks:
        capacity = size(disk.capacity)
        if disk.new_capacity != disk.capacity:
            capacity += f" → {size(disk.new_capacity)}"
        moved = STAYS.get(disk.way) or f"{size(disk.allocation)} to move, {disk.way}"
        grid.add_row("", f"{disk.device} ({disk.role})", capacity, moved)
    for volume in plan.volumes:
        moved = f"reattached, nothing to move: {volume.volume_id}"
        grid.add_row("", f"{volume.device} (volume)", f"{volume.size_gb} GiB", moved)
    grid.add_row("", "together", size(plan.bytes_to_move), "to move")
    return grid


def _steps(plan: Plan) -> Table:
    grid = _grid()
    for number, (name, does) in enumerate(plan.steps, 1):
        grid.add_row("", f"{number:>2}", name, Text(does))
    return grid


def _lines(sentences: Any) -> Table:
    grid = _grid()
    for sentence in sentences:
        grid.add_row("", "-", Text(sentence))
    return grid
