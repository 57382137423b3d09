"""A machine and all that is held for it, in an operator's words: what tests of whole operations compare."""

from __future__ import annotations

from dataclasses import dataclass

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.simulator.snapshots import SeenVolume
from resizeflow.persistence.hosts import Amount
from resizeflow.persistence.models import Instance
from resizeflow.service import Submitted
from resizeflow.states import VmState

STATUS = {VmState.RESIZED: "VERIFY_RESIZE", VmState.ACTIVE: "ACTIVE", VmState.STOPPED: "SHUTOFF"}
"""What Nova's API calls a machine that is idle in a state."""


@dataclass(frozen=True)
class Seen:
    """The columns of Nova's measured crash points. Sizes are vCPUs/MiB/GiB; I is the instance's allocation, M the
    migration's. Of a volume: Cinder's word for it, where it is connected, and how many blank attachments keep it."""

    state: str
    migration: str
    allocations: str
    port: str
    guest: str
    quota: str
    volume: str = "none"

    @property
    def cells(self) -> tuple[str, ...]:
        return self.state, self.migration, self.allocations, self.port, self.volume, self.guest, self.quota


def look(cloud: Cloud, job: Submitted) -> Seen:
    """The machine of the cloud, and the migration of a job."""
    with cloud.database.read() as tx:
        instance = tx.instances.get(cloud.uuid)
        hosts = {host.id: host.name for host in tx.hosts.list()}
        status = "" if instance.task_state else f"{STATUS[instance.vm_state]}; "
        state = f"{status}{instance.vm_state}/{instance.task_state or '-'}; {instance.host.name}, {_of(instance)}"
        migration = str(tx.migrations.get(job.migration_id).status)
        held = sorted(
            f"{row.consumer[0].upper()}={hosts[row.host_id]} {row.vcpus}/{row.memory_mb}/{row.disk_gb}"
            for row in tx.hosts.allocations()
        )
        bindings = sorted(
            (not binding.active, hosts[binding.host_id]) for port in instance.ports for binding in port.bindings
        )
    port = ", ".join(f"{name} kept" if inactive else name for inactive, name in bindings)
    volume = "; ".join(_volume(cloud.world.cinder_volume(volume_id)) for volume_id in cloud.volumes) or "none"
    return Seen(state, migration, ", ".join(held), port, _guest(cloud), quota(cloud), volume)


def _volume(seen: SeenVolume) -> str:
    hosts = [host for _machine, status, host in seen.attachments if status != "reserved"]
    blank = len(seen.attachments) - len(hosts)
    return f"{seen.status} at {' and '.join(hosts) or 'no host'}{f', {blank} reserved' if blank else ''}"


def _of(instance: Instance) -> str:
    amount = Amount.of(instance.flavor, volume_backed=instance.volume_backed)
    return f"{amount.vcpus}/{amount.memory_mb}/{amount.disk_gb}"


def _guest(cloud: Cloud) -> str:
    """Where it runs, and on which hosts disks are."""
    running = " and ".join(cloud.world.running(cloud.uuid)) or "nowhere"
    storages = cloud.world.snapshot()["storages"]
    return f"runs: {running}; disks: {', '.join(sorted(host for host, volumes in storages.items() if volumes))}"


def quota(cloud: Cloud) -> str:
    """What the project uses, and what open resizes may need more."""
    usage = {row.resource: row for row in cloud.inventory.quotas("default")}
    used = "/".join(str(usage[name].in_use) for name in ("cores", "ram", "gigabytes"))
    reserved = "/".join(str(usage[name].reserved) for name in ("cores", "ram", "gigabytes"))
    return used if reserved == "0/0/0" else f"{used} and {reserved} reserved"


def usage(cloud: Cloud) -> dict[str, str]:
    """What is counted as used of each host (Nova: a hypervisor's usage)."""
    with cloud.database.read() as tx:
        return {host.name: f"{host.used_vcpus}/{host.used_memory_mb}/{host.used_disk_gb}" for host in tx.hosts.list()}
