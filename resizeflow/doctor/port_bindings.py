"""Invariant 4 at Neutron: each port of a machine has one active binding, on the machine's host; inactive ones are there
only for its open migration. And the records, the definition and Neutron name the same ports.

While a job goes on only its tasks know how far the bindings are: such a machine is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resizeflow.doctor.agreement import operation
from resizeflow.doctor.debtors import last_closed
from resizeflow.doctor.report import Breach, Owed, Suspect
from resizeflow.doctor.snapshot import Bound, Records, World
from resizeflow.drivers import definition
from resizeflow.drivers.network import BINDING_FAILED, UNBOUND, NetworkPort, PortBinding
from resizeflow.persistence.models import Instance
from resizeflow.persistence.transaction import Transaction
from resizeflow.ports import active

_REPAIRS = {
    "binding": "deletes it at Neutron, if it is still inactive",
    "port": "makes the binding to the machine's host the active one, anew if need be",
}


@dataclass(frozen=True)
class _Finding:
    """What is wrong with a port; `debt` (kind, host's id) is what a worker could do about it, else a person does."""

    instance: Instance
    port_id: str
    found: str
    expected: str
    debt: tuple[str, str] | None = None
    by_hand: str = ""


def find(tx: Transaction, records: Records, world: World) -> Iterator[Suspect]:
    """Invariant 4 at Neutron. A debt needs a closed migration of the machine, which `tx` is asked for."""
    findings = [
        finding
        for instance_id, bound in world.bound.items()
        for finding in _check(records, world, records.instances[instance_id], bound)
    ]
    closed = last_closed(tx, {finding.instance.id for finding in findings if finding.debt})
    for finding in findings:
        instance, owner = finding.instance, closed.get(finding.instance.id)
        subject = f"port {finding.port_id} of {instance.name}"
        if finding.debt is None or owner is None:
            expected = "; ".join(filter(None, (finding.expected, finding.by_hand)))
            yield Suspect(Breach(4, subject, finding.found, expected), instance.id)
        else:
            kind, host_id = finding.debt
            repair = f"it is recorded as a debt: a worker {_REPAIRS[kind]}"
            breach = Breach(4, subject, finding.found, finding.expected, repair)
            yield Suspect(breach, instance.id, Owed(owner, host_id, kind, finding.port_id))


def _check(records: Records, world: World, instance: Instance, bound: Bound) -> Iterator[_Finding]:
    job = records.jobs.get(instance.id)
    if job is not None and operation(job.flow) != "settle":
        return
    domain = world.domain(instance.host_id, instance.id)
    macs = {nic.mac for nic in definition.read(domain.inactive_xml).nics} if domain else None
    recorded = {port.port_id: port.mac.lower() for port in instance.ports if port.port_id}
    for port_id in sorted(recorded.keys() - {port.id for port in bound.ports}):
        if macs is not None and recorded[port_id] not in macs:
            continue  # Taken from the machine with its NIC: the next operation sees that, and records it.
        yield _Finding(
            instance,
            port_id,
            "recorded, and at Neutron not a port of this machine",
            "a port of this machine",
            by_hand="give it back at Neutron, or remove its NIC from the machine",
        )
    for port in bound.ports:
        if macs is not None and port.mac.lower() not in macs:
            yield _Finding(
                instance,
                port.id,
                f"the machine's at Neutron, and no NIC {port.mac} in its definition on {instance.host.name}",
                "both or neither",
                by_hand="plug it in, or take it from the machine at Neutron",
            )
        else:
            yield from _check_bindings(records, instance, port, bound.bindings[port.id])


def _check_bindings(
    records: Records, instance: Instance, port: NetworkPort, bindings: tuple[PortBinding, ...]
) -> Iterator[_Finding]:
    owed = {(debt.host_id, debt.kind) for debt in records.debts if debt.object == port.id}
    here = instance.host.name
    used = active(bindings)
    if used is None or used.host != here or used.vif_type in (UNBOUND, BINDING_FAILED):
        found = f"bound to {used.host} as {used.vif_type}" if used else "bound to no host"
        if (instance.host_id, "port") not in owed:
            by_hand = f"`openstack port set --host {here} {port.id}`"
            yield _Finding(instance, port.id, found, f"active binding to {here}", ("port", instance.host_id), by_hand)
    migration = records.open_migrations.get(instance.id)
    ends = {migration.source_host_id, migration.dest_host_id} if migration else set()
    ids = {host.name: host.id for host in records.hosts.values()}
    for binding in bindings:
        host_id = ids.get(binding.host)
        if binding.active or binding.host == here or host_id in ends - {None} or (host_id, "binding") in owed:
            continue
        yield _Finding(
            instance,
            port.id,
            f"inactive binding to {binding.host}",
            "none there",
            ("binding", host_id) if host_id else None,
            f"`DELETE /v2.0/ports/{port.id}/bindings/{binding.host}` at Neutron's API",
        )
