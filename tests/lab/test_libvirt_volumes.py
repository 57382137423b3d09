"""The libvirt driver and disks on real storage: Ceph, an iSCSI target, NFS, connected by Cinder."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from lab import Lab
from lab.attachment import connector, initiator
from resizeflow.drivers.definition import Connected, Mark, connected, difference, read, restored, retired
from resizeflow.drivers.hypervisor import PowerState, SecretSpec
from resizeflow.drivers.interface import Exists, Refused, Unknown
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.volume import VolumeConnection, read_connection
from tests.lab.driven import Driven, definition

pytestmark = pytest.mark.lab

MIGRATION = "0e6c1b5e-77aa-4b1e-93a5-2d7d4f2f9c01"
NETWORK_DISK = (
    "<disk type='network' device='disk'><driver name='qemu' cache='none' io='native'/><source protocol='nbd'>"
    "<host name='nowhere'/></source><target dev='vda' bus='virtio'/><boot order='1'/></disk>"
)


@pytest.fixture(scope="module")
def lab(volumes_lab: Lab) -> Lab:
    """A host, and storage."""
    return volumes_lab


@pytest.fixture
def one(lab: Lab) -> Iterator[Driven]:
    """The host, with nothing on it."""
    driven = Driven(lab.host("h1"))
    driven("facts", timeout=60)
    empty(driven)  # Other modules use it, too.
    yield driven
    empty(driven)


def empty(one: Driven) -> None:
    one.clean()
    for secret in one("secrets"):
        one("undefine_secret", secret.uuid)


@pytest.fixture
def machine(one: Driven, lab: Lab) -> Iterator[Callable[[str], str]]:
    """Defines a machine whose only disk is a new volume of a kind, connected to the host by Cinder; its UUID."""
    volumes: list[str] = []

    def define(kind: str) -> str:
        volume, identity = lab.volumes.cinder.create_volume(kind, 1), str(uuid.uuid4())
        volumes.append(volume)
        client = lab.volumes.cinder.client()
        attachment = client.attachments.create(volume, None, identity)["id"]
        info = client.attachments.update(attachment, connector(one.host)).connection_info
        connection = read_connection(attachment, info)
        give_secret(one, lab, connection)
        xml = definition(identity, extra=NETWORK_DISK)
        one("define", connected(xml, {"vda": Connected(connection, volume, initiator(one.host))}))
        return identity

    yield define
    for facts in one("domains"):
        one("destroy", facts.uuid)
    for volume in volumes:
        lab.volumes.cinder.delete_volume(volume)


def give_secret(one: Driven, lab: Lab, connection: VolumeConnection) -> None:
    if connection.secret is None:
        return
    value = base64.b64decode(lab.volumes.ceph.key())
    if connection.password is not None:
        value = connection.password.encode()
    one("define_secret", SecretSpec(connection.secret.uuid, connection.secret.kind, MIGRATION, Secret(value)))


def inactive(one: Driven, identity: str) -> str:
    facts = one.domain(identity)
    assert facts is not None
    return facts.inactive_xml


@pytest.mark.parametrize("kind", ["rbd", "iscsi", "nfs"])
def test_a_connected_volume_starts_and_a_retired_one_says_why_it_does_not(
    one: Driven, machine: Callable[[str], str], kind: str
) -> None:
    identity = machine(kind)
    one("start_paused", identity)
    assert one.state(identity) is PowerState.PAUSED
    one("destroy", identity)
    before = inactive(one, identity)
    assert read(before).disks[0].protocol == kind
    one("define", retired(before, Mark(MIGRATION, 1, "retired")))
    began = time.monotonic()
    with pytest.raises(Refused, match=f"RETIRED-{MIGRATION}-"):
        one("start_paused", identity)
    assert time.monotonic() - began < 20
    one("define", restored(inactive(one, identity)))
    assert difference(before, inactive(one, identity)) is None
    one("start_paused", identity)
    assert one.state(identity) is PowerState.PAUSED


def test_a_machine_without_the_secret_of_its_volume_is_refused(one: Driven, machine: Callable[[str], str]) -> None:
    identity = machine("rbd")
    (secret,) = one("secrets")
    one("undefine_secret", secret.uuid)
    with pytest.raises(Refused, match=secret.uuid):
        one("start_paused", identity)


def test_a_start_that_hangs_at_its_storage_holds_up_nobody_and_can_be_ended(
    one: Driven, lab: Lab, machine: Callable[[str], str]
) -> None:
    hanging, other = machine("rbd"), str(uuid.uuid4())
    one("define", definition(other))
    lab.volumes.ceph.freeze()
    try:
        with pytest.raises(Unknown):
            one("start_paused", hanging, timeout=3)
        began = time.monotonic()
        assert one.state(hanging) is PowerState.OTHER
        assert {facts.uuid: facts.state for facts in one("domains")} == {
            hanging: PowerState.OTHER,
            other: PowerState.SHUTOFF,
        }
        with pytest.raises(Exists):
            one("start_paused", hanging)
        with pytest.raises(Refused, match="still being started"):
            one("resume", hanging)
        one("start_paused", other)
        one("destroy", hanging)
        assert one.state(hanging) is PowerState.SHUTOFF
        assert time.monotonic() - began < 25, "a look or an act has 30"
    finally:
        lab.volumes.ceph.thaw()
