"""The rules of a request: what passes, what is refused with which of Nova's errors and codes, and which fault is told
first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from resizeflow import errors
from resizeflow.drivers.definition import Disk
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.errors import RuleError, UsageError
from resizeflow.persistence.models import GIB, Flavor, FlavorAccess, Host, Instance, Job, Migration
from resizeflow.rules import (
    DECIDING,
    RULES,
    Decision,
    Move,
    check,
    decision,
    format_as_defined,
    machine,
    move,
    ports,
    volumes,
)
from resizeflow.rules import request as common
from resizeflow.rules.disks import new_capacity
from resizeflow.rules.extra_specs import well_formed
from resizeflow.states import MigrationStatus, TaskState, VmState

XML = (
    "<domain type='qemu'><name>web</name><uuid>u</uuid><memory>1</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
    "{}</domain>"
)
TWO_CELLS = "<cpu><numa><cell id='0' cpus='0' memory='1'/><cell id='1' cpus='1' memory='1'/></numa></cpu>"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def flavor(name: str, root: int = 10, ephemeral: int = 0) -> Flavor:
    return Flavor(
        id=name, name=name, vcpus=1, memory_mb=64, root_gb=root, ephemeral_gb=ephemeral, swap_mb=0, is_public=True
    )


def domain(state: PowerState = PowerState.RUNNING, devices: str = "", **more: int) -> DomainFacts:
    xml = XML.format(f"<devices>{devices}</devices>")
    return DomainFacts("u", "web", state, True, False, xml, **more)  # type: ignore[arg-type]


def instance() -> Instance:
    host = Host(id="h1", name="h1")
    return Instance(
        id="u",
        name="web",
        project_id="shop",
        host_id="h1",
        host=host,
        flavor=flavor("small", 10, 5),
        vm_state=VmState.ACTIVE,
        volume_backed=False,
        locked=False,
        launched_at=NOW,
    )


def resize() -> Move:
    """One that nothing speaks against."""
    return Move(
        action="resize",
        instance=instance(),
        job=None,
        flavor_name="large",
        flavor=flavor("large", 20, 10),
        host_name=None,
        target=None,
        same_host_allowed=True,
        over_quota=None,
        domain=domain(),
    )


def migration(request: Move) -> Move:
    """The same as a cold migration."""
    return replace(request, action="migrate", flavor_name=None, flavor=request.old)


# --- resize and cold migration ---------------------------------------------------------------------------

Fault = Callable[[Move], Move]


def of_instance(**values: object) -> Fault:
    def fault(request: Move) -> Move:
        for name, value in values.items():
            setattr(request.instance, name, value)
        return request

    return fault


def of_flavor(**values: object) -> Fault:
    def fault(request: Move) -> Move:
        for name, value in values.items():
            setattr(request.new, name, value)
        return request

    return fault


def of_request(**values: object) -> Fault:
    return lambda request: replace(request, **values)  # type: ignore[arg-type]


def of_domain(**values: object) -> Fault:
    return lambda request: replace(request, domain=replace(request.machine, **values))  # type: ignore[arg-type]


def fenced(request: Move) -> Move:
    request.instance.host.fenced_at = NOW
    return request


def to_itself(request: Move) -> Move:
    return replace(migration(request), host_name="h1", target=request.instance.host)


def on_its_own_host(request: Move) -> Move:
    return replace(request, host_name="h1", target=request.instance.host, same_host_allowed=False)


def same_flavor(request: Move) -> Move:
    return replace(request, flavor_name="small", flavor=request.old)


OVER_QUOTA = errors.TooManyInstances("Quota exceeded for cores")
BAD_VOLUME = errors.InvalidVolume("Volume v is in error.")
BAD_PORT = errors.InvalidPort("Port p is bound to no host.")
FAULTS: Mapping[Callable[[Move], None], tuple[Fault, type[Exception], int]] = {
    common.not_locked: (of_instance(locked=True), errors.InstanceIsLocked, 409),
    move.resizable_state: (of_instance(vm_state=VmState.RESIZED), errors.InstanceInvalidState, 409),
    common.idle: (of_instance(task_state=TaskState.RESIZE_PREP), errors.InstanceInvalidState, 409),
    common.no_unfinished_job: (
        of_request(job=Job(flow="settle_v1", migration_id="0123456789")),
        errors.InstanceInvalidState,
        409,
    ),
    move.launched: (of_instance(launched_at=None), errors.InstanceInvalidState, 409),
    move.source_not_fenced: (fenced, errors.ServiceUnavailable, 409),
    move.source_answers: (of_request(away="host h1 does not answer: time-out"), errors.ServiceUnavailable, 409),
    move.steady: (of_domain(state=PowerState.PAUSED), errors.InstanceInvalidState, 409),
    volumes.cinder_answers: (of_request(cinder_away="Cinder does not answer"), errors.CinderConnectionFailed, 409),
    ports.neutron_answers: (of_request(neutron_away="Neutron does not answer"), errors.NeutronConnectionFailed, 409),
    move.to_another_host: (to_itself, errors.CannotMigrateToSameHost, 400),
    move.known_host: (of_request(host_name="h9", target=None), errors.ComputeHostNotFound, 400),
    move.flavor_granted: (of_flavor(is_public=False), errors.FlavorNotFound, 400),
    move.root_disk_stays: (of_flavor(root_gb=0), errors.CannotResizeDisk, 400),
    move.flavor_enabled: (of_flavor(disabled=True), errors.FlavorNotFound, 400),
    move.flavor_differs: (same_flavor, errors.CannotResizeToSameFlavor, 400),
    move.within_quota: (of_request(over_quota=OVER_QUOTA), errors.TooManyInstances, 403),
    move.definable: (of_domain(inactive_xml=XML.format(TWO_CELLS)), errors.FlavorImageConflict, 400),
    move.movable: (of_domain(snapshots=1), errors.MigrationPreCheckError, 409),
    volumes.volumes_movable: (of_request(bad_volume=BAD_VOLUME), errors.InvalidVolume, 400),
    ports.ports_movable: (of_request(bad_port=BAD_PORT), errors.InvalidPort, 400),
    move.root_not_smaller: (of_flavor(root_gb=9), errors.ResizeError, 400),
    move.ephemeral_not_smaller: (of_flavor(ephemeral_gb=4), errors.ResizeError, 400),
    move.same_host_allowed: (on_its_own_host, errors.UnableToMigrateToSelf, 400),
}
"""A fault against each rule, in Nova's order: what is refused first, its error, its HTTP code."""


def told(rule: Callable[[Move], None], request: Move) -> str | None:
    try:
        rule(request)
    except (RuleError, UsageError) as error:
        return str(error)
    return None


def test_a_request_without_a_fault() -> None:
    check(resize(), RULES)
    check(migration(resize()), RULES)


def test_the_order_is_nova_s() -> None:
    assert tuple(FAULTS) == RULES


@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: rule.__name__)
def test_a_fault(rule: Callable[[Move], None]) -> None:
    fault, expected, http_code = FAULTS[rule]
    with pytest.raises((RuleError, UsageError)) as refusal:
        check(fault(resize()), RULES)
    assert type(refusal.value) is expected
    assert refusal.value.http_code == http_code
    assert str(refusal.value) == told(rule, fault(resize()))


def test_of_two_faults_nova_s_first_is_told() -> None:
    never_both = set()
    for first, second in itertools.combinations(FAULTS, 2):
        for one, other in ((first, second), (second, first)):
            request = FAULTS[other][0](FAULTS[one][0](resize()))
            if told(first, request) and told(second, request):
                with pytest.raises((RuleError, UsageError)) as refusal:
                    check(request, RULES)
                assert str(refusal.value) == told(first, request), (first, second)
                break
        else:
            never_both.add((first.__name__, second.__name__))
    # A host is known or not; who keeps a flavor needs no access to it, and its disks do not change.
    assert never_both == {
        ("to_another_host", "known_host"),
        ("to_another_host", "flavor_granted"),
        ("to_another_host", "root_disk_stays"),
        ("to_another_host", "flavor_enabled"),
        ("to_another_host", "flavor_differs"),
        ("to_another_host", "root_not_smaller"),
        ("to_another_host", "ephemeral_not_smaller"),
        ("known_host", "same_host_allowed"),
        ("root_disk_stays", "flavor_differs"),
        ("flavor_enabled", "flavor_differs"),
        ("flavor_differs", "root_not_smaller"),
        ("flavor_differs", "ephemeral_not_smaller"),
    }


@pytest.mark.parametrize("state", VmState)
def test_states_that_can_be_resized(state: VmState) -> None:
    request = of_instance(vm_state=state)(resize())
    if state in (VmState.ACTIVE, VmState.STOPPED):
        check(request, RULES)
        return
    with pytest.raises(errors.InstanceInvalidState, match=f"'resize' instance web while it is in vm_state {state}"):
        check(request, RULES)
    assert ("confirm or revert first" in (told(move.resizable_state, request) or "")) is (state is VmState.RESIZED)


@pytest.mark.parametrize("state", TaskState)
def test_one_thing_at_a_time(state: TaskState) -> None:
    with pytest.raises(errors.InstanceInvalidState, match=f"'migrate' instance web while it is in task_state {state}"):
        check(of_instance(task_state=state)(migration(resize())), RULES)


def test_a_flavor_is_missing() -> None:
    with pytest.raises(errors.FlavorNotFound, match="no flavor 'large'"):
        check(replace(resize(), flavor=None), RULES)


def test_a_private_flavor_is_for_whom_it_is_granted_to() -> None:
    request = of_flavor(is_public=False, access=[FlavorAccess(project_id="bank")])(resize())
    with pytest.raises(errors.FlavorNotFound, match="project shop has no access"):
        check(request, RULES)
    request.new.access.append(FlavorAccess(project_id="shop"))
    check(request, RULES)


def test_a_machine_keeps_a_flavor_that_nobody_can_ask_for() -> None:
    request = migration(resize())
    request.old.is_public, request.old.disabled, request.old.deleted = False, True, True
    check(request, RULES)


def test_a_machine_without_a_root_disk_of_its_own_may_stay_so() -> None:
    request = of_flavor(root_gb=0)(resize())
    request.old.root_gb = 0
    check(request, RULES)


@pytest.mark.parametrize("root_gb", [0, 9])
def test_the_root_size_is_nothing_to_a_machine_that_boots_from_a_volume(root_gb: int) -> None:
    check(of_instance(volume_backed=True)(of_flavor(root_gb=root_gb)(resize())), RULES)


def test_swap_may_shrink() -> None:
    request = resize()
    request.old.swap_mb = 1024
    check(request, RULES)


def test_a_disabled_host_may_be_left() -> None:
    request = resize()
    request.instance.host.enabled = False
    check(request, RULES)


def test_a_resize_on_its_own_host_where_that_is_allowed() -> None:
    check(replace(on_its_own_host(resize()), same_host_allowed=True), RULES)


def test_its_host_has_no_such_machine() -> None:
    with pytest.raises(errors.InstanceNotReady, match="Host h1 has no domain web"):
        check(replace(resize(), domain=None), RULES)


# --- the machine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", PowerState)
def test_power_states(state: PowerState) -> None:
    if state in (PowerState.RUNNING, PowerState.SHUTOFF):
        machine.movable(domain(state))
    else:
        with pytest.raises(errors.InstanceInvalidState, match=f"web is {state}"):
            machine.movable(domain(state))


def test_what_would_be_lost() -> None:
    for bad, words in (
        (domain(snapshots=3), "3 snapshot"),
        (domain(managed_save=True), "managed save"),
        (domain(devices="<hostdev mode='subsystem' type='usb'/>"), "host device"),
        (domain(devices="<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"), "has a TPM"),
        (domain(devices="<filesystem type='mount'><source dir='/srv'/></filesystem>"), "a directory of its host"),
        (domain(devices="<memory model='nvdimm'/>"), "has persistent memory"),
    ):
        with pytest.raises(errors.MigrationPreCheckError, match=words):
            machine.movable(bad)


def test_a_disk_that_an_agent_on_the_host_would_have_to_attach() -> None:
    disk = "<disk type='{}' device='disk'><source {}='/dev/sdz'/><target dev='vdb'/></disk>"
    for bad, words in (
        (domain(devices=disk.format("block", "dev")), "web's disk vdb is /dev/sdz, a block device of its host"),
        (domain(devices=disk.format("volume", "volume")), "web's disk vdb names no file"),
    ):
        with pytest.raises(errors.MigrationPreCheckError, match=words):
            machine.movable(bad)
    machine.movable(domain(devices="<disk type='block' device='cdrom'><target dev='sda'/></disk>"))


def test_a_disk_that_is_not_in_the_definition() -> None:
    disk = "<disk type='network' device='disk'><source protocol='rbd' name='p/v'/><target dev='vdb'/></disk>"
    running = domain(devices=disk)
    with pytest.raises(errors.MigrationPreCheckError, match="web has disk vdb only until it is shut down"):
        machine.movable(replace(domain(), live_xml=running.inactive_xml))
    machine.movable(replace(running, live_xml=running.inactive_xml))
    machine.movable(replace(running, live_xml=domain().inactive_xml))


def test_an_image_that_pretends_to_be_another_format() -> None:
    disk = Disk("vda", "disk", "/p/web", "raw", False, False)
    format_as_defined("web", disk, VolumeFacts("web", "/p/web", 1, 1, "raw"))
    with pytest.raises(errors.MigrationPreCheckError, match="pretends to be another format"):
        format_as_defined("web", disk, VolumeFacts("web", "/p/web", 1, 1, "qcow2"))


# --- confirm and revert ----------------------------------------------------------------------------------


def confirm(**values: object) -> Decision:
    """Of a resize that waits for it."""
    row = instance()
    row.vm_state = VmState.RESIZED
    for name, value in values.items():
        setattr(row, name, value)
    return Decision("confirm", row, None, Migration(id="0123456789", status=MigrationStatus.FINISHED))


def locked(request: Decision) -> Decision:
    request.instance.locked = True
    return request


def active(request: Decision) -> Decision:
    request.instance.vm_state = VmState.ACTIVE
    return request


def reverting(request: Decision) -> Decision:
    request.instance.task_state = TaskState.RESIZE_REVERTING
    return request


DECISIONS: Mapping[Callable[[Decision], None], tuple[Callable[[Decision], Decision], type[RuleError], int]] = {
    common.not_locked: (locked, errors.InstanceIsLocked, 409),
    decision.resized: (active, errors.InstanceInvalidState, 409),
    common.idle: (reverting, errors.InstanceInvalidState, 409),
    decision.finished: (lambda d: replace(d, migration=None), errors.MigrationNotFoundByStatus, 400),
    common.no_unfinished_job: (
        lambda d: replace(d, job=Job(flow="resize_v1", migration_id="0123456789")),
        errors.InstanceInvalidState,
        409,
    ),
}
"""As `FAULTS`, against a confirm."""


def test_a_decision_without_a_fault() -> None:
    check(confirm(), DECIDING)
    assert tuple(DECISIONS) == DECIDING


@pytest.mark.parametrize("rule", DECISIONS, ids=lambda rule: rule.__name__)
def test_a_fault_of_a_decision(rule: Callable[[Decision], None]) -> None:
    fault, expected, http_code = DECISIONS[rule]
    with pytest.raises(RuleError) as refusal:
        check(fault(confirm()), DECIDING)
    assert (type(refusal.value), refusal.value.http_code) == (expected, http_code)


def test_of_two_faults_of_a_decision_nova_s_first_is_told() -> None:
    for first, second in itertools.combinations(DECISIONS, 2):
        request = DECISIONS[second][0](DECISIONS[first][0](confirm()))
        with pytest.raises(RuleError) as alone:
            first(request)
        with pytest.raises(RuleError):
            second(request)
        with pytest.raises(RuleError) as refusal:
            check(request, DECIDING)
        assert str(refusal.value) == str(alone.value)


@pytest.mark.parametrize("status", MigrationStatus)
def test_what_can_be_decided(status: MigrationStatus) -> None:
    request = replace(confirm(), migration=Migration(id="0123456789", status=status))
    if status is MigrationStatus.FINISHED:
        check(request, DECIDING)
        return
    with pytest.raises(errors.InstanceInvalidState, match=f"its migration is {status}; .* watch 01234567"):
        check(request, DECIDING)
    with pytest.raises(errors.InstanceInvalidState, match=f"vm_state active: its migration is {status}"):
        check(active(request), DECIDING)


def test_nothing_was_resized() -> None:
    with pytest.raises(errors.InstanceInvalidState, match="vm_state active: it has not been resized"):
        check(replace(active(confirm()), migration=None), DECIDING)


# --- flavors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "first", "actual", "expected"),
    [
        ("root", False, 10 * GIB, 20 * GIB),
        ("root", False, 30 * GIB, 30 * GIB),
        ("ephemeral", True, 5 * GIB + 7, 9 * GIB + 7),
        ("ephemeral", False, 5 * GIB, 5 * GIB),
        ("other", False, 3, 3),
    ],
)
def test_new_sizes_of_disks(role: str, first: bool, actual: int, expected: int) -> None:
    old, new = flavor("old", 10, 5), flavor("new", 20, 9)
    assert new_capacity(old, new, role, first_ephemeral=first, actual=actual) == expected
    assert new_capacity(new, new, role, first_ephemeral=first, actual=actual) == actual
    assert new_capacity(new, old, "ephemeral", first_ephemeral=True, actual=actual) == actual


@pytest.mark.parametrize(("swap_mb", "disk_gb"), [(0, 15), (1, 16), (1024, 16), (1025, 17)])
def test_swap_takes_whole_gib_of_disk(swap_mb: int, disk_gb: int) -> None:
    size = flavor("small", 10, 5)
    size.swap_mb = swap_mb
    assert size.local_gb(volume_backed=False) == disk_gb
    assert size.local_gb(volume_backed=True) == disk_gb - 10


@pytest.mark.parametrize(
    ("key", "value"), [("trait:CUSTOM_SSD", "required"), ("trait:HW_CPU_X86_AVX2", "forbidden"), ("aggregate:a:b", "c")]
)
def test_extra_specs(key: str, value: str) -> None:
    well_formed(key, value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("trait:CUSTOM_SSD", "wanted", "required or forbidden"),
        ("trait:ssd", "required", "names no trait"),
        ("trait:", "required", "names no trait"),
        ("aggregate:", "fast", "there are trait:NAME and aggregate:PROPERTY"),
        ("aggregate:disk", "", "has no value"),
        ("hw:cpu_policy", "dedicated", "there are trait:NAME and aggregate:PROPERTY"),
        ("CUSTOM_SSD", "required", "there are trait:NAME and aggregate:PROPERTY"),
    ],
)
def test_extra_specs_that_nothing_would_understand(key: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        well_formed(key, value)
