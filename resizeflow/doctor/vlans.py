"""Invariant 4 on bridges that filter VLANs: the port of a machine is in its VLAN on the machine's host, the tap of one
that runs in no other, and the uplinks bring it.

A host that boots has forgotten both, and starts what has autostart all the same. VLANs that nobody needs are none of
our business: somebody else may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resizeflow.doctor.agreement import operation
from resizeflow.doctor.debtors import last_closed
from resizeflow.doctor.report import Breach, Owed, Suspect
from resizeflow.doctor.snapshot import Records, World
from resizeflow.drivers import definition
from resizeflow.drivers.bridge import BridgeLink, Member
from resizeflow.drivers.hypervisor import DomainFacts
from resizeflow.persistence.models import Instance, Port
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks.vlans import PORT_DEBT

RECORDED = "it is recorded as a debt: a worker puts it into its VLAN"


@dataclass(frozen=True)
class _Finding:
    """What is wrong with a port of a machine."""

    instance: Instance
    port: Port
    found: str


def find(tx: Transaction, records: Records, world: World) -> Iterator[Suspect]:
    """Invariant 4 on bridges. A debt needs a closed migration of the machine, which `tx` is asked for."""
    owed = {(debt.host_id, debt.object) for debt in records.debts if debt.kind == PORT_DEBT}
    findings = [one for one in _all(records, world) if (one.instance.host_id, one.port.mac) not in owed]
    closed = last_closed(tx, {one.instance.id for one in findings}) if findings else {}
    for one in findings:
        instance, vlan = one.instance, one.port.vlan
        subject, expected = f"port {one.port.mac} of {instance.name}", f"VLAN {vlan} on {instance.host.name}"
        owner = closed.get(instance.id)
        if owner is None:
            breach = Breach(4, subject, one.found, f"{expected}: `bridge vlan add dev ... vid {vlan}` there")
            yield Suspect(breach, instance.id)
        else:
            debt = Owed(owner, instance.host_id, PORT_DEBT, one.port.mac)
            yield Suspect(Breach(4, subject, one.found, expected, RECORDED), instance.id, debt)


def _all(records: Records, world: World) -> Iterator[_Finding]:
    for instance in records.instances.values():
        job = records.jobs.get(instance.id)
        if job is not None and operation(job.flow) != "settle":
            continue  # only its tasks know how far it is
        domain = world.domain(instance.host_id, instance.id)
        for port in instance.ports:
            links = world.bridges.get((instance.host_id, port.bridge))
            if port.own_vlan is not None and links is not None and domain is not None:
                yield from (_Finding(instance, port, found) for found in _wrong(port, port.own_vlan, links, domain))


def _wrong(port: Port, vlan: int, links: Sequence[BridgeLink], domain: DomainFacts) -> Iterator[str]:
    without = [link.device for link in links if link.member is Member.UPLINK and vlan not in link.vlans]
    if without:
        yield f"{', '.join(without)} of bridge {port.bridge} does not bring VLAN {vlan}"
    tap = _taps(domain).get(port.mac)
    for link in links:
        if link.device == tap and not link.is_in(vlan):
            told = ", ".join(map(str, sorted(link.vlans))) or "none"
            yield f"its tap {tap} is in VLAN {told}"


def _taps(domain: DomainFacts) -> Mapping[str, str]:
    """The taps of a machine that runs, by their NICs' MACs."""
    nics = definition.read(domain.live_xml).nics if domain.live_xml else ()
    return {nic.mac: nic.device for nic in nics if nic.device is not None}
