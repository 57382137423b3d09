"""contrib/resizeflow-vlans: what a key of resizeflow's may run on a host, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "contrib/resizeflow-vlans"


def said(command: str) -> str:
    """What it says to a command that ssh passes on."""
    environment = {**os.environ, "SSH_ORIGINAL_COMMAND": command}
    ended = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)
    return ended.stderr if ended.returncode else "done"


@pytest.mark.parametrize("command", ["ip -j -d link show", "bridge -j vlan show"])
def test_looks(command: str) -> None:
    assert said(command) == "done"


def test_a_change_is_the_kernels_to_refuse() -> None:
    assert said("bridge vlan add dev no-such-device vid 10 pvid untagged") == (
        'Cannot find bridge device "no-such-device"\n'
    )


@pytest.mark.parametrize(
    "command",
    [
        "",
        "sh",
        "ip link delete br0",
        "bridge -j vlan show; reboot",
        "bridge vlan show",
        "bridge vlan add vid 10 dev eth0",
        "bridge fdb add dev eth0 vid",
        "ip -j -d link show $(reboot)",
    ],
)
def test_everything_else(command: str) -> None:
    assert said(command).endswith("is not allowed\n")
