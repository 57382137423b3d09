"""A fleet of real hosts in the lab, one real guest, and a state database: what the lab tests of the flows share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lab.cinder import PROJECT
from lab.guest import DiskSpec, Guest, VolumeSpec, guest_names
from lab.kept import Kept
from lab.lab import Lab
from resizeflow.chaos.cloud import Cloud, normal
from resizeflow.clock import Clock
from resizeflow.connections import Connections
from resizeflow.drivers import definition
from resizeflow.looks import Looks
from resizeflow.persistence import schema
from resizeflow.persistence.models import Host
from resizeflow.service import Submitted

DISKS = (DiskSpec(1, "qcow2"), DiskSpec(1, "raw"))
SETTINGS = {
    "lease_seconds": "600",
    "act_timeout": "20",
    "look_timeout": "10",
    "fence_window": "4",
    "host_patience": "8",
    "shutdown_timeout": "30",
}


CHAP_SECRET = re.compile(r"(type=.iscsi. uuid=.)[-0-9a-f]{36}")
"""In a definition. It has the attachment's id, which is another after each way to and fro."""


class Fleet(Cloud):
    """A `Cloud` whose world is the lab, in real time."""

    clock = Clock()

    def __init__(self, folder: Path, lab: Lab, **settings: str) -> None:
        super().__init__(folder, cinder_of(lab), **{**SETTINGS, **settings})
        self.lab = lab
        self.guest = Guest(lab, "web")

    def build_on_lab(
        self,
        *,
        running: bool = True,
        autostart: bool = False,
        disks: tuple[DiskSpec, ...] = DISKS,
        volumes: tuple[VolumeSpec, ...] = (),
        vlan: int | None = None,
    ) -> Fleet:
        """All hosts of the lab known; the guest `web` booted on h1, in a VLAN if the lab has any, adopted; a larger
        flavor `big`."""
        self.know_hosts()
        if volumes:
            self._boot(disks, volumes)
        else:
            kept = Kept(self.guest, self.lab.host("h1"), "-".join(f"{disk.size_gb}-{disk.format}" for disk in disks))
            if not kept.exists():
                self._boot(disks)
                kept.keep()
            kept.wake()
        if autostart:
            self.lab.host("h1").virsh("autostart", "web")
        if vlan is not None:
            self.lab.host("h1").place_in_vlan("web", vlan)
        if not running:
            self.guest.shutdown(self.lab.host("h1"))
        self.uuid = self.guest.uuid
        self.inventory.adopt("h1", "web")
        self.inventory.create_flavor("big", vcpus=2, memory_mb=384, root_gb=2, ephemeral_gb=max(len(disks) - 1, 0))
        return self

    def _boot(self, disks: tuple[DiskSpec, ...], volumes: tuple[VolumeSpec, ...] = ()) -> None:
        self.guest.create(self.lab.host("h1"), vcpus=1, memory_mb=256, disks=disks, volumes=volumes)
        self.guest.wait_report(boots=1)

    def know_hosts(self) -> None:
        """An empty state database, and in it all hosts of the lab."""
        schema.require_current(self.database)
        for host in self.lab.hosts:
            self.inventory.add_host(
                host.name,
                host.uri,
                pool=host.pool,
                peer_uri=host.peer_uri,
                data_uri=f"tcp://{host.address}",
                shell=host.shell,
            )

    def clean(self) -> None:
        """Removes all guests and everything in the pools, for the next test; hosts are up and linked again."""
        for host in self.lab.hosts:
            host.restore_link()
            if host.state() != "up":
                host.boot()
        for name in guest_names(self.lab):
            Guest(self.lab, name).delete()
            for host in self.lab.hosts:
                host.serial_log(name).unlink(missing_ok=True)
        for host in self.lab.hosts:
            for path in host.pool_path.iterdir():
                path.unlink()
            for secret in host.virsh("secret-list").splitlines():
                host.virsh("secret-undefine", secret.split()[0])

    def state(self, job: Submitted | None = None) -> dict[str, Any]:
        """Hosts (domains with their definitions, disks) and tables, without what differs from run to run."""
        connections = Connections()
        looks = Looks(connections, self.settings, self.clock)
        with self.database.read() as tx:
            hosts = {host.name: self._host(looks, host) for host in tx.hosts.list()}
        connections.close()
        state: dict[str, Any] = normal({"hosts": hosts, "tables": self.tables()}, job)
        return state

    def _host(self, looks: Looks, host: Host) -> dict[str, Any]:
        hypervisor = looks.host(host)
        domains = {
            domain.uuid: {
                "state": str(domain.state),
                "autostart": domain.autostart,
                "persistent": domain.persistent,
                "xml": CHAP_SECRET.sub(r"\1ATTACHMENT", definition.marked(domain.inactive_xml, None)),
            }
            for domain in hypervisor.domains()
        }
        disks = {v.name: (v.capacity, v.format, v.backing_path) for v in hypervisor.volumes(host.pool)}
        return {"domains": domains, "disks": disks}


def cinder_of(lab: Lab) -> dict[str, str]:
    """How resizeflow is told of the lab's Cinder, if it has one; a worker at the lab's switch, too."""
    if not lab.volumes.exist():
        return {}
    endpoint = lab.volumes.cinder.lab_endpoint
    return {"auth_type": "noauth", "user_id": "admin", "project_id": PROJECT, "endpoint": endpoint}
