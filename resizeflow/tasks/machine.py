"""Steps on a domain that the resize takes on the source and the revert on the destination."""

from __future__ import annotations

from collections.abc import Callable

from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark
from resizeflow.drivers.hypervisor import DomainFacts, PowerState
from resizeflow.drivers.interface import DriverError
from resizeflow.errors import Conflict
from resizeflow.persistence.models import Host, Migration
from resizeflow.tasks import vlans
from resizeflow.tasks.base import MoveTask, StorageAway

POLL = 0.5
"""Seconds between two looks at a domain that is to change its state."""


def mark_of(domain: DomainFacts | None, *, live: bool = False) -> Mark | None:
    """Our mark on a domain: in what would start next, or in what runs."""
    if domain is None:
        return None
    xml = domain.live_xml if live else domain.inactive_xml
    return definition.read(xml).mark if xml else None


def has_role(domain: DomainFacts | None, migration: Migration, role: str, *, live: bool = False) -> bool:
    """Whether a domain carries this migration's mark in a role."""
    mark = mark_of(domain, live=live)
    return mark is not None and mark.migration == migration.id and mark.role == role


def is_fenced(host: Host, migration: Migration) -> bool:
    """Whether a person said that nothing runs on a host, and said so later than the migration started the machine:
    what was true before that proves nothing."""
    return host.fenced_at is not None and host.fenced_at > (migration.resumed_at or migration.created_at)


def is_off(domain: DomainFacts | None) -> bool:
    return domain is None or domain.state is PowerState.SHUTOFF


def shutdown_seconds(task: MoveTask, migration: Migration) -> float:
    """How long the guest may take to shut down: its own setting, else the configured one."""
    with task.world.database.read() as tx:
        own = tx.instances.get(migration.instance_id).shutdown_timeout
    return task.world.settings.shutdown_timeout if own is None else own


def power_off(task: MoveTask, host: Host, migration: Migration, seconds: float) -> None:
    """Shuts a machine down: clean, for at most `seconds`, then hard. One that is off stays off."""
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id

    def off() -> bool:
        return is_off(hypervisor.domain(uuid))

    if off():
        task.tell(f"{migration.instance_name} is off already")
        return
    deadline = task.world.clock.boottime() + seconds
    if seconds:
        task.forget(lambda: hypervisor.shutdown(uuid))
    while not off():
        if task.world.clock.boottime() >= deadline:
            task.tell(f"{migration.instance_name} did not shut down within {seconds:g} s, it is powered off hard")
            task.ensure(off, lambda: hypervisor.destroy(uuid), f"power-off on {host.name}")
            return
        task.gate.pause(POLL)
    task.tell(f"{migration.instance_name} shut down cleanly")


def retire(task: MoveTask, host: Host, migration: Migration) -> None:
    """Makes a shut-off domain unable to start by itself, and reads that back: the proof of off."""
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id

    def retired() -> bool:
        return has_role(hypervisor.domain(uuid), migration, "retired")

    def redefine() -> None:
        mark = Mark(migration.id, task.world.lease.epoch, "retired")
        hypervisor.define(definition.retired(hypervisor.definition_with_secrets(uuid), mark))

    domain = hypervisor.domain(uuid)
    if domain is None:
        raise task.attention(f"{host.name} has no domain {migration.instance_name} any more")
    if not is_off(domain):
        # Its host rebooted, or somebody started it: nothing is lost by turning back.
        raise Conflict(f"{migration.instance_name} was started on {host.name} again, not by us.")
    if not retired():
        set_autostart(task, host, migration, False)
        task.ensure(retired, redefine, f"retired definition on {host.name}")
    domain = hypervisor.domain(uuid)
    if not (is_off(domain) and has_role(domain, migration, "retired")):
        raise task.attention(f"{migration.instance_name} on {host.name} does not read back as retired and off")
    task.tell(f"proof of off: {migration.instance_name} on {host.name} is retired and shut off", proof=True)


def unretire(task: MoveTask, host: Host, migration: Migration, xml_of: Callable[[str], str]) -> None:
    """The inverse edit of the host's own definition, passwords included. `xml_of` makes the new definition of it."""
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id
    domain = hypervisor.domain(uuid)
    if domain is None:
        raise task.attention(f"{host.name} has no domain {migration.instance_name} any more")
    if not has_role(domain, migration, "retired"):
        return
    if not is_off(domain):
        raise task.attention(f"{migration.instance_name} runs on {host.name} although it is retired")
    task.ensure(
        lambda: not has_role(hypervisor.domain(uuid), migration, "retired"),
        lambda: hypervisor.define(xml_of(hypervisor.definition_with_secrets(uuid))),
        f"restored definition on {host.name}",
    )


def set_autostart(task: MoveTask, host: Host, migration: Migration, on: bool) -> None:
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id

    def as_wanted() -> bool:
        domain = hypervisor.domain(uuid)
        return domain is not None and domain.autostart == on

    task.ensure(as_wanted, lambda: hypervisor.set_autostart(uuid, on), f"autostart on {host.name}")


def start_paused(task: MoveTask, host: Host, migration: Migration) -> None:
    """Starts the machine with its CPUs stopped, its ports in their VLANs: all that can be refused is refused here.
    Raises StorageAway for a start that hangs."""
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id

    def started() -> bool:
        domain = hypervisor.domain(uuid)
        return domain is not None and domain.state in (PowerState.PAUSED, PowerState.RUNNING)

    def start() -> None:
        if not is_off(hypervisor.domain(uuid)):
            raise StorageAway(f"{migration.instance_name} hangs in its start on {host.name}: does its storage answer?")
        hypervisor.start_paused(uuid)

    task.ensure(started, start, f"start on {host.name}")
    vlans.plug(task, host, migration)


def let_run(task: MoveTask, host: Host, migration: Migration) -> None:
    """Lets the CPUs of a started machine run, and sees that they do."""
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id

    def runs() -> bool:
        domain = hypervisor.domain(uuid)
        return domain is not None and domain.state is PowerState.RUNNING

    task.ensure(runs, lambda: hypervisor.resume(uuid), f"running machine on {host.name}")
    announce(task, host, migration)


def announce(task: MoveTask, host: Host, migration: Migration) -> None:
    """Has a machine that runs tell the network where it is now. That it could not is told, and holds up nothing: it is
    found as soon as it sends anything by itself."""
    hypervisor = task.gate.host(host, patience=0)
    uuid = migration.instance_id
    try:
        domain = hypervisor.domain(uuid)
        if domain is not None and domain.live_xml and definition.read(domain.live_xml).nics:
            hypervisor.announce(uuid)
            task.tell(f"{host.name} announced where {migration.instance_name} is reached")
    except (HostAway, DriverError) as error:
        task.tell(f"where {migration.instance_name} is reached is not announced: {error}")


def run_again(task: MoveTask, host: Host, migration: Migration, seconds: float) -> None:
    """Undoes a power-off. A guest that was asked to shut down cannot be asked to stay: while it is still up it is
    watched for the time that it was given, so that it does not go off after we left."""
    hypervisor = task.gate.host(host)
    for _ in range(int(seconds / POLL)):
        if is_off(hypervisor.domain(migration.instance_id)):
            break
        task.gate.pause(POLL)
    boot(task, host, migration)


def boot(task: MoveTask, host: Host, migration: Migration) -> None:
    """A machine that was on runs again."""
    start_paused(task, host, migration)
    let_run(task, host, migration)


def delete_volume(task: MoveTask, host: Host, name: str) -> None:
    """Removes a volume from a host's pool; gone already is fine, in use is refused by the driver."""
    hypervisor = task.gate.host(host)
    if hypervisor.volume(host.pool, name) is not None:
        task.forget(lambda: hypervisor.delete_volume(host.pool, name))


def end_paused(task: MoveTask, host: Host, migration: Migration) -> None:
    """Ends a machine that was started paused and never ran; one that runs was started by somebody else."""
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id
    domain = hypervisor.domain(uuid)
    if domain is not None and domain.state is PowerState.RUNNING:
        raise task.attention(f"{migration.instance_name} runs on {host.name} without a pivot: somebody started it")
    task.ensure(
        lambda: is_off(hypervisor.domain(uuid)),
        lambda: hypervisor.destroy(uuid),
        f"end of the paused domain on {host.name}",
    )


def remove_domain(task: MoveTask, host: Host, migration: Migration) -> None:
    """Removes our shut-off or paused domain from a host; one that runs is left and a person asked."""
    hypervisor = task.gate.host(host)
    uuid = migration.instance_id
    domain = hypervisor.domain(uuid)
    if domain is None:
        return
    mark = mark_of(domain) or mark_of(domain, live=True)
    if mark is None or mark.migration != migration.id:
        raise DriverError(f"the domain {domain.name} on {host.name} is not this migration's")
    if domain.state is PowerState.RUNNING:
        raise task.attention(f"{migration.instance_name} runs on {host.name}: a human started it, decide which stays")
    if not is_off(domain):
        task.ensure(lambda: is_off(hypervisor.domain(uuid)), lambda: hypervisor.destroy(uuid), "end of the domain")
    if hypervisor.domain(uuid) is not None:
        task.forget(lambda: hypervisor.undefine(uuid))
