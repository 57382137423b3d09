"""Simulated hosts in one SQLite file: a world that outlives every worker, for tests and rehearsals."""

from resizeflow.drivers.simulator.connection import SimulatedConnection
from resizeflow.drivers.simulator.effects import Cause, LoggedEffect
from resizeflow.drivers.simulator.faults import ALWAYS, Fault
from resizeflow.drivers.simulator.host import SimulatedHost
from resizeflow.drivers.simulator.world import SimulatedWorld

__all__ = ["ALWAYS", "Cause", "Fault", "LoggedEffect", "SimulatedConnection", "SimulatedHost", "SimulatedWorld"]
