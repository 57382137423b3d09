"""What an examination found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """What `Debts.record` needs to have something removed from a host."""

    migration_id: str
    host_id: str
    kind: str
    object: str


@dataclass(frozen=True)
class Suspect:
    """A breach that a host shows, to be looked at twice: of which machine, and what may be recorded as a debt."""

    breach: Breach
    instance_id: str | None
    owed: Owed | None = None


@dataclass(frozen=True)
class OpenDebt:
    """Something of ours on a host that could not be reached: known, recorded, no breach."""

    subject: str
    reason: str


@dataclass(frozen=True)
class Report:
    """The breaches, by number; the open debts; and per host that could not be examined, why."""

    breaches: tuple[Breach, ...]
    debts: tuple[OpenDebt, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every host was examined."""
        return not self.silent
