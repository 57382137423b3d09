"""Who tests the test? Seeded faults, each of which the enumeration must catch.

Each is one plausible mistake in the product, made in the processes that run the job, and nowhere else.
"""

from resizeflow.chaos.mutants import ports, protocol, vlans, volumes  # noqa: F401 - each registers its own
from resizeflow.chaos.mutants.seeding import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
