"""The invariants (docs/doctor.md), checked against the records and the hosts; and the repairs that are safe."""

from __future__ import annotations

from resizeflow.doctor.doctor import Doctor
from resizeflow.doctor.report import Breach, Report

__all__ = ["Breach", "Doctor", "Report"]
