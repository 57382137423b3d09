"""What only a real Cinder and a real Ceph can do to the driver; the rest is in the contract."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from resizeflow.drivers.interface import Missing, Refused, Unknown
from resizeflow.drivers.volume import VolumeConnection
from tests.contract.contract_sites import until
from tests.contract.volume_sites import RealSite, connector, new_id

pytestmark = pytest.mark.lab


@pytest.fixture
def cinder(real_cinder: RealSite) -> RealSite:
    """A Cinder, and an open connection to it."""
    real_cinder.connection.open(20)
    return real_cinder


def test_a_cinder_that_dies_with_a_request_leaves_it_unknown(cinder: RealSite) -> None:
    volume, machine = cinder.make("nfs"), new_id()
    cinder.daemon.hang()
    with ThreadPoolExecutor() as pool:
        began = time.monotonic()
        asked = pool.submit(cinder.ask, "create_attachment", volume, machine)
        time.sleep(2)  # It has been sent by then.
        cinder.daemon.kill()
        try:
            with pytest.raises(Unknown, match="no answer to create_attachment"):
                asked.result()
            assert time.monotonic() - began < 30
        finally:
            cinder.daemon.start()
    cinder.connection.open(20)
    assert cinder.ask("attachments", machine) == ()


def test_a_cinder_that_was_started_again_is_the_same(cinder: RealSite) -> None:
    volume, machine = cinder.make("nfs"), new_id()
    made = cinder.ask("create_attachment", volume, machine)
    cinder.daemon.kill()
    cinder.daemon.start()
    assert [each.id for each in cinder.ask("attachments", machine)] == [made]


def test_a_back_end_that_fails_leaves_it_unknown(cinder: RealSite) -> None:
    """Cinder says 500, and keeps the attachment; connecting it again, when the target's daemon is back, succeeds."""
    volume = cinder.make("iscsi")
    made = cinder.ask("create_attachment", volume, new_id())
    cinder.volumes.targets.kill()
    try:
        with pytest.raises(Unknown, match="answered update_attachment with 500"):
            cinder.ask("update_attachment", made, connector("here"))
    finally:
        cinder.volumes.targets.start()
    assert not cinder.shown(made).connected
    cinder.ask("update_attachment", made, connector("here"))
    assert cinder.shown(made).connected
    assert cinder.ask("connection", made).kind == "iscsi"


def test_a_connector_that_lacks_something_is_refused(cinder: RealSite) -> None:
    made = cinder.ask("create_attachment", cinder.make("iscsi"), new_id())
    with pytest.raises(Refused, match=r"[Cc]onnector"):
        cinder.ask("update_attachment", made, {})


def test_a_ceph_that_hangs_is_not_waited_for(cinder: RealSite) -> None:
    volume = cinder.make("rbd")
    cinder.attached(volume, new_id())
    opening, key = cinder.opening(volume), cinder.key
    cinder.volumes.ceph.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(Unknown, match="Ceph did not say"):
            cinder.ask("watchers", opening, key, timeout=3)
        assert time.monotonic() - began < 20
        assert cinder.status(volume) == "in-use"
    finally:
        cinder.volumes.ceph.thaw()
    until(lambda: _watched(cinder, opening) == (), 60)


def _watched(cinder: RealSite, opening: VolumeConnection) -> Any:
    try:
        return cinder.ask("watchers", opening, cinder.key, timeout=20)
    except Unknown:
        return None


def test_workers_ask_ceph_side_by_side(cinder: RealSite) -> None:
    volume = cinder.make("rbd")
    with cinder.held_open(volume), ThreadPoolExecutor() as pool:
        opening, key = cinder.opening(volume), cinder.key
        asked = [pool.submit(cinder.ask, "watchers", opening, key) for _ in range(4)]
        seen = {each.result() for each in asked}
        assert len(seen) == 1
        assert seen.pop() == tuple(cinder.volumes.ceph.watchers(volume))


def test_an_image_that_is_gone_has_nobody(cinder: RealSite) -> None:
    volume = cinder.make("rbd")
    made = cinder.attached(volume, new_id())
    opening, key = cinder.ask("connection", made), cinder.key
    cinder.ask("delete_attachment", made)
    cinder.volumes.cinder.delete_volume(volume)
    assert cinder.ask("cinder_volume", volume) is None
    with pytest.raises(Missing, match="No such file"):
        cinder.ask("watchers", opening, key)
