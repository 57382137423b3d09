"""What must hold after every case, whatever went wrong in it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from resizeflow.chaos.case import Case
from resizeflow.chaos.cloud import Cloud, in_force
from resizeflow.chaos.scenarios import SCENARIOS, Scenario
from resizeflow.chaos.told import is_told_right, numbers_of, told_of
from resizeflow.chaos.watched import Call
from resizeflow.doctor import Doctor
from resizeflow.drivers.simulator.agents import UNPLUGGED
from resizeflow.drivers.simulator.effects import Cause, LoggedEffect
from resizeflow.drivers.simulator.network_disks import SHARED
from resizeflow.persistence.models import Host, Instance, Job, Migration
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus

SHOWN = 5
"""So many differences tell what is wrong."""
POWER = ("/live", "/state", "/content", "/open_at", "/instances")
"""What a loss of power leaves otherwise."""
RECORDED = ("/tables/ports", "/tables/port_bindings")
"""Where it is written down which ports a machine has."""


@dataclass(frozen=True)
class Evidence:
    """A case that has ended: its cloud, what it was before the operation and is after an undisturbed one."""

    case: Case
    cloud: Cloud
    job: Submitted
    before: dict[str, Any]
    done: dict[str, Any]
    undisturbed: tuple[LoggedEffect, ...]
    calls: tuple[Call, ...]

    @cached_property
    def row(self) -> Job:
        """The job, as it ended."""
        return self.cloud.job(self.job)

    @cached_property
    def migration(self) -> Migration:
        """The migration, as it ended."""
        return self.cloud.migration(self.job)

    @cached_property
    def host(self) -> Host | None:
        """Where the machine is by the records; of one that is not managed any more, where it was moved to."""
        with self.cloud.database.read() as tx:
            instance = tx.session.get(Instance, self.cloud.uuid)
        return instance.host if instance is not None else self.migration.dest_host

    @cached_property
    def effects(self) -> tuple[LoggedEffect, ...]:
        """All that happened on the hosts."""
        return self.cloud.world.effects()

    @property
    def scenario(self) -> Scenario:
        return SCENARIOS[self.case.scenario]

    @property
    def went_back(self) -> bool:
        """Whether the job was undone."""
        return self.row.direction is Direction.BACK

    @property
    def rebooted(self) -> bool:
        """Whether a host has lost its power."""
        return any(word.startswith("reboot@") for word in self.case.words)

    @property
    def origin(self) -> str:
        """The host that the operation takes the machine from."""
        return "h2" if self.scenario.operation == "revert" else "h1"

    @property
    def target(self) -> str | None:
        """The host that it takes the machine to; None where it stays, and the same host's disks change."""
        if self.scenario.operation in ("confirm", "remove") or self.scenario.host == "h1":
            return None
        return "h1" if self.scenario.operation == "revert" else self.scenario.host


def violations(evidence: Evidence) -> list[str]:
    """All that is wrong, in sentences."""
    return [sentence for rule in RULES for sentence in rule(evidence)]


def is_done(evidence: Evidence) -> Iterator[str]:
    """The job has ended by itself, once the faults did."""
    if evidence.row.state is not JobState.DONE:
        yield f"the job is {evidence.row.state}: {evidence.row.reason}"


def is_done_or_as_before(evidence: Evidence) -> Iterator[str]:
    """Exactly done, or exactly as before. What is exempt is listed in `resizeflow.chaos.cloud`; beside that, a host
    that lost its power leaves its machines off."""
    back = evidence.went_back
    expected = "before" if back else "an undisturbed run leaves it"
    differences = _differences(evidence.cloud.state(evidence.job), evidence.before if back else evidence.done)
    noticed = _noticed(evidence) if back else ()
    told = (
        text
        for path, text in differences
        if not (evidence.rebooted and _is_of_power(path)) and not path.endswith(noticed)
    )
    for text in itertools.islice(told, SHOWN):
        yield f"not as {expected}: {text}"


def _noticed(evidence: Evidence) -> tuple[str, ...]:
    """What an operation that was undone may leave otherwise: what it has seen of ports that were changed before it; and
    of inactive bindings those that a revert was to make anew, which the next revert makes."""
    seen = (*RECORDED, f"/domains/{evidence.cloud.uuid}/inactive") if evidence.scenario.changed else ()
    reverted = evidence.cloud.ports if evidence.scenario.operation == "revert" else ()
    return (*seen, *(f"/neutron/{port_id}/bindings" for port_id in reverted))


def turns_back_only_if_asked(evidence: Evidence) -> Iterator[str]:
    """A crash, a lost reply, a half-made disk are no failures: the job goes on. A destination may be given up."""
    reasons = ("rollback", "fail@", "drop@", "hang@", "reboot@")
    if evidence.went_back and not any(word.startswith(reasons) for word in evidence.case.words):
        yield "the job was turned back, although nothing had failed and nobody had asked for it"


def nothing_written_is_lost(evidence: Evidence) -> Iterator[str]:
    """Once the machine ran at its new place the job only goes forward."""
    if not evidence.went_back:
        return
    if evidence.row.pivot_at is not None:
        yield "the job was turned back after its point of no return"
    for effect in evidence.effects:
        if effect.job == evidence.job.job_id and effect.method == "resume" and effect.host == evidence.target:
            yield f"the job was turned back after the machine had run on {effect.host}, effect {effect.seq}"
            return


def invariants_hold(evidence: Evidence) -> Iterator[str]:
    """The doctor finds nothing; but a host that boots starts a machine, and nobody puts that into its VLAN."""
    found = broken_invariants(evidence.cloud)
    return (text for text in found if not (evidence.rebooted and "is in VLAN none" in text))


def broken_invariants(cloud: Cloud) -> Iterator[str]:
    """What the doctor finds, and where it could not look."""
    report = Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine()
    yield from map(str, report.breaches)
    yield from (f"{place} could not be examined: {why}" for place, why in report.silent.items())


def one_running_copy(evidence: Evidence) -> Iterator[str]:
    """At no moment do two hosts run the machine."""
    runs = {"h1"} if evidence.scenario.running else set()
    for effect in evidence.effects:
        if effect.subject != evidence.cloud.uuid:
            continue
        if effect.method in ("resume", "boot"):
            runs.add(effect.host)
        elif effect.method == "destroy" or (effect.caused is Cause.WORLD and effect.method in ("shutdown", "crash")):
            runs.discard(effect.host)
        if len(runs) > 1:
            yield f"effect {effect.seq}, {effect.method} on {effect.host}: it runs on {' and '.join(sorted(runs))}"
            return


def off_is_proven(evidence: Evidence) -> Iterator[str]:
    """The machine is started at its new place only after the old one was looked at, with nothing done there since;
    and its disks are copied only from a host that can no longer start it."""
    old, new = evidence.origin, evidence.target
    if new is None:
        return
    proven = retired = False
    for call in evidence.calls:
        if call.host == old and call.method in ("domain", "define", "destroy", "set_autostart"):
            proven = call.method == "domain"
            retired = retired or call.method == "define"
        elif call.host == new and call.method in ("start_paused", "resume") and not proven:
            yield f"{call.method} on {new} without a look at {old} since something was done there"
        elif call.host == old and call.method in ("start_carrier", "transfer", "stream") and not retired:
            yield f"{call.method} on {old}, which could start the machine meanwhile"


def one_attachment_per_volume(evidence: Evidence) -> Iterator[str]:
    """Each volume is attached to the machine, on its host; until a resize is decided a blank one keeps the way back."""
    cloud, migration, host = evidence.cloud, evidence.migration, evidence.host
    expected = [(cloud.uuid, "attached", "nowhere" if host is None else host.name)]
    if migration.status is MigrationStatus.FINISHED:
        expected.append((cloud.uuid, "reserved", "no host"))
    for volume_id in cloud.volumes:
        seen = cloud.world.cinder_volume(volume_id)
        if (seen.status, list(seen.attachments)) != ("in-use", expected):
            yield f"volume {volume_id} is {seen.status}, with {list(seen.attachments)} instead of {expected}"


def one_writer_of_a_volume(evidence: Evidence) -> Iterator[str]:
    """At no moment have two domains a volume open."""
    return shared_volumes(evidence.effects)


def shared_volumes(effects: Iterable[LoggedEffect]) -> Iterator[str]:
    """The moments at which a domain opened a volume that another one had open."""
    for effect in effects:
        if effect.method == SHARED:
            yield f"effect {effect.seq}: {effect.host} opens volume {effect.subject} while {effect.digest} has it open"


def volumes_hold_all(evidence: Evidence) -> Iterator[str]:
    """Whenever the machine ran it wrote to each of its volumes, and that is there."""
    runs = ["h1"] if evidence.scenario.running else []
    for effect in evidence.effects:
        if effect.subject == evidence.cloud.uuid and effect.method in ("resume", "boot"):
            runs.append(effect.host)
    for volume_id in evidence.cloud.volumes:
        found = evidence.cloud.world.cinder_volume(volume_id).content.split()[1:]
        if found != [f"run:{host}" for host in runs]:
            yield f"the machine ran on {', '.join(runs)}, but volume {volume_id} holds {' '.join(found)}"


def one_active_binding_per_port(evidence: Evidence) -> Iterator[str]:
    """Each port is bound to the machine's host and no other; until a resize is decided an inactive binding keeps the
    way back for those that it moved; a revert that was undone may have made one more, or one less. One whose machine
    runs is plugged in."""
    cloud, migration = evidence.cloud, evidence.migration
    here = "nowhere" if evidence.host is None else evidence.host.name
    status = "ACTIVE" if cloud.world.running(cloud.uuid) else "DOWN"
    moved = {port.port_id for port in migration.ports if not migration.same_host}
    for port_id in cloud.ports:
        seen = cloud.world.see_port(port_id)
        bindings, expected = in_force(seen.bindings), [(here, "ACTIVE", "ovs")]
        way_back = (migration.source_host.name, "INACTIVE", "")
        undecided = migration.status is MigrationStatus.FINISHED and port_id in moved
        if undecided and (evidence.scenario.operation != "revert" or way_back in bindings):
            expected.append(way_back)
        if (seen.instance, seen.status, bindings) != (cloud.uuid, status, sorted(expected)):
            yield f"port {port_id} is {seen.status}, bound as {bindings} instead of {status}, {expected}"


def plugged_in_before_it_runs(evidence: Evidence) -> Iterator[str]:
    """The machine runs nowhere but where its ports are bound to, and at its new place only once they are plugged in;
    one whose host lost its power after the pivot starts as after any power cut."""
    yield from unbound_runs(evidence.effects)
    waits = None if evidence.rebooted or evidence.went_back else evidence.target or evidence.origin
    for effect in evidence.effects:
        if effect.method == UNPLUGGED and effect.digest == effect.host == waits:
            yield f"effect {effect.seq}: the machine runs on {effect.host} before port {effect.subject} is plugged in"


def unbound_runs(effects: Iterable[LoggedEffect]) -> Iterator[str]:
    """The moments at which a machine ran on a host that one of its ports was not bound to."""
    for effect in effects:
        if effect.method == UNPLUGGED and effect.digest != effect.host:
            yield f"effect {effect.seq}: a machine runs on {effect.host}, its port {effect.subject} is bound elsewhere"


def vlan_where_it_is_needed(evidence: Evidence) -> Iterator[str]:
    """The uplinks of the machine's host bring its VLAN, those of the other only as long as it may go back there."""
    vlan, migration = evidence.scenario.vlan, evidence.migration
    if vlan is None:
        return
    needed = {evidence.host.name if evidence.host is not None else ""}
    if migration.status is MigrationStatus.FINISHED and migration.dest_host is not None:
        needed = {migration.source_host.name, migration.dest_host.name}
    for host in ("h1", "h2"):
        found = evidence.cloud.world.vlans(host)["uplinks"]["br0"]
        if found != ([vlan] if host in needed else []):
            yield f"the uplinks of {host} bring VLANs {found}, where {' and '.join(sorted(needed))} needs {vlan}"


def in_its_vlan_before_it_runs(evidence: Evidence) -> Iterator[str]:
    """Each time that a worker lets the machine run, its tap was put into its VLAN since it was started."""
    if evidence.scenario.vlan is None:
        return
    placed = {"h1"}
    for effect in evidence.effects:
        ours = effect.subject == evidence.cloud.uuid
        if ours and effect.method == "start_paused":
            placed.discard(effect.host)
        elif effect.method == "set_access_vlan":
            placed.add(effect.host)
        elif ours and effect.method == "resume" and effect.host not in placed:
            yield f"effect {effect.seq}: the machine runs on {effect.host}, and is in no VLAN"


def epochs_grow(evidence: Evidence) -> Iterator[str]:
    """No call carries an epoch lower than one seen before."""
    return lower_epochs(evidence.effects)


def lower_epochs(effects: Iterable[LoggedEffect]) -> Iterator[str]:
    """The effects whose epoch is lower than one that their job had before. What hung somewhere is done when that place
    wakes up: before all that is sent there later, but maybe after what was done elsewhere."""
    highest: Counter[tuple[str, str]] = Counter()
    for effect in effects:
        if effect.job is None or effect.epoch is None:
            continue
        anywhere, there = (effect.job, ""), (effect.job, effect.host)
        before = highest[there if effect.caused is Cause.LATE else anywhere]
        if effect.epoch < before:
            yield f"effect {effect.seq}, {effect.method} on {effect.host}: epoch {effect.epoch} after {before}"
        for where in (anywhere, there):
            highest[where] = max(highest[where], effect.epoch)


def seen_before_deleted(evidence: Evidence) -> Iterator[str]:
    """No copy is deleted unless the same worker has looked at the other before."""
    migration = evidence.migration
    others = dict(_copies(migration))
    seen: set[tuple[int, str]] = set()
    for call in evidence.calls:
        if call.method in ("domain", "volume") and _is_of(migration, call):
            seen.add((call.process, call.host))
        if call.method == "delete_volume":
            other = others.get((call.host, call.subjects[-1]))
            if other is not None and (call.process, other) not in seen:
                yield f"{call.subjects[-1]} is deleted from {call.host} before its copy on {other} was looked at"


def _copies(migration: Migration) -> Iterator[tuple[tuple[str, str], str]]:
    """Each disk's file, by host and name, and the host that has the other copy."""
    source, dest = migration.source_host, migration.dest_host
    for disk in migration.disks:
        if dest is not None and dest.id != source.id and disk.dest_volume:
            yield (source.name, disk.source_volume), dest.name
            yield (dest.name, disk.dest_volume), source.name


def _is_of(migration: Migration, call: Call) -> bool:
    names = {name for disk in migration.disks for name in (disk.source_volume, disk.dest_volume)}
    return bool(names.union({migration.instance_id}).intersection(call.subjects))


def effects_are_bounded(evidence: Evidence) -> Iterator[str]:
    """An effect is repeated at most once for each thing that went wrong, and for the way back."""
    more = len(evidence.case.words) + 2
    usual = Counter(map(_kind, evidence.undisturbed))
    for kind, count in Counter(map(_kind, evidence.effects)).items():
        if count > usual[kind] + more:
            yield f"{' '.join(kind)}: {count} times, where an undisturbed run has {usual[kind]}"


def told_in_order(evidence: Evidence) -> Iterator[str]:
    """Others were told of every phase that it began once and ended once, in order, with numbers without a gap."""
    cloud, operation = evidence.cloud, evidence.scenario.operation
    with cloud.database.read() as tx:
        told = told_of(tx, evidence.job.migration_id, evidence.job.job_id)
        numbers = numbers_of(tx, evidence.row.instance_id)
    if not is_told_right(operation, told, went_back=evidence.went_back):
        yield f"others were told: {told}"
    if numbers != [(number, number) for number in range(1, len(numbers) + 1)]:
        yield f"what others were told is numbered {numbers}"


def _kind(effect: LoggedEffect) -> tuple[str, str, str]:
    return effect.host, effect.method, effect.subject


RULES: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    is_done,
    is_done_or_as_before,
    turns_back_only_if_asked,
    nothing_written_is_lost,
    invariants_hold,
    one_running_copy,
    off_is_proven,
    one_attachment_per_volume,
    one_writer_of_a_volume,
    volumes_hold_all,
    one_active_binding_per_port,
    plugged_in_before_it_runs,
    vlan_where_it_is_needed,
    in_its_vlan_before_it_runs,
    epochs_grow,
    seen_before_deleted,
    effects_are_bounded,
    told_in_order,
)


def _is_of_power(path: str) -> bool:
    return path.endswith(POWER) or "/vlans/taps" in path


def _differences(found: Any, expected: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys(), key=str):
            yield from _differences(found.get(key), expected.get(key), f"{path}/{key}")
    elif found != expected:
        yield path, f"{path.lstrip('/')}: {found!r} instead of {expected!r}"
