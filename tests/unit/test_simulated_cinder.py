"""The simulated Cinder: the states, refusals and half-done calls of the real one, and what QEMU needs of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.watched import Trace
from resizeflow.drivers import connect
from resizeflow.drivers.definition import Connected, Mark, connected, read, retired, volumes
from resizeflow.drivers.hypervisor import PowerState, SecretFacts, SecretSpec
from resizeflow.drivers.interface import Connection, Fence, Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.simulator import Fault, SimulatedWorld
from resizeflow.drivers.simulator.exports import CEPH_SECRET, KEY, PASSWORD
from resizeflow.drivers.simulator.snapshots import GONE
from resizeflow.drivers.volume import Attachment, VolumeConnection

WEB = "6f1e2d3c-0000-4000-8000-000000000001"
OTHER = "6f1e2d3c-0000-4000-8000-000000000002"
NOBODY = "6f1e2d3c-0000-4000-8000-00000000ffff"
MARK = Mark("m-1", 1, "retired")


@pytest.fixture
def world(tmp_path: Path) -> SimulatedWorld:
    world = SimulatedWorld(tmp_path / "world.db").create()
    for name in ("h1", "h2"):
        world.add_host(name)
    world.add_cinder()
    return world


@pytest.fixture
def cinder(world: SimulatedWorld) -> Connection:
    return opened(world, "cinder")


def opened(world: SimulatedWorld, name: str) -> Connection:
    connection = connect(world.uri(name))
    connection.open(1)
    return connection


def ask(connection: Connection, method: str, *args: Any, fence: Fence | None = None) -> Any:
    return connection.call(method, args, timeout=5, fence=fence)


def connector(world: SimulatedWorld, host: str) -> Mapping[str, Any]:
    return {"host": host, "initiator": initiator(world, host)}


def initiator(world: SimulatedWorld, host: str) -> str:
    return f"iqn.2026-11.dev.resizeflow:{ask(opened(world, host), 'facts').uuid}"


def status(cinder: Connection, volume_id: str) -> str:
    return str(ask(cinder, "cinder_volume", volume_id).status)


def ready(world: SimulatedWorld, cinder: Connection, volume_id: str, host: str) -> str:
    """An attachment that is connected to a host."""
    made: str = ask(cinder, "create_attachment", volume_id, WEB)
    ask(cinder, "update_attachment", made, connector(world, host))
    return made


# --- states ----------------------------------------------------------------------------------------------


def test_a_volume_goes_from_available_to_in_use_and_back(world: SimulatedWorld, cinder: Connection) -> None:
    volume = world.create_cinder_volume()
    made = ask(cinder, "create_attachment", volume, WEB)
    assert (status(cinder, volume), ask(cinder, "attachment", made).status) == ("reserved", "reserved")
    ask(cinder, "update_attachment", made, connector(world, "h1"))
    assert (status(cinder, volume), ask(cinder, "attachment", made).status) == ("attaching", "attaching")
    ask(cinder, "complete_attachment", made)
    assert (status(cinder, volume), ask(cinder, "attachment", made).status) == ("in-use", "attached")
    assert world.cinder_volume(volume).attachments == ((WEB, "attached", "h1"),)
    ask(cinder, "delete_attachment", made)
    assert (status(cinder, volume), ask(cinder, "attachment", made)) == ("available", None)


def test_a_volume_moves_from_host_to_host_as_nova_moves_it(world: SimulatedWorld, cinder: Connection) -> None:
    volume = world.create_cinder_volume("iscsi")
    source = ready(world, cinder, volume, "h1")
    ask(cinder, "complete_attachment", source)
    dest, back = (ask(cinder, "create_attachment", volume, WEB) for _ in range(2))
    assert len({source, dest, back}) == 3
    assert ask(cinder, "attachments", WEB, volume) == tuple(
        sorted(
            (
                Attachment(source, volume, WEB, "attached"),
                Attachment(dest, volume, WEB, "reserved"),
                Attachment(back, volume, WEB, "reserved"),
            ),
            key=lambda one: one.id,
        )
    )
    with pytest.raises(Refused, match="duplicate connectors"):
        ask(cinder, "update_attachment", dest, connector(world, "h2"))
    ask(cinder, "delete_attachment", source)
    assert status(cinder, volume) == "reserved"
    ask(cinder, "update_attachment", dest, connector(world, "h2"))
    with pytest.raises(Refused, match="must be available or downloading to reserve, but the current status is attach"):
        ask(cinder, "create_attachment", volume, WEB)
    with pytest.raises(Refused, match="duplicate connectors"):
        ask(cinder, "update_attachment", dest, connector(world, "h2"))
    ask(cinder, "complete_attachment", dest)
    ask(cinder, "delete_attachment", back)
    assert world.cinder_volume(volume).attachments == ((WEB, "attached", "h2"),)
    assert status(cinder, volume) == "in-use"


def test_a_volume_of_another_machine_is_refused_unless_it_is_for_several(
    world: SimulatedWorld, cinder: Connection
) -> None:
    volume, shared = world.create_cinder_volume(), world.create_cinder_volume(multiattach=True)
    ask(cinder, "complete_attachment", ready(world, cinder, volume, "h1"))
    with pytest.raises(Refused, match="must be available or downloading to reserve, but the current status is in-use"):
        ask(cinder, "create_attachment", volume, OTHER)
    ask(cinder, "complete_attachment", ready(world, cinder, shared, "h1"))
    other = ask(cinder, "create_attachment", shared, OTHER)
    ask(cinder, "update_attachment", other, connector(world, "h2"))
    assert [one.instance_id for one in ask(cinder, "attachments", OTHER)] == [OTHER]


def test_a_volume_in_an_error_state_is_refused(world: SimulatedWorld, cinder: Connection) -> None:
    volume = world.create_cinder_volume()
    made = ask(cinder, "create_attachment", volume, WEB)
    ask(cinder, "reset_volume", volume, "error", "reserved")
    with pytest.raises(Refused, match="can not be created if the volume is in an error state"):
        ask(cinder, "create_attachment", volume, WEB)
    with pytest.raises(Refused, match="can not be updated if the volume is in an error state"):
        ask(cinder, "update_attachment", made, connector(world, "h1"))


def test_completing_checks_nothing_and_an_update_of_the_only_one_may_be_repeated(
    world: SimulatedWorld, cinder: Connection
) -> None:
    volume = world.create_cinder_volume("iscsi")
    made = ask(cinder, "create_attachment", volume, WEB)
    ask(cinder, "complete_attachment", made)
    assert status(cinder, volume) == "in-use"
    for _ in range(2):
        ask(cinder, "update_attachment", made, connector(world, "h1"))
    assert ask(cinder, "connection", made).name.startswith("iqn.")


def test_what_is_not_there(world: SimulatedWorld, cinder: Connection) -> None:
    assert ask(cinder, "cinder_volume", NOBODY) is None
    assert ask(cinder, "attachment", NOBODY) is None
    assert ask(cinder, "attachments", NOBODY) == ()
    for call in (
        ("create_attachment", NOBODY, WEB),
        ("update_attachment", NOBODY, connector(world, "h1")),
        ("complete_attachment", NOBODY),
        ("delete_attachment", NOBODY),
        ("connection", NOBODY),
        ("reset_volume", NOBODY, "available", "detached"),
    ):
        with pytest.raises(Missing, match="could not be found"):
            ask(cinder, *call)


def test_a_reset_to_detached_ends_attachments_and_to_in_use_needs_one(
    world: SimulatedWorld, cinder: Connection
) -> None:
    volume = world.create_cinder_volume()
    with pytest.raises(Refused, match="does not have any attachments"):
        ask(cinder, "reset_volume", volume, "in-use", "attached")
    ready(world, cinder, volume, "h1")
    ask(cinder, "reset_volume", volume, "available", "detached")
    assert (status(cinder, volume), world.cinder_volume(volume).attachments) == ("available", ())


# --- connections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "port"), [("rbd", "volumes/volume-", 6789), ("iscsi", "iqn.", 3260), ("nfs", "/export/", None)]
)
def test_how_a_volume_is_opened(
    world: SimulatedWorld, cinder: Connection, kind: str, name: str, port: int | None
) -> None:
    volume = world.create_cinder_volume(kind)
    made = ask(cinder, "create_attachment", volume, WEB)
    with pytest.raises(Refused, match="connected to no host"):
        ask(cinder, "connection", made)
    ask(cinder, "update_attachment", made, connector(world, "h1"))
    found: VolumeConnection = ask(cinder, "connection", made)
    assert (found.kind, found.hosts) == (kind, (("198.51.100.2", port),))
    assert found.name.startswith(name)
    assert volume in found.name
    assert {"rbd": CEPH_SECRET, "iscsi": made, "nfs": None}[kind] == (found.secret.uuid if found.secret else None)


def test_a_target_ends_with_its_attachment_and_the_next_has_another_password(
    world: SimulatedWorld, cinder: Connection
) -> None:
    volume = world.create_cinder_volume("iscsi")
    passwords = []
    for host in ("h1", "h2"):
        made = ready(world, cinder, volume, host)
        passwords.append(ask(cinder, "connection", made).password)
        ask(cinder, "delete_attachment", made)
    assert len(set(passwords)) == 2
    assert all(password.startswith(PASSWORD) for password in passwords)
    with pytest.raises(Refused, match="initiator"):
        ask(cinder, "update_attachment", ask(cinder, "create_attachment", volume, WEB), {"host": "h1"})


# --- faults ----------------------------------------------------------------------------------------------


def test_killed_between_its_two_writes_it_leaves_the_volume_reserved_by_nobody(
    world: SimulatedWorld, cinder: Connection
) -> None:
    volume = world.create_cinder_volume()
    world.fail("cinder", "create_attachment", fault=Fault.HALF)
    with pytest.raises(Unknown):
        ask(cinder, "create_attachment", volume, WEB)
    cinder.open(1)
    assert (status(cinder, volume), ask(cinder, "attachments", WEB, volume)) == ("reserved", ())
    with pytest.raises(Refused, match="current status is reserved"):
        ask(cinder, "create_attachment", volume, WEB)
    ask(cinder, "reset_volume", volume, "available", "detached")
    ask(cinder, "create_attachment", volume, WEB)


def test_killed_in_the_middle_of_connecting_it_leaves_an_attachment_that_nobody_can_open(
    world: SimulatedWorld, cinder: Connection
) -> None:
    volume = world.create_cinder_volume()
    made = ask(cinder, "create_attachment", volume, WEB)
    world.fail("cinder", "update_attachment", fault=Fault.HALF)
    with pytest.raises(Unknown):
        ask(cinder, "update_attachment", made, connector(world, "h1"))
    cinder.open(1)
    assert ask(cinder, "attachment", made).status == "attaching"
    with pytest.raises(Refused, match="connected to no host"):
        ask(cinder, "connection", made)
    ask(cinder, "update_attachment", made, connector(world, "h1"))
    assert ask(cinder, "connection", made).kind == "rbd"


def test_killed_in_the_middle_of_completing_it_leaves_the_volume_attaching(
    world: SimulatedWorld, cinder: Connection
) -> None:
    volume = world.create_cinder_volume()
    made = ready(world, cinder, volume, "h1")
    world.fail("cinder", "complete_attachment", fault=Fault.HALF)
    with pytest.raises(Unknown):
        ask(cinder, "complete_attachment", made)
    cinder.open(1)
    assert (ask(cinder, "attachment", made).status, status(cinder, volume)) == ("attached", "attaching")
    ask(cinder, "complete_attachment", made)
    assert status(cinder, volume) == "in-use"


def test_it_is_down_and_hangs_as_a_host_does_and_does_late_what_hung(world: SimulatedWorld, cinder: Connection) -> None:
    volume = world.create_cinder_volume()
    world.set_up("cinder", False)
    with pytest.raises(Unreachable, match="'cinder' is down"):
        ask(cinder, "service")
    world.set_up("cinder", True)
    cinder.open(1)
    assert ask(cinder, "service").oldest == "3.0"
    world.fail("cinder", "create_attachment", fault=Fault.HANG, attempts=1)
    late = Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + 60, "j-1", 7)
    with pytest.raises(Unknown):
        ask(cinder, "create_attachment", volume, WEB, fence=late)
    with pytest.raises(Unreachable, match="does not answer"):
        cinder.open(1)
    assert world.cinder_volume(volume).attachments == ()
    cinder.open(1)
    assert [one.status for one in ask(cinder, "attachments", WEB)] == ["reserved"]
    (effect,) = world.effects()
    assert (effect.host, effect.method, effect.subject, effect.epoch) == ("cinder", "create_attachment", volume, 7)


def test_after_its_last_moment_an_effect_is_not_begun(world: SimulatedWorld, cinder: Connection) -> None:
    volume = world.create_cinder_volume()
    with pytest.raises(Refused, match="too late"):
        ask(cinder, "create_attachment", volume, WEB, fence=Fence(0.0, "j-1", 1))
    assert status(cinder, volume) == "available"


# --- hosts -----------------------------------------------------------------------------------------------


def guest(world: SimulatedWorld, *kinds: str, running: bool = True) -> tuple[str, list[str]]:
    ids = [world.create_cinder_volume(kind) for kind in kinds]
    devices = {f"vd{letter}": volume for letter, volume in zip("bcd", ids, strict=False)}
    return world.create_guest("h1", "web", 1, 512, {"vda": 1}, volumes=devices, running=running), ids


def moved(world: SimulatedWorld, cinder: Connection, uuid: str, host: str, *, provide: bool = True) -> str:
    """The machine's volumes, connected to another host, and its definition for that; secrets as well."""
    h1, there = opened(world, "h1"), opened(world, host)
    xml: str = ask(h1, "domain", uuid).inactive_xml
    places = {}
    for device, volume in volumes(xml).items():
        (old,) = ask(cinder, "attachments", uuid, volume)
        new = ask(cinder, "create_attachment", volume, uuid)
        ask(cinder, "delete_attachment", old.id)
        ask(cinder, "update_attachment", new, connector(world, host))
        ask(cinder, "complete_attachment", new)
        found = ask(cinder, "connection", new)
        places[device] = Connected(found, volume, initiator(world, host))
        if provide and found.secret:
            value = Secret(found.password.encode()) if found.password else ask(h1, "secret_value", CEPH_SECRET)
            ask(there, "define_secret", SecretSpec(found.secret.uuid, found.secret.kind, "m-1", value))
    return connected(xml, places)


def without_root(xml: str) -> str:
    """The definition without its file, which the other host has not."""
    start = xml.index("<disk type='file'") if "<disk type='file'" in xml else xml.index('<disk type="file"')
    return xml[:start] + xml[xml.index("</disk>", start) + len("</disk>") :]


def test_an_adopted_looking_machine(world: SimulatedWorld, cinder: Connection) -> None:
    uuid, (rbd, iscsi, nfs) = guest(world, "rbd", "iscsi", "nfs")
    domain = ask(opened(world, "h1"), "domain", uuid)
    assert volumes(domain.live_xml) == {"vdb": rbd, "vdc": iscsi, "vdd": nfs}
    assert domain.state is PowerState.RUNNING
    for volume in (rbd, iscsi, nfs):
        seen = world.cinder_volume(volume)
        assert (seen.status, seen.attachments, seen.open_at) == ("in-use", ((uuid, "attached", "h1"),), ("h1",))
        assert seen.content.endswith(" run:h1")
    (attachment,) = ask(cinder, "attachments", uuid, iscsi)
    assert set(ask(opened(world, "h1"), "secrets")) == {
        SecretFacts(CEPH_SECRET, "ceph"),
        SecretFacts(attachment.id, "iscsi"),
    }


def test_a_machine_moves_with_its_volumes(world: SimulatedWorld, cinder: Connection) -> None:
    uuid, ids = guest(world, "rbd", "iscsi", "nfs")
    h1, h2 = opened(world, "h1"), opened(world, "h2")
    ask(h1, "destroy", uuid)
    ask(h2, "define", without_root(moved(world, cinder, uuid, "h2")))
    ask(h2, "start_paused", uuid)
    assert [world.cinder_volume(volume).open_at for volume in ids] == [("h2",)] * 3
    ask(h2, "resume", uuid)
    assert [world.cinder_volume(volume).content for volume in ids] == [
        f"made:{kind} run:h1 run:h2" for kind in ("rbd", "iscsi", "nfs")
    ]
    assert not [effect for effect in world.effects() if effect.method == "shared"]


@pytest.mark.parametrize("kind", ["rbd", "iscsi"])
def test_without_its_secret_no_machine_starts(world: SimulatedWorld, cinder: Connection, kind: str) -> None:
    uuid, _ids = guest(world, kind, running=False)
    h2 = opened(world, "h2")
    ask(h2, "define", without_root(moved(world, cinder, uuid, "h2", provide=False)))
    with pytest.raises(Refused, match="Secret not found"):
        ask(h2, "start_paused", uuid)
    (secret,) = read(ask(h2, "domain", uuid).inactive_xml).secrets
    ask(h2, "define_secret", SecretSpec(secret, kind, "m-1", Secret(b"wrong")))
    with pytest.raises(Refused, match=r"not permitted|Authentication failure"):
        ask(h2, "start_paused", uuid)


def test_the_old_host_is_cut_off_from_a_target_but_not_from_ceph(world: SimulatedWorld, cinder: Connection) -> None:
    uuid, _ids = guest(world, "iscsi", running=False)
    h1 = opened(world, "h1")
    moved(world, cinder, uuid, "h2")
    with pytest.raises(Refused, match="Target not found"):
        ask(h1, "start_paused", uuid)
    other = world.create_guest("h1", "other", 1, 512, {}, volumes={"vda": world.create_cinder_volume()}, running=False)
    moved(world, cinder, other, "h2")
    ask(h1, "start_paused", other)


def test_todays_password_is_needed_also_by_a_host_that_boots(world: SimulatedWorld, cinder: Connection) -> None:
    uuid, (volume,) = guest(world, "iscsi")
    world.set_domain("h1", uuid, autostart=True)
    moved(world, cinder, uuid, "h2")
    moved_back = moved(world, cinder, uuid, "h1", provide=False)
    world.crash("h1")
    world.set_up("h1", True)
    assert world.running(uuid) == ()
    ask(opened(world, "h1"), "define", moved_back)
    (attachment,) = ask(cinder, "attachments", uuid, volume)
    password = ask(cinder, "connection", attachment.id).password
    ask(opened(world, "h1"), "define_secret", SecretSpec(attachment.id, "iscsi", "m-1", Secret(password.encode())))
    world.crash("h1")
    world.set_up("h1", True)
    assert world.running(uuid) == ("h1",)


def test_a_retired_definition_does_not_start(world: SimulatedWorld) -> None:
    uuid, _ids = guest(world, "nfs", running=False)
    h1 = opened(world, "h1")
    ask(h1, "define", retired(ask(h1, "domain", uuid).inactive_xml, MARK))
    with pytest.raises(Refused, match="RETIRED-m-1-"):
        ask(h1, "start_paused", uuid)


def test_two_machines_that_have_a_volume_open_are_seen(world: SimulatedWorld, cinder: Connection) -> None:
    uuid, (volume,) = guest(world, "rbd")
    h2 = opened(world, "h2")
    ask(h2, "define", without_root(moved(world, cinder, uuid, "h2")))
    ask(h2, "start_paused", uuid)
    assert world.cinder_volume(volume).open_at == ("h1", "h2")
    (shared,) = [effect for effect in world.effects() if effect.method == "shared"]
    assert (shared.host, shared.subject) == ("h2", volume)


def test_who_has_an_image_open_is_told_to_those_who_have_the_key(world: SimulatedWorld, cinder: Connection) -> None:
    uuid, (volume,) = guest(world, "rbd")
    h1 = opened(world, "h1")
    (attachment,) = ask(cinder, "attachments", uuid, volume)
    image = ask(cinder, "connection", attachment.id)
    key = ask(h1, "secret_value", CEPH_SECRET)
    world.set_up("h1", False)
    assert ask(cinder, "watchers", image, key) == ("h1",)
    for wrong in (None, Secret(b"wrong")):
        with pytest.raises(Refused, match="the key of its user is needed"):
            ask(cinder, "watchers", image, wrong)
    world.crash("h1")
    assert ask(cinder, "watchers", image, key) == ()


def test_a_world_without_cinder_opens_any_network_disk(tmp_path: Path) -> None:
    disk = (
        "<disk type='network' device='disk'><source protocol='rbd' name='volumes/volume-1'><host name='c'/></source>"
        "<target dev='vdb' bus='virtio'/></disk>"
    )
    world = SimulatedWorld(tmp_path / "world.db").create()
    world.add_host("h1")
    assert world.running(world.create_guest("h1", "web", 1, 512, {"vda": 1}, devices=disk)) == ("h1",)


def test_a_volume_comes_and_goes_while_the_machine_runs(world: SimulatedWorld) -> None:
    uuid, (volume,) = guest(world, "rbd")
    later = world.create_cinder_volume("iscsi")
    world.attach_volume("h1", uuid, later, "vdx")
    assert world.cinder_volume(later).content == "made:iscsi run:h1"
    world.detach_volume("h1", uuid, volume)
    domain = ask(opened(world, "h1"), "domain", uuid)
    assert volumes(domain.live_xml) == volumes(domain.inactive_xml) == {"vdx": later}
    assert (world.cinder_volume(volume).status, world.cinder_volume(volume).open_at) == ("available", ())


# --- secrets ---------------------------------------------------------------------------------------------


def test_secrets_are_made_told_and_forgotten(world: SimulatedWorld) -> None:
    h1 = opened(world, "h1")
    ask(h1, "define_secret", SecretSpec(NOBODY, "iscsi", "m-1", Secret(b"one")))
    ask(h1, "define_secret", SecretSpec(NOBODY, "iscsi", "m-2", Secret(b"two")))
    assert ask(h1, "secrets") == (SecretFacts(NOBODY, "iscsi", "m-2"),)
    assert ask(h1, "secret_value", NOBODY) == Secret(b"two")
    ask(h1, "undefine_secret", NOBODY)
    assert ask(h1, "secrets") == ()
    for method in ("secret_value", "undefine_secret"):
        with pytest.raises(Missing):
            ask(h1, method, NOBODY)


def test_a_secret_half_made_has_no_value_and_one_of_others_is_not_touched(world: SimulatedWorld) -> None:
    guest(world, "rbd")
    h1 = opened(world, "h1")
    world.fail("h1", "define_secret", fault=Fault.HALF)
    with pytest.raises(Unknown):
        ask(h1, "define_secret", SecretSpec(NOBODY, "iscsi", "m-1", Secret(b"one")))
    h1.open(1)
    assert ask(h1, "secret_value", NOBODY) is None
    with pytest.raises(Refused, match="already defined"):
        ask(h1, "define_secret", SecretSpec(CEPH_SECRET, "ceph", "m-1", Secret(b"one")))


# --- what is told ----------------------------------------------------------------------------------------


def test_two_runs_are_compared_without_what_differs_in_each(world: SimulatedWorld, cinder: Connection) -> None:
    uuid, _ids = guest(world, "iscsi", running=False)
    before = world.snapshot()
    moved(world, cinder, uuid, "h2")
    assert world.snapshot() != before
    ask(opened(world, "h1"), "define", moved(world, cinder, uuid, "h1", provide=False))
    after = world.snapshot()
    assert after["cinder"] == before["cinder"]
    assert after["hosts"]["h1"]["domains"] == before["hosts"]["h1"]["domains"]
    assert before["hosts"]["h1"]["secrets"] == [("iscsi", "an attachment that is attached to h1", "")]
    assert after["hosts"]["h1"]["secrets"] == [("iscsi", GONE, "")]


def test_no_secret_is_in_what_is_told_of_a_world_or_in_a_trace(
    world: SimulatedWorld, cinder: Connection, tmp_path: Path
) -> None:
    uuid, _ids = guest(world, "rbd", "iscsi")
    trace = Trace(tmp_path / "trace")
    watched = trace.connect(world.uri("h2"))
    watched.open(1)
    (attachment,) = (one for one in ask(cinder, "attachments", uuid) if ask(cinder, "connection", one.id).password)
    key, connection = ask(opened(world, "h1"), "secret_value", CEPH_SECRET), ask(cinder, "connection", attachment.id)
    ask(watched, "define_secret", SecretSpec(CEPH_SECRET, "ceph", "m-1", key))
    asked = trace.connect(world.uri("cinder"))
    asked.open(1)
    ask(asked, "watchers", connection, key)
    told = [
        (tmp_path / "trace").read_text(),
        repr(world.snapshot()),
        repr(world.effects()),
        repr(connection),
        repr(key),
    ]
    assert CEPH_SECRET not in told[0]
    for text in told:
        assert KEY not in text
        assert PASSWORD not in text
