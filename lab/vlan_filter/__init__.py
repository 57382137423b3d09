"""VLAN filtering for bridges of a kernel that was built without it (CONFIG_BRIDGE_VLAN_FILTERING).

A BPF program at each member of a bridge tags, untags and drops frames as the kernel's own filter would, by a table that
is read and changed with iproute2's words: `python -m lab.vlan_filter TABLE bridge vlan add dev tap0 vid 10 pvid
untagged`. Frames on the cables have real tags. What differs from a real one: a bridge learns addresses for all VLANs
together, a device nobody has put into a VLAN still receives (tagged frames), and a device that comes back under its old
name has to be put in again, as in the kernel.
"""

import sys
from pathlib import Path


def command(table: Path) -> list[str]:
    """What to write before one of iproute2's commands, in the network namespace that `table` is of."""
    return ["env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable, "-m", __name__, str(table)]
