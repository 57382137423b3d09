"""Invariants 1 and 7: a machine runs where the records say and nowhere else, with the size and disks of its flavor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from resizeflow.doctor.agreement import operation
from resizeflow.doctor.report import Breach
from resizeflow.doctor.snapshot import Records, Seen, World
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark
from resizeflow.drivers.hypervisor import DomainFacts, PowerState
from resizeflow.persistence.models import GIB, Disk, Instance, Job, Migration
from resizeflow.rules import MIB
from resizeflow.states import MigrationStatus

TWO_COPIES = "one of them; touch neither before you know which has the data that counts, then stop the other by hand"


def check_running(records: Records, world: World, instance: Instance) -> Iterator[Breach]:
    """Invariant 1: at most one running domain per instance over all hosts; it runs where the database says.

    In the middle of a migration the database says it by the pivot: before it the machine runs where it came from,
    after it where it goes. A machine that is off, or paused as a carrier is, runs nowhere.
    """
    running = [
        host_id
        for host_id, seen in world.seen.items()
        if (domain := seen.domains.get(instance.id)) is not None and domain.state is PowerState.RUNNING
    ]
    place = _place(instance, records.migrations, records.jobs.get(instance.id))
    names = [records.host_name(host_id) for host_id in running]
    if len(running) > 1:
        yield Breach(1, f"instance {instance.name}", f"runs on {' and on '.join(sorted(names))}", TWO_COPIES)
    elif running and running != [place]:
        yield Breach(1, f"instance {instance.name}", f"runs on {names[0]}", f"runs on {records.host_name(place)}")


def _place(instance: Instance, migrations: Mapping[str, Migration], job: Job | None) -> str | None:
    """The host on which a machine may run."""
    migration = migrations.get(job.migration_id) if job else None
    if job is None or migration is None or operation(job.flow) not in ("resize", "revert"):
        return instance.host_id
    at_source = (operation(job.flow) == "resize") == (job.pivot_at is None)
    return migration.source_host_id if at_source else migration.dest_host_id


def check_size(records: Records, world: World, instance: Instance) -> Iterator[Breach]:
    """Invariant 7: domain and disks match the flavor; of a finished resize also what is kept for the way back.

    A machine whose job is not done is left out: which of its two definitions is in force, and how far its disks are,
    changes within a task and is known to nobody but the task. The job, resumed or rolled back, brings it right.
    """
    seen = world.seen.get(instance.host_id)
    job = records.jobs.get(instance.id)
    if seen is None or (job is not None and operation(job.flow) != "settle"):
        return
    subject, host = f"instance {instance.name}", instance.host.name
    domain = seen.domains.get(instance.id)
    if domain is None:
        yield Breach(7, subject, f"{host} has no domain of it", "its domain, with its flavor's size")
        return
    try:
        machine = definition.read(domain.inactive_xml)
    except ValueError as error:
        yield Breach(7, subject, f"its definition on {host} cannot be read: {error}", "a definition")
        return
    if machine.mark is not None and machine.mark.role == "retired":
        found = f"retired on {host} by migration {machine.mark.migration}: it cannot start"
        yield Breach(7, subject, found, "a definition that can start")
        return
    if not domain.persistent:
        yield Breach(7, subject, f"only runs on {host} and has no definition any more", "a persistent domain")
    flavor = instance.flavor
    if (machine.vcpus, machine.memory_mb) != (flavor.vcpus, flavor.memory_mb):
        found = f"defined with {machine.vcpus} vCPU, {machine.memory_mb} MiB on {host}"
        yield Breach(7, subject, found, f"{flavor.vcpus} vCPU, {flavor.memory_mb} MiB, flavor {flavor.name}")
    paths = {disk.device: disk.path for disk in machine.disks}
    for disk in instance.disks:
        yield from _check_disk(instance, disk, paths.get(disk.device), seen)
    yield from _check_disk_sum(instance)
    migration = records.open_migrations.get(instance.id)
    if migration is not None and migration.status is MigrationStatus.FINISHED:
        yield from _check_way_back(migration, instance, machine.mark, world)


def _check_disk(instance: Instance, disk: Disk, path: str | None, seen: Seen) -> Iterator[Breach]:
    subject, host = f"disk {disk.device} of {instance.name}", instance.host.name
    volume = seen.volumes.get(disk.volume)
    if path != disk.path:
        yield Breach(7, subject, f"defined as {path or 'nothing'} on {host}", disk.path)
    elif volume is None:
        yield Breach(7, subject, f"{host} has no file {disk.path}", f"a file of {disk.capacity} bytes")
    elif volume.capacity != disk.capacity:
        yield Breach(7, subject, f"{volume.capacity} bytes on {host}", f"{disk.capacity} bytes")


def _check_disk_sum(instance: Instance) -> Iterator[Breach]:
    """Records only: disks count in whole GiB, swap in MiB, rounded up, as when a machine is adopted. A machine keeps
    the ephemeral disks that it has: one without gets none; it has swap exactly if its flavor has. One that boots from
    a volume has no root disk on its host."""
    flavor = instance.flavor
    root_gb = 0 if instance.volume_backed else flavor.root_gb
    wanted = (("root", root_gb, GIB), ("ephemeral", flavor.ephemeral_gb, GIB), ("swap", flavor.swap_mb, MIB))
    for role, size, unit in wanted:
        sizes = [math.ceil(disk.capacity / unit) for disk in instance.disks if disk.role == role]
        if (sizes or role == "swap") and sum(sizes) != size:
            name = "GiB" if unit == GIB else "MiB"
            found = f"{sum(sizes)} {name} of {role} disk"
            yield Breach(7, f"instance {instance.name}", found, f"{size} {name}, flavor {flavor.name}")


def _check_way_back(migration: Migration, instance: Instance, mark: Mark | None, world: World) -> Iterator[Breach]:
    """A resize that waits for its decision can be confirmed, and reverted."""
    subject = f"migration {migration.id}"
    if mark is None or (mark.migration, mark.role) != (migration.id, "destination"):
        found = f"{instance.name} on {instance.host.name} does not carry its mark, so that it cannot be confirmed"
        yield Breach(7, subject, found, "the mark that it was defined with")
    source, name = world.seen.get(migration.source_host_id), migration.source_host.name
    if source is None:
        return
    if not migration.same_host and not _is_retired(source.domains.get(instance.id), migration):
        yield Breach(7, subject, f"{name} has no retired, shut-off domain of it", "the way back of a revert")
    for disk in migration.disks:
        if not disk.source_volume:
            continue  # swap space that the machine did not have before
        volume = source.volumes.get(disk.source_volume)
        if volume is None or volume.capacity != disk.source_capacity:
            found = f"{disk.source_path} on {name} is {f'{volume.capacity} bytes' if volume else 'missing'}"
            yield Breach(7, subject, found, f"{disk.source_capacity} bytes, for a revert")


def _is_retired(domain: DomainFacts | None, migration: Migration) -> bool:
    mark = mark_of(domain)
    ours = mark is not None and (mark.migration, mark.role) == (migration.id, "retired")
    return ours and domain is not None and domain.state is PowerState.SHUTOFF


def mark_of(domain: DomainFacts | None, *, live: bool = False) -> Mark | None:
    """Our mark in what would start next, or in what runs; None in what is no machine that we could have made."""
    xml = (domain.live_xml if live else domain.inactive_xml) if domain else None
    try:
        return definition.read(xml).mark if xml else None
    except ValueError:
        return None
