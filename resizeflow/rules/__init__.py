"""What a request must satisfy: pure functions, one rule each, in Nova's order, with the error each raises."""

from resizeflow.rules.decision import DECIDING, Decision
from resizeflow.rules.disks import CONFIG_DRIVE_BYTES, MIB, new_capacity
from resizeflow.rules.machine import format_as_defined, lasting, movable
from resizeflow.rules.move import BEFORE_LOOKING, RULES, Move
from resizeflow.rules.ports import PORTS
from resizeflow.rules.request import check
from resizeflow.rules.volumes import VOLUMES

__all__ = [
    "BEFORE_LOOKING",
    "CONFIG_DRIVE_BYTES",
    "DECIDING",
    "MIB",
    "PORTS",
    "RULES",
    "VOLUMES",
    "Decision",
    "Move",
    "check",
    "format_as_defined",
    "lasting",
    "movable",
    "new_capacity",
]
