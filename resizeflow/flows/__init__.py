"""The flows, each a table of contents of its operation, and the registry that builds them.

Names are versioned and kept until no job of theirs is left: a stored flow is resumed by its task names, so a changed
table gets a new version beside the old one.
"""

from __future__ import annotations

from collections.abc import Mapping

from taskflow.patterns import linear_flow

from resizeflow.flows.confirm import CONFIRM_V1
from resizeflow.flows.remove import REMOVE_V1
from resizeflow.flows.resize import RESIZE_V1
from resizeflow.flows.revert import REVERT_V1
from resizeflow.flows.settle import SETTLE_V1
from resizeflow.tasks.base import MoveTask
from resizeflow.world import World

TASKS: Mapping[str, tuple[type[MoveTask], ...]] = {
    "resize_v1": RESIZE_V1,
    "confirm_v1": CONFIRM_V1,
    "remove_v1": REMOVE_V1,
    "revert_v1": REVERT_V1,
    "settle_v1": SETTLE_V1,
}


def build(name: str, world: World, migration_id: str) -> linear_flow.Flow:
    """The TaskFlow flow of a job. Raises KeyError for a name that this version does not know."""
    flow = linear_flow.Flow(name)
    flow.add(*(task(world, migration_id) for task in TASKS[name]))
    return flow
