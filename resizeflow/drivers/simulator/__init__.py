"""Simulated hosts in one SQLite file: a world that outlives every worker, for tests and rehearsals."""

from resizeflow.drivers.simulator.connection import SimulatedConnection
from resizeflow.drivers.simulator.host import SimulatedHost
from resizeflow.drivers.simulator.world import LoggedEffect, SimulatedWorld

__all__ = ["LoggedEffect", "SimulatedConnection", "SimulatedHost", "SimulatedWorld"]
