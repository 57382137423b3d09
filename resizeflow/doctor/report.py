"""What an examination found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from resizeflow.persistence.debts import place
from resizeflow.persistence.models import Debt


@dataclass(frozen=True)
class Breach:
    """An invariant that does not hold for a subject."""

    invariant: int
    """Its number in docs/doctor.md."""
    subject: str
    """`instance web`, `host h1`, `disk web-vda.qcow2 on h1`, `migration 1a2b3c4d-...`."""
    found: str
    expected: str
    repair: str | None = None
    """What `Doctor.repair` does about it; None: a person must decide."""

    def __str__(self) -> str:
        return f"invariant {self.invariant}, {self.subject}: {self.found}; expected: {self.expected}"


@dataclass(frozen=True)
class Owed:
    """What `Debts.record` needs to have something removed from a host, or set right at a service."""

    migration_id: str
    host_id: str
    kind: str
    object: str


SET_RIGHT = frozenset({"volume", "port", "vlan-port"})
"""Kinds of debts for something that stays, and is not as it should be."""


@dataclass(frozen=True)
class Suspect:
    """A breach that a host or a service shows, to be looked at twice: of which machine, and what may become a debt."""

    breach: Breach
    instance_id: str | None
    owed: Owed | None = None


@dataclass(frozen=True)
class OpenDebt:
    """Something that a worker will set right when who has it answers: known, recorded, no breach."""

    subject: str
    reason: str
    settled: str
    """How it will end."""

    @classmethod
    def of(cls, debt: Debt, host_name: str) -> OpenDebt:
        verb = "sets it right" if debt.kind in SET_RIGHT else "removes it"
        who = debt.service or "the host"
        subject = f"{debt.kind} {debt.object} {place(debt.kind, host_name)}"
        return cls(subject, debt.reason, f"a worker {verb} when {who} answers")


@dataclass(frozen=True)
class Report:
    """The breaches, by number; the open debts; and why what could not be examined could not: by `host NAME`,
    `Cinder` or `Neutron`."""

    breaches: tuple[Breach, ...]
    debts: tuple[OpenDebt, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every host was examined, Cinder if a machine has volumes, and Neutron if there is one."""
        return not self.silent
