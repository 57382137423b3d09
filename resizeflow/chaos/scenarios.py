"""What is done to a machine while workers die: each operation, to the same and another host, running and stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resizeflow.chaos.cloud import Cloud
from resizeflow.service import Submitted
from resizeflow.states import JobState

DISKS = ("vda", "vdb")
VLAN = 10


@dataclass(frozen=True)
class Scenario:
    """An operation on the machine `web` on host h1. `resize` and `migrate` go to `host`; `confirm`, `remove` and
    `revert` decide a resize that went there."""

    operation: str
    host: str = "h2"
    running: bool = True
    transfer: str = "auto"
    disks: tuple[str, ...] = DISKS
    swap_mb: tuple[int, int] = (0, 0)
    """The machine's swap, and that of the flavor it is resized to."""
    config_drive: bool = False
    volumes: tuple[str, ...] = ()
    """Cinder volumes, by the kinds of their connections."""
    boot_volume: bool = False
    """Whether it boots from the first of them."""
    ports: int = 0
    """How many ports of Neutron's it has."""
    bridged: bool = True
    """Whether it has a NIC that Neutron knows nothing of."""
    changed: bool = False
    """Whether a port was added and one removed while the resize waited for its decision."""
    vlan: int | None = None
    """The VLAN that the NIC is in that Neutron knows nothing of; None: the bridges do not filter VLANs."""

    def cloud(self, folder: Path) -> Cloud:
        """The scenario's cloud in a folder, not yet built."""
        return Cloud(folder, None, {} if self.ports else None, transfer=self.transfer)

    def build(self, cloud: Cloud) -> None:
        """Brings hosts and machine to the moment before the operation is asked for. The machine starts with its host,
        so that one that reboots would run it, if it could."""
        cloud.build(
            running=self.running,
            disks=self.disks,
            swap_mb=self.swap_mb,
            config_drive=self.config_drive,
            volumes=self.volumes,
            boot_volume=self.boot_volume,
            ports=self.ports,
            bridged=self.bridged,
            vlan=self.vlan,
        )
        cloud.world.set_domain("h1", cloud.uuid, autostart=self.running)
        if self.operation in ("confirm", "remove", "revert"):
            job = cloud.service.resize("web", "big", host=self.host)
            if cloud.run(job) is not JobState.DONE:
                raise RuntimeError(f"the resize to be decided did not finish:\n{cloud.story(job)}")
            if self.changed:
                cloud.change_ports(self.host)

    def submit(self, cloud: Cloud) -> Submitted:
        """Asks for the operation."""
        if self.operation == "resize":
            return cloud.service.resize("web", "big", host=self.host)
        if self.operation == "migrate":
            return cloud.service.migrate("web", host=self.host)
        if self.operation == "remove":
            job = cloud.service.remove("web")
            if job is None:
                raise RuntimeError("the machine was forgotten although its resize was to be confirmed first")
            return job
        return cloud.service.confirm("web") if self.operation == "confirm" else cloud.service.revert("web")


SMALL = "small"
"""The one of which all pairs of kills can be tried."""

SCENARIOS: Mapping[str, Scenario] = {
    "resize": Scenario("resize", volumes=("rbd", "iscsi"), ports=1),
    "resize-stopped": Scenario("resize", running=False, swap_mb=(64, 128), config_drive=True),
    "resize-stream": Scenario("resize", transfer="stream", vlan=VLAN),
    "resize-same-host": Scenario("resize", host="h1", volumes=("iscsi",), ports=1),
    "resize-same-host-stopped": Scenario("resize", host="h1", running=False, swap_mb=(0, 64)),
    "migrate": Scenario("migrate", disks=(), volumes=("rbd",), boot_volume=True, ports=2, bridged=False),
    "migrate-stopped": Scenario("migrate", running=False, ports=1),
    "confirm": Scenario("confirm", volumes=("rbd", "iscsi"), ports=2, changed=True, vlan=VLAN),
    "confirm-stopped": Scenario("confirm", running=False),
    "confirm-same-host": Scenario("confirm", host="h1", ports=1),
    "confirm-same-host-stopped": Scenario("confirm", host="h1", running=False, swap_mb=(64, 128), config_drive=True),
    "remove": Scenario("remove", volumes=("nfs",), ports=1),
    "revert": Scenario("revert", volumes=("rbd", "iscsi"), ports=2, changed=True),
    "revert-stopped": Scenario(
        "revert",
        running=False,
        disks=("vdb",),
        swap_mb=(64, 0),
        config_drive=True,
        volumes=("iscsi",),
        boot_volume=True,
        ports=1,
        bridged=False,
    ),
    "revert-in-vlan": Scenario("revert", disks=("vda",), vlan=VLAN),
    "revert-same-host": Scenario("revert", host="h1", volumes=("nfs",), ports=2, changed=True),
    "revert-same-host-stopped": Scenario("revert", host="h1", running=False),
    SMALL: Scenario("resize", running=False, disks=("vda",)),
}
