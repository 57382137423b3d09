"""What must hold of a machine with volumes at a real Cinder, once its job has ended."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from resizeflow.chaos.judge import broken_invariants
from resizeflow.service import Submitted
from resizeflow.states import MigrationStatus
from tests.lab.cinder_cloud import CinderCloud, Kept
from tests.lab.ended import host_of, unfinished


def wrong(cloud: CinderCloud, job: Submitted) -> list[str]:
    """All that is wrong, in sentences: with the job, with each volume, with the secrets that open it, with the rest."""
    return [
        *unfinished(cloud, job),
        *(text for volume_id in cloud.volumes for text in _attached_wrongly(cloud, job, volume_id)),
        *_cannot_open(cloud),
        *broken_invariants(cloud),
    ]


def _attached_wrongly(cloud: CinderCloud, job: Submitted, volume_id: str) -> Iterator[str]:
    """One attachment, completed, on the machine's host; beside it one that keeps the way back while there is one."""
    attachments = [(cloud.uuid, "attached", host_of(cloud))]
    if cloud.migration(job).status is MigrationStatus.FINISHED:
        attachments.append((cloud.uuid, "reserved", "nowhere"))
    expected, found = Kept("in-use", tuple(attachments)), cloud.kept(volume_id)
    if found != expected:
        yield f"volume {volume_id} is {found} instead of {expected}"


def _cannot_open(cloud: CinderCloud) -> Iterator[str]:
    """The machine's definition has its volumes, and its host the secrets that it names with the values that Ceph and
    the iSCSI target expect: those of the attachments that are in use."""
    host = host_of(cloud)
    disks = etree.fromstring(cloud.definition(host)).findall("devices/disk[@type='network']")
    found = {disk.findtext("serial"): disk.find("source/auth/secret") for disk in disks}
    if set(found) != set(cloud.volumes):
        yield f"the definition on {host} has the volumes {sorted(map(str, found))}"
    with cloud.by_hand() as world:
        rows = world.execute("SELECT uuid, value FROM secrets WHERE host = ?", (host,))
        secrets = dict(rows)
    used = [(volume_id, connection) for volume_id in cloud.volumes for connection in cloud.openings(volume_id)]
    for volume_id, connection in used:
        secret = found.get(volume_id)
        named = None if secret is None else secret.get("uuid")
        if named != (connection.secret and connection.secret.uuid):
            yield f"volume {volume_id} is opened with secret {named} instead of {connection.secret}"
        elif named is not None and secrets.get(named) != cloud.secret_value(connection):
            yield f"{host} has not the right secret {named} for volume {volume_id}"
