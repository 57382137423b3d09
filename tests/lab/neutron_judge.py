"""What must hold of a machine with ports at a real Neutron, once its job has ended."""

from __future__ import annotations

from collections.abc import Iterator

from resizeflow.chaos.judge import broken_invariants
from resizeflow.drivers import definition
from resizeflow.drivers.network import UNBOUND
from resizeflow.service import Submitted
from resizeflow.states import Direction, MigrationStatus
from tests.lab.ended import host_of, unfinished
from tests.lab.neutron_cloud import BRIDGE, PROFILE, NeutronCloud, Row


def wrong(cloud: NeutronCloud, job: Submitted) -> list[str]:
    """All that is wrong, in sentences: with the job, with each port's bindings, with its NIC, with the rest."""
    return [
        *unfinished(cloud, job),
        *(text for port in cloud.ports for text in _bound_wrongly(cloud, job, port)),
        *_unplugged(cloud),
        *broken_invariants(cloud),
    ]


def _bound_wrongly(cloud: NeutronCloud, job: Submitted, port: str) -> Iterator[str]:
    """One binding that is active, on the machine's host; beside it one that waits on the other host while a resize is
    not decided. A revert that was turned back may have removed that, or made it anew."""
    host, profile = host_of(cloud), str(PROFILE)
    rows = {row.host: row for row in cloud.bindings(port)}
    undecided = cloud.migration(job).status is MigrationStatus.FINISHED
    waits = rows.pop({"h1": "h2", "h2": "h1"}[host], None) if undecided else None
    if rows != {host: Row(host, "ACTIVE", "ovs", profile)}:
        yield f"port {port} has {', '.join(sorted(map(str, rows.values())))}: {rows}"
    if not undecided or cloud.job(job).direction is Direction.BACK:
        usual = waits is None or (waits.status, waits.profile) == ("INACTIVE", profile)
    else:
        usual = waits is not None and (waits.status, waits.vif_type, waits.profile) == ("INACTIVE", UNBOUND, profile)
    if not usual:
        yield f"port {port} has {waits} waiting on the other host"


def _unplugged(cloud: NeutronCloud) -> Iterator[str]:
    """The machine's definition has its ports, on the bridge of the host's agent, and the agent has seen them."""
    host = host_of(cloud)
    found = {nic.interface_id: nic.bridge for nic in definition.read(cloud.definition(host)).nics}
    if found != dict.fromkeys(cloud.ports, BRIDGE):
        yield f"the definition on {host} has {found}"
    if not cloud.plugged():
        yield f"the ports are {[cloud.status(port) for port in cloud.ports]}"
