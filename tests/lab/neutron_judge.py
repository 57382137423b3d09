"""What must hold of a machine with ports at a real Neutron, once its job has ended."""

from __future__ import annotations

from collections.abc import Iterator

from resizeflow.chaos.judge import broken_invariants
from resizeflow.drivers import definition
from resizeflow.drivers.network import UNBOUND
from resizeflow.service import Submitted
from resizeflow.states import MigrationStatus
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


def expected(cloud: NeutronCloud, job: Submitted) -> tuple[Row, ...]:
    """The bindings of each port: one that is active, on the machine's host; beside it the one that waits on the other
    host while a resize is not decided."""
    host, profile = host_of(cloud), str(PROFILE)
    rows = [Row(host, "ACTIVE", "ovs", profile)]
    if cloud.migration(job).status is MigrationStatus.FINISHED:
        rows.append(Row({"h1": "h2", "h2": "h1"}[host], "INACTIVE", UNBOUND, profile))
    return tuple(sorted(rows, key=lambda row: row.host))


def _bound_wrongly(cloud: NeutronCloud, job: Submitted, port: str) -> Iterator[str]:
    found, due = cloud.bindings(port), expected(cloud, job)
    if found != due:
        yield f"port {port} has {', '.join(map(str, found))} instead of {', '.join(map(str, due))}: {found}"


def _unplugged(cloud: NeutronCloud) -> Iterator[str]:
    """The machine's definition has its ports, on the bridge of the host's agent, and the agent has seen them."""
    host = host_of(cloud)
    found = {nic.interface_id: nic.bridge for nic in definition.read(cloud.definition(host)).nics}
    if found != dict.fromkeys(cloud.ports, BRIDGE):
        yield f"the definition on {host} has {found}"
    if not cloud.plugged():
        yield f"the ports are {[cloud.status(port) for port in cloud.ports]}"
