"""Where a machine's volumes are: asked of Cinder, of Ceph, of the hosts' definitions, of the guest, of the records."""

from __future__ import annotations

from typing import Any

from lab.attachment import Attached, initiator
from lab.system import wait_until
from resizeflow.drivers import definition
from tests.fleet import Fleet


def are_at(fleet: Fleet, host: str, *, ways_back: int = 0, running: bool = True) -> None:
    """Each volume is in use at `host` and nowhere else, under its old device name and serial; Cinder has one attachment
    in use for it, and as many blank ones as there are ways back."""
    before, rows = devices(fleet), _records(fleet)
    for device, volume in before.items():
        found = _attachments(fleet, volume)
        assert sorted(one.status for one in found) == ["attached", *["reserved"] * ways_back], found
        (used,) = (one.id for one in found if one.status == "attached")
        assert [one.id for one in _attachments(fleet, volume, attached_host=host)] == [used]
        assert fleet.lab.volumes.cinder.client().volumes.get(volume).status == "in-use"
        assert rows[volume] == (device, used)
    assert _defined(fleet, host, "--inactive") == before
    if running:
        assert _defined(fleet, host) == before
    assert fleet.guest.states().get(host) == ("running" if running else "shut off")
    are_open_at(fleet, host if running else None)


def are_open_at(fleet: Fleet, host: str | None) -> None:
    """Who has each RBD image open is one QEMU, on `host`; or nobody."""
    for volume, addresses in opened_from(fleet).items():
        assert addresses == ([fleet.lab.host(host).address] if host else []), volume


def opened_from(fleet: Fleet) -> dict[str, list[str]]:
    """Where each of the machine's RBD images is open."""
    images = [volume for volume in fleet.guest.facts.volumes if _kind(fleet, volume) in ("rbd", "multi")]
    watchers = fleet.lab.volumes.ceph.watchers
    return {volume: sorted(address.partition(":")[0] for address in watchers(volume)) for volume in images}


def devices(fleet: Fleet) -> dict[str, str]:
    """The guest's volumes by the device names under which it was made: behind its disks, in their order."""
    volumes = fleet.guest.facts.volumes
    shown = fleet.guest.reports()[0]["disks"]
    return dict(zip(sorted(shown)[len(shown) - len(volumes) :], volumes, strict=True))


def opening(fleet: Fleet, host: str, kind: str) -> Attached:
    """How `host` opens the machine's volume of a kind now: its connection, with the password, and its initiator."""
    volume = next(volume for volume in fleet.guest.facts.volumes if _kind(fleet, volume) == kind)
    (used,) = (one for one in _attachments(fleet, volume) if one.status == "attached")
    connection = fleet.lab.volumes.cinder.client().attachments.show(used.id).connection_info
    return Attached(volume, connection, initiator(fleet.lab.host(host)))


def writes_on(fleet: Fleet) -> None:
    """Waits until the guest has acknowledged another record on each of its volumes."""
    before = fleet.guest.sessions()[-1].volumes

    def more() -> bool:
        return all(number > before[serial] for serial, number in fleet.guest.sessions()[-1].volumes.items())

    assert wait_until(more, timeout=60, interval=0.2), f"no more records on a volume than {before}"


def nothing_lost(fleet: Fleet) -> None:
    """Each boot finds on each volume all that was acknowledged before, wherever that was."""
    last: dict[str, int] = {}
    for session in fleet.guest.sessions():
        for volume in session.report["volumes"].values():
            assert volume["records_ok"], session
            assert volume["last_record"] >= last.get(volume["serial"], 0), session
        last |= session.volumes
    assert all(last.values()), "there was nothing to lose"


def _attachments(fleet: Fleet, volume: str, **more: str) -> list[Any]:
    client = fleet.lab.volumes.cinder.client()
    found: list[Any] = client.attachments.list(detailed=True, search_opts={"volume_id": volume, **more})
    return found


def _kind(fleet: Fleet, volume: str) -> str:
    return str(fleet.lab.volumes.cinder.client().volumes.get(volume).volume_type)


def _defined(fleet: Fleet, host: str, *options: str) -> dict[str, str]:
    return definition.volumes(fleet.lab.host(host).virsh("dumpxml", fleet.guest.name, *options))


def _records(fleet: Fleet) -> dict[str, tuple[str, str | None]]:
    with fleet.database.read() as tx:
        return {row.volume_id: (row.device, row.attachment_id) for row in tx.instances.get(fleet.guest.name).volumes}
