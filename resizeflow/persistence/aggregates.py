"""Host aggregates: hosts with properties in common, among them the availability zone that they are in."""

from __future__ import annotations

import builtins
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from resizeflow.errors import Conflict, NotFound, UsageError
from resizeflow.persistence.changing import change, told
from resizeflow.persistence.models import Aggregate, AggregateHost, Host, Instance
from resizeflow.persistence.places import places, require_settled

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

ZONE = "availability_zone"
"""The property that makes an aggregate a zone, or a part of one (Nova). A host is in one zone at most."""
Properties = Mapping[str, frozenset[str]]


class Aggregates:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session

    def list(self) -> Sequence[Aggregate]:
        return self.session.scalars(sa.select(Aggregate).order_by(Aggregate.name)).all()

    def get(self, name: str) -> Aggregate:
        """Raises NotFound."""
        aggregate = self.session.get(Aggregate, name)
        if aggregate is None:
            raise NotFound(f"There is no aggregate {name!r}; `resizeflow aggregate list` shows what there is.")
        return aggregate

    def create(self, name: str, properties: Mapping[str, str]) -> Aggregate:
        """Raises Conflict if the name is taken, UsageError for a property without a name or value."""
        _require_values(properties)
        if self.session.get(Aggregate, name):
            raise Conflict(f"There is an aggregate {name!r} already.")
        aggregate = Aggregate(name=name, properties=dict(properties))
        self.session.add(aggregate)
        self._tx.events.command(f"aggregate {name} created", properties=aggregate.properties)
        return aggregate

    def change(
        self,
        name: str,
        *,
        properties: Mapping[str, str],
        no_properties: Collection[str],
        hosts: Collection[Host],
        no_hosts: Collection[Host],
    ) -> Aggregate:
        """Sets and removes properties, takes hosts in and out. Raises Conflict if a host would be in two zones, or a
        machine outside the zone that it is pinned to (Nova refuses both)."""
        _require_values(properties)
        self.lock()
        outside = self._outside()
        aggregate = self.get(name)
        before = self._members(aggregate)
        kept = {key: value for key, value in aggregate.properties.items() if key not in no_properties}
        changes = dict(change(aggregate, {"properties": {**kept, **properties}}))
        members = {member.host_id: member for member in aggregate.members}
        members |= {host.id: AggregateHost(host_id=host.id) for host in hosts if host.id not in members}
        out = {host.id for host in no_hosts}
        aggregate.members = [member for host_id, member in members.items() if host_id not in out]
        self._require_zones(outside)
        if before != (after := self._members(aggregate)):
            changes["hosts"] = [before, after]
        if changes:
            self._tx.events.command(f"aggregate {name} set: {told(changes)}", changes=changes)
        return aggregate

    def delete(self, name: str) -> None:
        """Raises Conflict while a machine on one of its hosts is pinned to its zone."""
        self.lock()
        outside = self._outside()
        aggregate = self.get(name)
        hosts = self._members(aggregate)
        self.session.delete(aggregate)
        self._require_zones(outside)
        self._tx.events.command(f"aggregate {name} deleted", properties=aggregate.properties, hosts=hosts)

    def forget(self, host: Host) -> None:
        """Takes a host that is no longer managed out of all aggregates."""
        self.session.execute(sa.delete(AggregateHost).where(AggregateHost.host_id == host.id))

    def lock(self) -> None:
        """Locks all aggregates until the commit, so that zones stay as they are while a place in one is decided.
        Whoever locks hosts too locks the aggregates first, and a server group before them."""
        self.session.execute(sa.select(Aggregate.name).order_by(Aggregate.name).with_for_update(key_share=True))

    def properties(self, host_ids: Collection[str] | None = None) -> Mapping[str, Properties]:
        """By host id (of some hosts, or all), the properties of the aggregates that it is in; two of them may give one
        property two values."""
        aggregates = self.session.execute(sa.select(Aggregate.name, Aggregate.properties))
        named = {row.name: row.properties for row in aggregates}
        members = sa.select(AggregateHost.host_id, AggregateHost.aggregate)
        if host_ids is not None:
            members = members.where(AggregateHost.host_id.in_(host_ids))
        found: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
        for host_id, aggregate in self.session.execute(members):
            mine = found[host_id]
            for key, value in named[aggregate].items():
                mine[key] = mine.get(key, frozenset()) | {value}
        return found

    def may_pin(self, instance: Instance, zone: str) -> None:
        """Whether a machine, locked by the caller, may be pinned to a zone: between two moves, if its host is in it.
        Raises NotFound or Conflict."""
        require_settled(self.session, instance, "availability zone")
        self.lock()
        zones = self.zones()
        if zone not in zones.values():
            raise NotFound(
                f"No host is in an availability zone {zone!r}: a zone is made by an aggregate with the property "
                f"{ZONE}={zone} and hosts in it."
            )
        if zones.get(instance.host_id) != zone:
            raise Conflict(
                f"Instance {instance.name} is on host {instance.host.name}, which is not in zone {zone}: migrate it "
                "to a host that is, then pin it."
            )

    def zones(self) -> Mapping[str, str]:
        """By host id, the zone that it is in. Raises Conflict if a host is in two."""
        found: dict[str, str] = {}
        for host_id, properties in self.properties().items():
            names = sorted(properties.get(ZONE, ()))
            if len(names) > 1:
                host = self.session.get_one(Host, host_id)
                raise Conflict(f"Host {host.name} would be in two availability zones, {' and '.join(names)}.")
            if names:
                found[host_id] = names[0]
        return found

    def _members(self, aggregate: Aggregate) -> builtins.list[str]:
        """The names of its hosts."""
        ids = [member.host_id for member in aggregate.members]
        return sorted(self.session.scalars(sa.select(Host.name).where(Host.id.in_(ids))))

    def _outside(self) -> set[str]:
        """The machines that are, or may end, outside the zone that they are pinned to."""
        zones = self.zones()
        pinned = places(self.session, Instance.availability_zone.is_not(None))
        return {machine.name for machine in pinned if any(zones.get(host) != machine.zone for host in machine.hosts)}

    def _require_zones(self, outside: set[str]) -> None:
        """That a change has left no host in two zones, and no further machine outside its own."""
        self.session.flush()
        if strays := sorted(self._outside() - outside):
            raise Conflict(
                f"Pinned machines would be outside their availability zone: {', '.join(strays)}; move them, or take "
                "their pin away (`resizeflow instance set --no-availability-zone`)."
            )


def _require_values(properties: Mapping[str, str]) -> None:
    if empty := [f"{key}={value}" for key, value in properties.items() if not key or not value]:
        raise UsageError(f"Property {empty[0]!r} needs a name and a value.")
