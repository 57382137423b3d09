"""A small cloud whose hosts are simulated and whose Cinder is real: a resize of volumes takes seconds in it."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lab import Volumes
from lab.cinder import PROJECT
from resizeflow.chaos.cloud import VOLUMES
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Connected
from resizeflow.drivers.simulator.guests import with_volume
from resizeflow.drivers.volume import VolumeConnection, read_connection
from resizeflow.persistence.models import Host
from resizeflow.service import Submitted
from resizeflow.volumes import connector_of, initiator_of
from tests.lab.real_cloud import RealCloud
from tests.lab.stage import Stage

USER = "t0ken-9f41c7"
"""Whom Cinder takes us for: a word that is found wherever a token is."""
MACHINE = "db"
"""The machine with volumes; the cloud's other one, `web`, has none and is left alone."""


@dataclass(frozen=True)
class Kept:
    """A volume as Cinder has it: its status, and of each attachment the machine, status and host."""

    status: str
    attachments: tuple[tuple[str, str, str], ...]


class CinderCloud(RealCloud):
    """A `Cloud` with the Cinder of a lab. Its simulated hosts open every disk that they are told of."""

    machine = MACHINE

    def __init__(self, folder: Path, storage: Volumes, **settings: str) -> None:
        self.storage = storage
        self.cinder = storage.cinder
        self.kinds: tuple[str, ...] = ()
        self._made: list[str] = []
        super().__init__(folder, login(self.cinder.endpoint), **settings)

    @property
    def service_database(self) -> Path:
        return self.cinder.database

    def build_machine(self, *kinds: str, running: bool = True, adopted: bool = True) -> CinderCloud:
        """Two hosts, and on h1 the machine, with a new volume of each kind (`rbd`, `iscsi`, `nfs`, `multi`)."""
        self.build()
        self.kinds = kinds
        self.uuid = self.world.create_guest("h1", MACHINE, 1, 512, {"vda": 1}, running=running)
        self.volumes = tuple(self.create_volume(kind) for kind in kinds)
        for volume_id, device in zip(self.volumes, VOLUMES, strict=False):
            self.attach(volume_id, device)
        if adopted:
            self.inventory.adopt("h1", MACHINE)
        return self

    def create_volume(self, kind: str) -> str:
        """A new volume, nobody's yet."""
        self._made.append(self.cinder.create_volume(kind))
        return self._made[-1]

    def clean(self) -> None:
        """Removes all volumes."""
        for volume_id in self._made:
            self.cinder.delete_volume(volume_id)

    # --- what somebody else does -------------------------------------------------------------------------

    def attach(self, volume_id: str, device: str, host: str = "h1") -> None:
        """Attaches a volume to the machine on a host, as it is there."""
        connection = self.connect(volume_id, host)
        if connection.secret is not None:
            row = (host, connection.secret.uuid, connection.secret.kind, None, self.secret_value(connection))
            with self.by_hand() as world:
                world.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?, ?, ?, ?)", row)
        disk = Connected(connection, volume_id, initiator_of(self._host(host)))
        self.edit(host, lambda xml: with_volume(xml, device, disk))

    def connect(self, volume_id: str, host: str) -> VolumeConnection:
        """Attaches a volume to the machine on a host at Cinder alone."""
        client = self.cinder.client()
        made = client.attachments.create(volume_id, None, self.uuid)["id"]
        info = client.attachments.update(made, connector_of(self._host(host))).connection_info
        client.attachments.complete(made)
        return read_connection(made, info)

    def detach(self, volume_id: str, host: str) -> None:
        """Detaches a volume from the machine on a host: the disk goes, then the attachment with which it was used."""
        for device, known in definition.volumes(self.definition(host)).items():
            if known == volume_id:
                self.edit(host, partial(definition.without_disk, device=device))
        (used,) = self._ids(volume_id, "attached")
        self.cinder.client().attachments.delete(used)

    def _host(self, name: str) -> Host:
        with self.database.read() as tx:
            return tx.hosts.get(name)

    def state(self, job: Submitted | None = None) -> dict[str, Any]:
        """As of any cloud; iSCSI secrets are those of attachments, whose ids are others in each run: a judge looks at
        them."""
        state = super().state(job)
        for host in state["world"]["hosts"].values():
            host["secrets"] = [secret for secret in host["secrets"] if secret[0] != "iscsi"]
        return state

    # --- what is there -----------------------------------------------------------------------------------

    def kept(self, volume_id: str) -> Kept:
        """What Cinder has of a volume, by its own database: also what its API does not show."""
        with contextlib.closing(sqlite3.connect(self.cinder.database)) as cinder:
            ((status,),) = cinder.execute("SELECT status FROM volumes WHERE id = ?", (volume_id,)).fetchall()
            rows = cinder.execute(
                "SELECT instance_uuid, attach_status, coalesce(json_extract(connector, '$.host'), 'nowhere')"
                " FROM volume_attachment WHERE volume_id = ? AND NOT deleted ORDER BY attach_status",
                (volume_id,),
            )
            return Kept(status, tuple(rows))

    def openings(self, volume_id: str) -> list[VolumeConnection]:
        """How the attachments that are in use are opened."""
        client = self.cinder.client()
        return [
            read_connection(used, client.attachments.show(used).connection_info)
            for used in self._ids(volume_id, "attached")
        ]

    def secret_value(self, connection: VolumeConnection) -> bytes:
        """What a libvirt secret must have for a connection: the CHAP password, or the key of Ceph's user."""
        if connection.password is not None:
            return connection.password.encode()
        return self._ceph_key

    @cached_property
    def _ceph_key(self) -> bytes:
        return base64.b64decode(self.storage.ceph.key())

    def _ids(self, volume_id: str, status: str) -> list[str]:
        found = self.cinder.client().attachments.list(search_opts={"volume_id": volume_id})
        return [one.id for one in found if one.status == status]


def login(endpoint: str) -> dict[str, str]:
    """Section `[cinder]` of the configuration, for a Cinder without Keystone. The token is made of the user."""
    return {"auth_type": "noauth", "user_id": USER, "project_id": PROJECT, "endpoint": endpoint}


CinderStage = Stage[CinderCloud]
"""Such a cloud, at moments that come again."""
