"""Server groups: machines that are to be on one host (`affinity`), or on different ones (`anti-affinity`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from resizeflow.errors import Conflict, NotFound, RuleError, UsageError
from resizeflow.persistence.models import Instance, ServerGroup
from resizeflow.persistence.places import places, require_settled

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

AFFINITY, ANTI_AFFINITY = "affinity", "anti-affinity"


@dataclass(frozen=True)
class Others:
    """A group as one of its members sees it: where each of the other members is, or may end.

    A member whose migration is open may end on either side of it, until the confirm or the revert.
    """

    group: str
    policy: str
    hosts: Mapping[str, frozenset[str]]
    """Name of a member → ids of hosts."""

    def against(self, host_id: str) -> str | None:
        """What the policy has against a host, in one clause; None if nothing."""
        if self.policy == ANTI_AFFINITY:
            there = sorted(name for name, hosts in self.hosts.items() if host_id in hosts)
            return f"{', '.join(there)} of anti-affinity group {self.group} is there, or may be" if there else None
        apart = sorted(name for name, hosts in self.hosts.items() if hosts != {host_id})
        return f"{', '.join(apart)} of affinity group {self.group} is elsewhere, or may be" if apart else None


class Groups:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session

    def list(self) -> Sequence[ServerGroup]:
        return self.session.scalars(sa.select(ServerGroup).order_by(ServerGroup.name)).all()

    def get(self, name: str) -> ServerGroup:
        """Raises NotFound."""
        group = self.session.get(ServerGroup, name)
        if group is None:
            raise NotFound(f"There is no server group {name!r}; `resizeflow group list` shows what there is.")
        return group

    def create(self, name: str, policy: str, project_id: str) -> ServerGroup:
        """Raises UsageError for an unknown policy, Conflict if the name is taken."""
        if policy not in (AFFINITY, ANTI_AFFINITY):
            raise UsageError(f"A group's policy is {AFFINITY} or {ANTI_AFFINITY}, not {policy!r}.")
        if self.session.get(ServerGroup, name):
            raise Conflict(f"There is a server group {name!r} already.")
        group = ServerGroup(name=name, policy=policy, project_id=project_id)
        self.session.add(group)
        self._tx.events.command(f"server group {name} created, policy {policy}", project_id=project_id, policy=policy)
        return group

    def delete(self, name: str) -> None:
        """Raises Conflict while it has members."""
        group = self.lock(name)
        if members := [row.name for row in self.members(name)]:
            raise Conflict(f"Server group {name} has members: {', '.join(members)}; take them out of it first.")
        self.session.delete(group)
        self._tx.events.command(f"server group {name} deleted", project_id=group.project_id, policy=group.policy)

    def lock(self, name: str) -> ServerGroup:
        """Locks a group until the commit: its members' places are decided one after the other. Whoever locks hosts
        too locks the group first. Raises NotFound."""
        query = sa.select(ServerGroup).where(ServerGroup.name == name).with_for_update(key_share=True)
        return self.session.scalars(query).first() or self.get(name)

    def members(self, name: str) -> Sequence[Instance]:
        query = sa.select(Instance).where(Instance.group_name == name).order_by(Instance.name)
        return self.session.scalars(query).all()

    def others(self, name: str, instance_id: str) -> Others:
        """Where the members of a group but one are, or may end. Raises NotFound."""
        found = places(self.session, Instance.group_name == name, Instance.id != instance_id)
        return Others(name, self.get(name).policy, {member.name: member.hosts for member in found})

    def may_join(self, instance: Instance, name: str) -> None:
        """Whether a machine, locked by the caller, may become a member: of its own project's group, between two
        moves, if where it is suits the policy. Raises NotFound, RuleError or Conflict."""
        require_settled(self.session, instance, "server group")
        group = self.lock(name)
        if group.project_id != instance.project_id:
            raise RuleError(f"Server group {name} is of project {group.project_id}, not of {instance.project_id}.")
        if reason := self.others(name, instance.id).against(instance.host_id):
            raise Conflict(f"Instance {instance.name} cannot join where it is now: {reason}. Migrate it first.")
