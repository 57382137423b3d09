"""The value of a secret on its way from one place that keeps it to another: it is never stored, and never shown."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Secret:
    """A Ceph key as it is decoded, a CHAP password. It has no printed form."""

    value: bytes = field(repr=False)
