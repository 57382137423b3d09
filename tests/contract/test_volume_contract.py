"""What every volume driver does, tried on the simulated Cinder and on a real one with Ceph, iSCSI and NFS behind it."""

from __future__ import annotations

import time

import pytest

from resizeflow.drivers.interface import Fence, Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.volume import Attachment, SecretUse, VolumeConnection
from tests.contract.contract_sites import until
from tests.contract.volume_sites import VolumeSite, another_key, connector, new_id


def fence(seconds: float) -> Fence:
    return Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, "j-contract", 1)


# --- looks -----------------------------------------------------------------------------------------------


def test_cinder_describes_itself(cinder: VolumeSite) -> None:
    facts = cinder.ask("service")
    assert (facts.oldest, facts.newest) == ("3.0", "3.71")


def test_what_is_not_there(cinder: VolumeSite) -> None:
    nothing, machine = new_id(), new_id()
    assert cinder.ask("cinder_volume", nothing) is None
    assert cinder.ask("attachment", nothing) is None
    assert cinder.ask("attachments", machine) == ()
    assert cinder.ask("attachments", machine, nothing) == ()
    for method, args in (
        ("connection", (nothing,)),
        ("create_attachment", (nothing, machine)),
        ("update_attachment", (nothing, connector("here"))),
        ("complete_attachment", (nothing,)),
        ("delete_attachment", (nothing,)),
        ("reset_volume", (nothing, "available", "detached")),
    ):
        with pytest.raises(Missing):
            cinder.ask(method, *args)


def test_a_closed_connection_is_not_opened_by_a_call(cinder: VolumeSite) -> None:
    cinder.connection.close()
    with pytest.raises(Unreachable):
        cinder.ask("service")
    cinder.connection.open(20)
    cinder.connection.open(20)
    assert cinder.ask("service").newest


def test_nothing_is_watched(cinder: VolumeSite) -> None:
    with pytest.raises(ValueError, match="not watched"):
        cinder.connection.watch("create_attachment", (new_id(), new_id()))


def test_each_kind_says_how_it_is_opened(cinder: VolumeSite) -> None:
    found: dict[str, VolumeConnection] = {}
    for kind in ("rbd", "iscsi", "nfs"):
        volume = cinder.make(kind)
        made = cinder.attached(volume, new_id())
        found[kind] = cinder.ask("connection", made)
        assert found[kind].kind == kind
        assert volume in found[kind].name
        assert found[kind].format == "raw"
        if kind == "iscsi":
            assert found[kind].secret == SecretUse(made, "iscsi")
    ceph, iscsi, nfs = found.values()
    assert ceph.name.startswith("volumes/volume-")
    assert (ceph.user, ceph.password) == ("cinder", None)
    assert ceph.secret is not None
    assert (ceph.secret.kind, nfs.secret) == ("ceph", None)
    assert all(port for _host, port in (*ceph.hosts, *iscsi.hosts))
    assert iscsi.name.endswith("/1")
    assert iscsi.user
    assert iscsi.password
    assert iscsi.password not in repr(iscsi)
    assert nfs.name.startswith("/")
    assert nfs.hosts[0][1] is None


def test_who_has_an_image_open_is_known(cinder: VolumeSite) -> None:
    volume = cinder.make("rbd")
    with cinder.held_open(volume):
        opening = cinder.opening(volume)
        (watcher,) = cinder.ask("watchers", opening, cinder.key)
        assert watcher
        for key in (None, Secret(b"no key at all"), another_key()):
            with pytest.raises(Refused, match="key"):
                cinder.ask("watchers", opening, key, timeout=2)


def test_nobody_has_an_image_open_that_is_only_attached(cinder: VolumeSite) -> None:
    with cinder.held_open(cinder.make("rbd")):
        key = cinder.key
    volume = cinder.make("rbd")
    cinder.attached(volume, new_id())
    assert cinder.ask("watchers", cinder.opening(volume), key) == ()


# --- acts ------------------------------------------------------------------------------------------------


def test_a_volume_is_attached_and_detached(cinder: VolumeSite) -> None:
    volume, machine = cinder.make("rbd"), new_id()
    facts = cinder.ask("cinder_volume", volume)
    assert (facts.id, facts.status, facts.size_gb) == (volume, "available", 1)
    assert (facts.multiattach, facts.encrypted) == (False, False)
    made = cinder.ask("create_attachment", volume, machine)
    assert cinder.shown(made) == Attachment(made, volume, machine, "reserved")
    assert cinder.status(volume) == "reserved"
    with pytest.raises(Refused):
        cinder.ask("connection", made)
    cinder.ask("update_attachment", made, connector("here"))
    assert cinder.shown(made) == Attachment(made, volume, machine, "attaching")
    assert cinder.status(volume) == "attaching"
    cinder.ask("complete_attachment", made)
    assert cinder.shown(made) == Attachment(made, volume, machine, "attached")
    assert cinder.status(volume) == "in-use"
    cinder.ask("delete_attachment", made)
    assert cinder.ask("attachment", made) is None
    assert cinder.status(volume) == "available"
    with pytest.raises(Missing):
        cinder.ask("delete_attachment", made)


def test_a_machine_reserves_its_volume_again_and_again(cinder: VolumeSite) -> None:
    """Cinder knows no key against repetition: whoever got no answer looks for what was made."""
    volume, machine = cinder.make("rbd"), new_id()
    source = cinder.attached(volume, machine)
    blank = [cinder.ask("create_attachment", volume, machine) for _ in range(2)]
    found = cinder.ask("attachments", machine, volume)
    assert [each.id for each in found] == sorted([source, *blank])
    assert [each.id for each in found if each.blank] == sorted(blank)
    assert cinder.status(volume) == "in-use"
    assert cinder.ask("attachments", machine) == found
    assert cinder.ask("attachments", None, volume) == found
    assert set(found) <= set(cinder.ask("attachments", None))
    for made in blank:
        cinder.ask("delete_attachment", made)
    assert [each.id for each in cinder.ask("attachments", machine, volume)] == [source]
    assert cinder.status(volume) == "in-use"


def test_another_machine_gets_nothing_of_it(cinder: VolumeSite) -> None:
    volume, machine, other = cinder.make("rbd"), new_id(), new_id()
    made = cinder.ask("create_attachment", volume, machine)
    with pytest.raises(Refused, match="status must be available"):
        cinder.ask("create_attachment", volume, other)
    cinder.ask("update_attachment", made, connector("here"))
    for anybody in (machine, other):
        with pytest.raises(Refused, match="status is attaching"):
            cinder.ask("create_attachment", volume, anybody)
    cinder.ask("complete_attachment", made)
    with pytest.raises(Refused, match="status must be available"):
        cinder.ask("create_attachment", volume, other)
    assert cinder.ask("attachments", other) == ()


def test_one_for_several_machines_is_attached_to_both(cinder: VolumeSite) -> None:
    volume = cinder.make("multi")
    assert cinder.ask("cinder_volume", volume).multiattach
    here, there = cinder.attached(volume, new_id(), "here"), cinder.attached(volume, new_id(), "there")
    assert {each.id for each in cinder.ask("attachments", None, volume) if each.attached} == {here, there}


def test_it_is_connected_to_one_host_at_a_time(cinder: VolumeSite) -> None:
    volume, machine = cinder.make("rbd"), new_id()
    source = cinder.attached(volume, machine, "here")
    destination = cinder.ask("create_attachment", volume, machine)
    with pytest.raises(Refused, match="duplicate connectors"):
        cinder.ask("update_attachment", destination, connector("there"))
    assert cinder.shown(destination).blank
    cinder.ask("delete_attachment", source)
    assert cinder.status(volume) == "reserved"
    cinder.ask("update_attachment", destination, connector("there"))
    assert cinder.shown(destination).connected


def test_connecting_and_completing_may_be_repeated(cinder: VolumeSite) -> None:
    volume = cinder.make("iscsi")
    made = cinder.ask("create_attachment", volume, new_id())
    for _ in range(2):
        cinder.ask("update_attachment", made, connector("here"))
    before = cinder.ask("connection", made)
    for _ in range(2):
        cinder.ask("complete_attachment", made)
    assert cinder.shown(made).attached
    assert cinder.ask("connection", made) == before


def test_cinder_does_not_look_at_what_it_completes(cinder: VolumeSite) -> None:
    volume = cinder.make("rbd")
    made = cinder.ask("create_attachment", volume, new_id())
    cinder.ask("complete_attachment", made)
    assert cinder.status(volume) == "in-use"
    assert cinder.shown(made).attached
    assert cinder.shown(made).half


def test_a_volume_that_nobody_has_reserved_is_freed(cinder: VolumeSite) -> None:
    volume, machine = cinder.make("rbd"), new_id()
    cinder.reserve_for_nobody(volume)
    assert cinder.status(volume) == "reserved"
    assert cinder.ask("attachments", None, volume) == ()
    with pytest.raises(Refused, match="status must be available"):
        cinder.ask("create_attachment", volume, machine)
    cinder.ask("reset_volume", volume, "available", "detached")
    assert cinder.status(volume) == "available"
    cinder.attached(volume, machine)


def test_a_volume_in_error_is_not_attached(cinder: VolumeSite) -> None:
    volume, machine = cinder.make("rbd"), new_id()
    made = cinder.ask("create_attachment", volume, machine)
    cinder.ask("reset_volume", volume, "error", "attached")
    with pytest.raises(Refused, match="error state"):
        cinder.ask("create_attachment", volume, machine)
    with pytest.raises(Refused, match="error state"):
        cinder.ask("update_attachment", made, connector("here"))


# --- deadlines, fences, a Cinder that is away ------------------------------------------------------------


def test_nothing_is_begun_after_the_fence(cinder: VolumeSite) -> None:
    volume, machine = cinder.make("rbd"), new_id()
    with pytest.raises(Refused, match="too late"):
        cinder.ask("create_attachment", volume, machine, fence=fence(-0.1))
    assert cinder.ask("attachments", machine) == ()
    made = cinder.ask("create_attachment", volume, machine, fence=fence(20))
    with pytest.raises(Refused, match="too late"):
        cinder.ask("delete_attachment", made, fence=fence(-0.1))
    assert cinder.shown(made).blank


def test_a_hung_cinder_may_do_it_later(cinder: VolumeSite) -> None:
    """Who got no answer knows nothing, until Cinder has woken up."""
    volume, machine = cinder.make("rbd"), new_id()
    cinder.daemon.hang()
    try:
        began = time.monotonic()
        with pytest.raises(Unknown):
            cinder.ask("create_attachment", volume, machine, timeout=1)
        assert time.monotonic() - began < 20
        with pytest.raises(Unreachable):
            cinder.connection.open(0.5)
            cinder.ask("cinder_volume", volume, timeout=0.5)
    finally:
        cinder.daemon.wake()
    cinder.connection.open(20)
    until(lambda: cinder.ask("attachments", machine))
    (made,) = cinder.ask("attachments", machine)
    assert made.blank


def test_a_cinder_that_is_away_is_sent_nothing(cinder: VolumeSite) -> None:
    volume, machine = cinder.make("rbd"), new_id()
    cinder.daemon.kill()
    try:
        # The request goes down a kept-alive connection that breaks: whether it was read, nobody here can know.
        with pytest.raises((Unreachable, Unknown)):
            cinder.ask("create_attachment", volume, machine)
        with pytest.raises(Unreachable):
            cinder.ask("create_attachment", volume, machine)
        with pytest.raises(Unreachable):
            cinder.connection.open(5)
        with pytest.raises(Unreachable):
            cinder.ask("cinder_volume", volume)
    finally:
        cinder.daemon.start()
    cinder.connection.open(20)
    assert cinder.ask("attachments", machine) == ()
    assert cinder.status(volume) == "available"
