"""Seeded faults in what is done to Neutron's bindings of ports."""

from __future__ import annotations

from resizeflow.chaos.mutants.seeding import mutant, put
from resizeflow.drivers.network import PortBinding
from resizeflow.persistence.models import Host, Migration
from resizeflow.tasks import bindings, machine, network
from resizeflow.tasks.base import MoveTask, destination
from resizeflow.tasks.bindings import Bindings
from resizeflow.tasks.network import BindPorts, RemoveSourceBindings


@mutant("migrate-stopped kills")
def binding_at_the_destination_forgotten() -> None:
    """A rollback removes the record of the bindings that it made at the destination, and not the bindings."""

    def forgetful(task: BindPorts, migration: Migration) -> None:
        host = migration.dest_host
        if host is not None:
            network.forget(task, migration, host)

    put(BindPorts, "undo", forgetful)


@mutant("confirm kills")
def binding_at_the_source_forgotten() -> None:
    """A confirm leaves the inactive bindings at the source."""

    def forgetful(task: RemoveSourceBindings, migration: Migration) -> None:
        network.forget(task, migration, migration.source_host)

    put(RemoveSourceBindings, "do", forgetful)


@mutant("resize rollbacks", "migrate rollbacks")
def ports_not_bound_back() -> None:
    """A rollback starts the machine on its source while its ports are bound to the destination."""
    put(bindings, "bring_back", lambda _task, _migration, _host: None)


@mutant("migrate kills")
def ports_bound_when_it_runs() -> None:
    """Ports are bound to the destination when the machine runs there, and not before it starts."""
    bring, let_run = bindings.bring, machine.let_run

    def then_bind(task: MoveTask, host: Host, migration: Migration) -> None:
        let_run(task, host, migration)
        if migration.dest_host is not None and host.id == destination(migration).id:
            bring(task, migration, host)

    put(bindings, "bring", lambda _task, _migration, _host: None)
    put(bindings, "await_plugged", lambda _task, _migration, _host: None)
    put(machine, "let_run", then_bind)


@mutant("migrate kills")
def ports_not_waited_for() -> None:
    """The machine runs at its destination without a look at whether its ports are plugged in."""
    put(bindings, "await_plugged", lambda _task, _migration, _host: None)


@mutant("migrate-stopped kills")
def unbound_binding_activated() -> None:
    """On the way back the old binding is activated as it is, not made anew."""

    def as_it_is(port: Bindings, host: Host) -> bool:
        found = binding_on(port, host)
        return found is not None and found.active

    def binding_on(port: Bindings, host: Host) -> PortBinding | None:
        found = port.network.bindings(port.port.port_id)
        return next((binding for binding in found if binding.host == host.name), None)

    def bound(port: Bindings, host: Host) -> None:
        if binding_on(port, host) is None:
            bind(port, host)

    bind = Bindings.bind
    put(Bindings, "bind", bound)
    put(Bindings, "_is_active", as_it_is)


@mutant("revert kills")
def added_port_not_taken_back() -> None:
    """A revert moves the ports that the machine had before the resize, and not those that it has now."""
    put(bindings, "record_now", lambda *_of_today: None)
