"""Every refusal: what is typed, when, and what the answer is. `tests/unit/test_refusals.py` tries them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa

from resizeflow import errors
from resizeflow.chaos.cloud import Cloud
from resizeflow.config import load
from resizeflow.connections import Connections
from resizeflow.drivers.simulator.bindings import BRIDGE
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.drivers.simulator.neutron import NEUTRON
from resizeflow.errors import Conflict, NotFound, ResizeflowError, RuleError, UsageError
from resizeflow.looks import Looks
from resizeflow.persistence.models import Base, Flavor, Host, Instance, Job
from resizeflow.service import Submitted
from resizeflow.settlement import queue_settlements
from resizeflow.states import JobState, VmState
from tests.with_volumes import add_volume, booting_from_volume

Arrange = Callable[[Cloud], Submitted | None]


class Refusal(NamedTuple):
    """A command line, what it is refused with, a part of the sentence, and what was there before. `{migration}` in
    the words is the migration that the arrangement returns."""

    words: str
    error: type[ResizeflowError]
    told: str
    arrange: Arrange = lambda _cloud: None


def by_hand(statement: str, *values: str, rows: int = 1) -> Arrange:
    """What a person does to the machine on its host, past us: a statement on the simulator's only domain."""

    def arrange(cloud: Cloud) -> None:
        cloud.release()
        with contextlib.closing(sqlite3.connect(cloud.world.path)) as world, world:
            assert world.execute(statement, values).rowcount == rows

    return arrange


def row(model: type[Base], **values: object) -> Arrange:
    """Records as they can come to be without a command of ours."""

    def arrange(cloud: Cloud) -> None:
        with cloud.database.write() as tx:
            tx.session.execute(sa.update(model).values(**values))

    return arrange


def setting(line: str) -> Arrange:
    def arrange(cloud: Cloud) -> None:
        config = cloud.folder / "resizeflow.conf"
        config.write_text(config.read_text().replace("[DEFAULT]\n", f"[DEFAULT]\n{line}\n"))

    return arrange


def host(name: str, **changes: Any) -> Arrange:
    return lambda cloud: void(cloud.inventory.set_host(name, **changes))


def down(name: str) -> Arrange:
    return lambda cloud: cloud.world.set_up(name, False)


def flavor(name: str, **values: Any) -> Arrange:
    size = {"vcpus": 2, "memory_mb": 1024, "root_gb": 2} | values
    return lambda cloud: void(cloud.inventory.create_flavor(name, **size))


def all_of(*arrangements: Arrange) -> Arrange:
    return lambda cloud: [arrange(cloud) for arrange in arrangements][-1]


def void(_result: object) -> None:
    """An arrangement that has no migration to return."""


def locked(cloud: Cloud) -> None:
    cloud.inventory.lock("web", True)


def resizing(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h2")


def resized(cloud: Cloud) -> Submitted:
    job = resizing(cloud)
    assert cloud.run(job) is JobState.DONE
    return job


def confirming(cloud: Cloud) -> Submitted:
    resized(cloud)
    return cloud.service.confirm("web")


def reverting(cloud: Cloud) -> Submitted:
    resized(cloud)
    return cloud.service.revert("web")


def past_its_pivot(cloud: Cloud) -> Submitted:
    job = resizing(cloud)
    row(Job, pivot_at=cloud.clock.now())(cloud)
    return job


def settling(cloud: Cloud) -> None:
    """A job that goes on where no state tells of it: the confirm's debt, to be settled on a host that is back."""
    resized(cloud)
    cloud.world.set_up("h1", False)
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    cloud.world.set_up("h1", True)
    assert queue_settlements(cloud.database, Looks(Connections(), cloud.settings, cloud.clock)) == 1


def over_quota(cloud: Cloud) -> None:
    cloud.inventory.set_quota("default", {"cores": 1})


def another(cloud: Cloud) -> None:
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1})


def full(cloud: Cloud) -> None:
    cloud.world.set_free_bytes("h2", 2**20)


def volume(cloud: Cloud) -> None:
    """The machine has a volume, attached while nobody looked."""
    void(add_volume(cloud, cloud.uuid))


def with_volume(cloud: Cloud) -> None:
    """Another machine, not yet adopted, that boots from a volume."""
    void(booting_from_volume(cloud))


def no_cinder(cloud: Cloud) -> None:
    config = cloud.folder / "resizeflow.conf"
    config.write_text(config.read_text().replace("auth_type = noauth\n", ""))


def networked(cloud: Cloud) -> None:
    """There is a Neutron, of which nobody knew before."""
    endpoint = cloud.world.add_neutron()
    for name in ("h1", "h2"):
        cloud.world.set_agent(name)
    by_hand("UPDATE hosts SET bridges = ?", json.dumps(["br0", BRIDGE]), rows=2)(cloud)
    config = cloud.folder / "resizeflow.conf"
    section = f"[neutron]\nauth_type = noauth\nendpoint = {endpoint}\n"
    config.write_text(config.read_text().replace("[neutron]\n", section))
    cloud.settings = load(str(config))


def port(cloud: Cloud) -> None:
    """The machine has a port of Neutron's, given to it while nobody looked."""
    networked(cloud)
    cloud.world.attach_port("h1", cloud.uuid, cloud.world.create_port())


def with_port(cloud: Cloud) -> None:
    """Another machine, not yet adopted, that has a port."""
    networked(cloud)
    void(cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, ports=(cloud.world.create_port(),)))


def no_neutron(cloud: Cloud) -> None:
    config = cloud.folder / "resizeflow.conf"
    config.write_text(config.read_text().replace("[neutron]\nauth_type = noauth\n", "[neutron]\n"))


def binding(column: str, value: str) -> Arrange:
    return by_hand(f"UPDATE neutron_bindings SET {column} = ?", value)  # noqa: S608 - a column of the simulator's


def no_agents(cloud: Cloud) -> None:
    for name in ("h1", "h2"):
        cloud.world.set_agent(name, alive=False)


def refuse(place: str, method: str, words: str) -> Arrange:
    return lambda cloud: cloud.world.fail(place, method, words, times=9)


def another_attachment(cloud: Cloud) -> None:
    """The machine's volume is attached to it twice."""
    by_hand(
        "INSERT INTO attachments (id, volume, instance, status, connection_info) "
        "SELECT 'second', volume, instance, 'attached', connection_info FROM attachments"
    )(cloud)


def connection_info(old: str, new: str) -> Arrange:
    return by_hand("UPDATE attachments SET connection_info = replace(connection_info, ?, ?)", old, new)


def in_xml(old: str, new: str) -> Arrange:
    """In the definition of the only domain that has it."""
    return by_hand(
        "UPDATE domains SET inactive_xml = replace(inactive_xml, ?, ?) WHERE instr(inactive_xml, ?)", old, new, old
    )


LOGIN = "Keystone does not accept the login: correct the credentials in section [cinder]"
TOO_OLD = "Cinder speaks microversions up to 3.27, 3.44 is needed"
VOLUMES: tuple[tuple[str, Arrange], ...] = (
    ("is not known to Cinder", all_of(by_hand("DELETE FROM attachments"), by_hand("DELETE FROM cinder_volumes"))),
    ("is error, not in-use", by_hand("UPDATE cinder_volumes SET status = 'error'")),
    (
        "an attachment to this machine that is attaching, not attached",
        by_hand("UPDATE attachments SET status = 'attaching'"),
    ),
    (
        "an attachment to this machine that is reserved, not attached",
        by_hand("UPDATE attachments SET status = 'reserved'"),
    ),
    ("has no attachments to this machine", by_hand("UPDATE attachments SET instance = 'another'")),
    ("has 2 attachments to this machine", another_attachment),
    (
        "is reserved by nobody",
        all_of(by_hand("DELETE FROM attachments"), by_hand("UPDATE cinder_volumes SET status = 'reserved'")),
    ),
    ("by fibre_channel, which needs an agent", connection_info('"rbd"', '"fibre_channel"')),
    ("it is encrypted", connection_info('"encrypted": false', '"encrypted": true')),
    ("whose <serial> is no Cinder volume's id", in_xml("<serial>", "<serial>X-")),
)
"""What can be wrong with a machine's only volume, and how its refusal says it."""
FORBIDDEN = "Neutron does not tell us of its agents: grant the roles admin and service"
PORTS: tuple[tuple[str, Arrange], ...] = (
    ("is bound to h2, the machine is on h1", binding("host", "h2")),
    ("is bound to no host, the machine is on h1", by_hand("DELETE FROM neutron_bindings")),
    ("vnic_type is direct", binding("vnic_type", "direct")),
    ("Neutron could not bind it to h1", binding("vif_type", "binding_failed")),
    ("it is bound as macvtap", binding("vif_type", "macvtap")),
    ("but it has no NIC fa:16:3e", by_hand("UPDATE neutron_ports SET mac = 'fa:16:3e:ff:ff:ff'")),
    ("is not plugged into a bridge by name (direct)", in_xml('<interface type="bridge"', '<interface type="direct"')),
)
"""What can be wrong with a machine's only port, and how its refusal says it."""
BLOCK = "<disk type='block' device='disk'><source dev='/dev/sdz'/><target dev='vdz' bus='virtio'/></disk>"
TWO_CELLS = "<cpu><numa><cell id='0' cpus='0' memory='1'/><cell id='1' cpus='1' memory='1'/></numa></cpu><devices>"
RESIZE, MIGRATE, ADOPT = "resize web --flavor big", "migrate web", "instance adopt h1 db"
REQUESTS = (
    # In the order of the rules, which is Nova's; then what the scheduler finds.
    Refusal("resize nobody --flavor big", errors.InstanceNotFound, "no managed instance 'nobody'"),
    Refusal("migrate nobody", errors.InstanceNotFound, "no managed instance"),
    Refusal(RESIZE, errors.InstanceIsLocked, "`resizeflow instance unlock web` first", locked),
    Refusal(MIGRATE, errors.InstanceIsLocked, "is locked", locked),
    Refusal(RESIZE, errors.InstanceInvalidState, "vm_state error", row(Instance, vm_state=VmState.ERROR)),
    Refusal(RESIZE, errors.InstanceInvalidState, "vm_state resized: confirm or revert first", resized),
    Refusal(MIGRATE, errors.InstanceInvalidState, "vm_state resized: confirm or revert first", resized),
    Refusal(RESIZE, errors.InstanceInvalidState, "task_state resize_prep", resizing),
    Refusal(MIGRATE, errors.InstanceInvalidState, "task_state resize_prep", resizing),
    Refusal(RESIZE, errors.InstanceInvalidState, "job settle_v1", settling),
    Refusal(RESIZE, errors.InstanceInvalidState, "never been launched", row(Instance, launched_at=None)),
    Refusal(RESIZE, errors.ServiceUnavailable, "host h1 is fenced", host("h1", fenced=True)),
    Refusal(RESIZE, errors.ServiceUnavailable, "host h1 does not answer", down("h1")),
    Refusal(MIGRATE, errors.ServiceUnavailable, "Nothing was changed", down("h1")),
    Refusal(RESIZE, errors.InstanceNotReady, "Host h1 has no domain web", by_hand("DELETE FROM domains")),
    Refusal(RESIZE, errors.InstanceInvalidState, "web is paused", by_hand("UPDATE domains SET state = 'paused'")),
    Refusal(
        RESIZE, errors.CinderConnectionFailed, "it has volumes, and no Cinder is configured", all_of(volume, no_cinder)
    ),
    Refusal(RESIZE, errors.CinderConnectionFailed, "Cinder does not answer", all_of(volume, down(CINDER))),
    Refusal(MIGRATE, errors.CinderConnectionFailed, LOGIN, all_of(volume, refuse(CINDER, "service", LOGIN))),
    Refusal(RESIZE, errors.CinderConnectionFailed, TOO_OLD, all_of(volume, refuse(CINDER, "service", TOO_OLD))),
    Refusal(f"{RESIZE} --dry-run", errors.CinderConnectionFailed, "it has volumes", all_of(volume, down(CINDER))),
    Refusal(
        RESIZE, errors.NeutronConnectionFailed, "it has NICs, and Neutron does not answer", all_of(port, down(NEUTRON))
    ),
    Refusal(
        RESIZE, errors.NeutronConnectionFailed, FORBIDDEN, all_of(port, refuse(NEUTRON, "network_service", FORBIDDEN))
    ),
    Refusal(f"{RESIZE} --dry-run", errors.NeutronConnectionFailed, "it has NICs", all_of(port, down(NEUTRON))),
    Refusal(
        "confirm web",
        errors.NeutronConnectionFailed,
        "it has NICs, and no Neutron is configured",
        all_of(port, resized, no_neutron),
    ),
    Refusal("migrate web --host h1", errors.CannotMigrateToSameHost, "is on host h1 already"),
    Refusal("resize web --flavor big --host h9", errors.ComputeHostNotFound, "no host 'h9'"),
    Refusal("migrate web --host h9", errors.ComputeHostNotFound, "no host 'h9'"),
    Refusal("resize web --flavor none", errors.FlavorNotFound, "no flavor 'none'"),
    Refusal(RESIZE, errors.FlavorNotFound, "no flavor 'big'", row(Flavor, deleted=True)),
    Refusal("resize web --flavor own", errors.FlavorNotFound, "private", flavor("own", is_public=False)),
    Refusal("resize web --flavor flat", errors.CannotResizeDisk, "Resize to zero disk flavor is not allowed"),
    Refusal(RESIZE, errors.FlavorNotFound, "disabled", lambda c: void(c.inventory.set_flavor("big", disabled=True))),
    Refusal("resize web --flavor adopted-1-512-1-0", errors.CannotResizeToSameFlavor, "has flavor adopted"),
    Refusal(RESIZE, errors.TooManyInstances, "Quota exceeded for cores: Requested 1", over_quota),
    Refusal(
        RESIZE,
        errors.FlavorImageConflict,
        "2 NUMA cells",
        in_xml("<devices>", TWO_CELLS),
    ),
    Refusal(RESIZE, errors.MigrationPreCheckError, "1 snapshot(s)", by_hand("UPDATE domains SET snapshots = 1")),
    Refusal(MIGRATE, errors.MigrationPreCheckError, "managed save", by_hand("UPDATE domains SET managed_save = 1")),
    Refusal(
        RESIZE,
        errors.MigrationPreCheckError,
        "vdz is /dev/sdz, a block device of its host",
        in_xml("<devices>", f"<devices>{BLOCK}"),
    ),
    *(Refusal(RESIZE, errors.InvalidVolume, told, all_of(volume, fault)) for told, fault in VOLUMES),
    *(Refusal(RESIZE, errors.InvalidPort, told, all_of(port, fault)) for told, fault in PORTS),
    Refusal(
        "resize web --flavor flatter",
        errors.ResizeError,
        "a root disk of 1 GiB, the machine's has 2 GiB: a disk cannot shrink",
        all_of(row(Flavor, root_gb=2), flavor("flatter", root_gb=1)),
    ),
    Refusal(
        "resize web --flavor lean",
        errors.ResizeError,
        "0 GiB of ephemeral disk",
        all_of(row(Flavor, ephemeral_gb=1), flavor("lean")),
    ),
    Refusal(
        "resize web --flavor big --host h1",
        errors.UnableToMigrateToSelf,
        "allow_resize_to_same_host is false",
        setting("allow_resize_to_same_host = false"),
    ),
    Refusal("resize web --flavor huge", errors.NoValidHost, "h2"),
    Refusal("resize web --flavor big --host h2", errors.NoValidHost, "h2", host("h2", enabled=False)),
    Refusal("resize web --flavor big --host h2", errors.NoValidHost, "does not answer", down("h2")),
    Refusal(f"{RESIZE} --dry-run", errors.TooManyInstances, "Quota exceeded for cores", over_quota),
    Refusal("migrate web --dry-run", errors.NoValidHost, "does not answer", down("h2")),
    Refusal("resize web --flavor big --host h2", errors.NoValidHost, "1 MiB free", full),
    Refusal(
        MIGRATE, errors.NoValidHost, "no libvirt secret", all_of(volume, by_hand("UPDATE secrets SET value = NULL"))
    ),
    Refusal(MIGRATE, errors.NoValidHost, "no peer URI", all_of(row(Host, peer_uri=None), setting("transfer = direct"))),
    Refusal(
        "migrate web --host h2", errors.NoValidHost, "Neutron's agent on it does not live", all_of(port, no_agents)
    ),
    # Confirm and revert.
    Refusal("confirm nobody", errors.InstanceNotFound, "no managed instance"),
    Refusal("confirm web", errors.InstanceIsLocked, "is locked", all_of(resized, locked)),
    Refusal("revert web", errors.InstanceIsLocked, "is locked", all_of(resized, locked)),
    Refusal("confirm web", errors.InstanceInvalidState, "has not been resized"),
    Refusal("revert web", errors.InstanceInvalidState, "has not been resized"),
    Refusal("confirm web", errors.InstanceInvalidState, "its migration is pre-migrating", resizing),
    Refusal("revert web", errors.InstanceInvalidState, "its migration is pre-migrating", resizing),
    Refusal("confirm web", errors.InstanceInvalidState, "its migration is confirming", confirming),
    Refusal("revert web", errors.InstanceInvalidState, "its migration is confirming", confirming),
    Refusal("confirm web", errors.InstanceInvalidState, "task_state resize_reverting", reverting),
    Refusal("revert web", errors.InstanceInvalidState, "task_state resize_reverting", reverting),
    Refusal(
        "confirm web",
        errors.MigrationNotFoundByStatus,
        "nothing to confirm",
        row(Instance, vm_state=VmState.RESIZED),
    ),
    Refusal("confirm web", errors.CinderConnectionFailed, "does not answer", all_of(volume, resized, down(CINDER))),
    Refusal("revert web", errors.CinderConnectionFailed, "does not answer", all_of(volume, resized, down(CINDER))),
    Refusal("confirm web", errors.NeutronConnectionFailed, "does not answer", all_of(port, resized, down(NEUTRON))),
    Refusal("revert web", errors.NeutronConnectionFailed, "does not answer", all_of(port, resized, down(NEUTRON))),
    Refusal(
        "revert web",
        errors.InvalidPort,
        "is bound to no host, the machine is on h2",
        all_of(port, resized, by_hand("DELETE FROM neutron_bindings WHERE host = 'h2'")),
    ),
    # Jobs in flight, and past it.
    Refusal("migration resume {migration}", errors.InvalidMigrationState, "no job of it is left", resized),
    Refusal("migration rollback {migration}", errors.InvalidMigrationState, "no job of it is left", resized),
    Refusal("migration rollback {migration}", errors.InvalidMigrationState, "only goes forward", confirming),
    Refusal("migration rollback {migration}", errors.InvalidMigrationState, "can only go forward", past_its_pivot),
)
OTHERS = (
    Refusal("migration show 1234", NotFound, "no migration '1234'"),
    Refusal("migration history 1234", NotFound, "no migration"),
    Refusal("migration watch 1234", NotFound, "no migration"),
    Refusal("migration resume 1234", NotFound, "no migration"),
    Refusal("migration rollback 1234", NotFound, "no migration"),
    Refusal("migration list --instance nobody", errors.InstanceNotFound, "no managed instance"),
    Refusal("instance show nobody", errors.InstanceNotFound, "no managed instance"),
    Refusal("instance lock nobody", errors.InstanceNotFound, "no managed instance"),
    Refusal("instance remove nobody", errors.InstanceNotFound, "no managed instance"),
    Refusal("instance remove web", errors.InstanceInvalidState, "its migration", resizing),
    Refusal("instance adopt h2 web", Conflict, "does not answer", down("h2")),
    Refusal(ADOPT, errors.TooManyInstances, "Quota exceeded for cores", all_of(another, over_quota)),
    Refusal(
        ADOPT,
        errors.CinderConnectionFailed,
        "db has volumes, and no Cinder is configured",
        all_of(with_volume, no_cinder),
    ),
    Refusal(ADOPT, errors.CinderConnectionFailed, "Cinder does not answer", all_of(with_volume, down(CINDER))),
    Refusal(ADOPT, errors.CinderConnectionFailed, LOGIN, all_of(with_volume, refuse(CINDER, "service", LOGIN))),
    Refusal(ADOPT, errors.CinderConnectionFailed, TOO_OLD, all_of(with_volume, refuse(CINDER, "service", TOO_OLD))),
    *(Refusal(ADOPT, errors.InvalidVolume, told, all_of(with_volume, fault)) for told, fault in VOLUMES),
    Refusal(
        ADOPT, errors.NeutronConnectionFailed, "db has NICs, and Neutron does not", all_of(with_port, down(NEUTRON))
    ),
    *(Refusal(ADOPT, errors.InvalidPort, told, all_of(with_port, fault)) for told, fault in PORTS[:-1]),
    Refusal("instance adopt h9 web", NotFound, "no host 'h9'"),
    Refusal("instance adopt h1 nobody", NotFound, "has no domain 'nobody'"),
    Refusal("instance adopt h1 web", Conflict, "managed already"),
    Refusal("host show h9", NotFound, "no host"),
    Refusal("host set h9 --disable", NotFound, "no host"),
    Refusal("host drain h9", NotFound, "no host"),
    Refusal("host remove h9", NotFound, "no host"),
    Refusal("host remove h1", Conflict, "has managed instances: web"),
    Refusal("host add h3 qemu+nonsense://nowhere/system", RuleError, "Check the URI"),
    Refusal("host add h3 sim:///nowhere/world?host=h3", RuleError, "Check the URI"),
    Refusal("host add h1 sim:///nowhere/world?host=h1", Conflict, "There is a host 'h1' already"),
    Refusal("flavor show none", NotFound, "no flavor"),
    Refusal("flavor delete none", NotFound, "no flavor"),
    Refusal("flavor set none --enable", NotFound, "no flavor"),
    Refusal("flavor set big", UsageError, "Nothing to set"),
    Refusal("flavor set big --project shop", Conflict, "is public"),
    Refusal("flavor create big --vcpus 1 --ram 1 --disk 1", Conflict, "There is a flavor 'big' already"),
    Refusal("flavor create nil --vcpus 0 --ram 1 --disk 1", UsageError, "at least 1 vCPU"),
    Refusal("flavor create nil --vcpus 1 --ram 1 --disk 1 --swap -1", UsageError, "no negative disk"),
    Refusal("flavor create nil --vcpus 1 --ram 1 --disk 1 --property cpu", UsageError, "KEY=VALUE"),
    Refusal("flavor create nil --vcpus 1 --ram 1 --disk 1 --property hw:cpu=1", UsageError, "'hw:cpu' is not known"),
    Refusal("quota set default", UsageError, "Nothing to set"),
    Refusal("quota set default --cores -7", UsageError, "-1 or more"),
)
