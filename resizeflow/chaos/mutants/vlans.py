"""Seeded faults in what is done to the VLANs of bridges."""

from __future__ import annotations

from resizeflow.chaos.mutants.seeding import mutant, put
from resizeflow.persistence.models import Host, Migration
from resizeflow.tasks import machine, vlans
from resizeflow.tasks.base import MoveTask


@mutant("confirm kills")
def vlan_at_the_source_forgotten() -> None:
    """A confirm leaves the VLAN with the source's uplinks."""
    put(vlans, "leave", lambda _task, _migration, _host: None)


@mutant("resize-stream kills")
def tap_put_into_its_vlan_when_it_runs() -> None:
    """The machine's CPUs run first, then its tap is put into its VLAN."""
    plug, let_run = vlans.plug, machine.let_run

    def then_plug(task: MoveTask, host: Host, migration: Migration) -> None:
        let_run(task, host, migration)
        plug(task, host, migration)

    put(vlans, "plug", lambda _task, _host, _migration: None)
    put(machine, "let_run", then_plug)


@mutant("resize-stream rollbacks")
def vlan_at_the_destination_forgotten() -> None:
    """A rollback leaves the VLAN with the destination's uplinks."""
    put(vlans, "leave", lambda _task, _migration, _host: None)
