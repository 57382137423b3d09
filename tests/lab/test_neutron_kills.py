"""Workers killed at every effect on a port, with a real Neutron and simulated hosts whose agents follow them.

In a resize, a confirm and a revert: before, checked and after each call that changes something at Neutron, and around
each commit that goes with it; then resumed, or rolled back; and at each point of the way back. In the end each port has
one active binding, to the machine's host, by which it is plugged in, and no other but the one that waits on the other
host until a resize is decided (a revert that is turned back may have removed it: it is made anew anyway); records and
hosts are as after an undisturbed run, or as before.

A sample is in each run of the tests, all of it in `scripts/certify neutron`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.drivers.interface import Effect
from resizeflow.drivers.network import EFFECTS
from resizeflow.flows import TASKS
from resizeflow.tasks import network as network_tasks
from resizeflow.tasks.bindings import Bindings
from tests.lab.conftest import NeutronMaker
from tests.lab.kill_laboratory import Case, KillLaboratory, try_all
from tests.lab.neutron_cloud import NeutronCloud
from tests.lab.neutron_judge import wrong

pytestmark = [pytest.mark.lab, pytest.mark.timeout(4 * 3600)]

HEAD = "| operation | ports       | points | cases | violations | seconds a case |"
OF_PORTS = frozenset(
    task.__name__ for tasks in TASKS.values() for task in tasks if task.__module__ == network_tasks.__name__
)
TURNING = {"resize": "StartDestination.start_paused#1.checked", "revert": "StartSource.start_paused#1.checked"}
"""What is refused, so that the way back begins when all bindings have been changed."""
AT_NEUTRON = frozenset(method for method, effect in EFFECTS.items() if effect is Effect.ACT)


def is_of_ports(point: str) -> bool:
    """Whether a point is of an effect on Neutron, of the storing of what will be done there, or of what a task of ports
    saves at its end."""
    *words, what, _when = point.split(".")
    if what in ("SUCCESS", "REVERTED"):
        return words[0] in OF_PORTS
    return what.partition("#")[0] in AT_NEUTRON | {"bindings"}


def laboratory(cloud: NeutronCloud, operation: str, folder: Path) -> KillLaboratory[NeutronCloud]:
    return KillLaboratory(
        cloud, operation, folder / operation, wrong, concerns=is_of_ports, turning=TURNING.get(operation)
    )


@pytest.mark.parametrize(
    ("ports", "every"),
    [
        pytest.param(2, 23, id="sample"),
        pytest.param(1, 1, id="one", marks=pytest.mark.certify),
        pytest.param(2, 1, id="two", marks=pytest.mark.certify),
    ],
)
def test_killed_at_every_effect_on_a_port(
    make_neutron_cloud: NeutronMaker, tmp_path: Path, ports: int, every: int
) -> None:
    """`every` so-manieth case is tried."""
    cloud = make_neutron_cloud().build_machine(ports)
    stories: list[str] = []
    print(HEAD)
    resize = laboratory(cloud, "resize", tmp_path)
    stories += try_all(resize, every, str(ports))
    for operation in ("confirm", "revert"):
        resize.end.restore()
        stories += try_all(laboratory(cloud, operation, tmp_path), every, str(ports))
    assert not stories, "\n".join(stories)


def test_what_is_wrong_is_seen(
    make_neutron_cloud: NeutronMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback that does not remove the binding to the destination leaves it."""
    resize = laboratory(make_neutron_cloud().build_machine(), "resize", tmp_path)
    case = Case("resize", "BindPorts.create_binding#1.after", "rollback")
    assert resize.run(case) == []
    monkeypatch.setattr(Bindings, "leave", lambda *_, **__: None)
    found = resize.run(case) or []
    assert any("h2 INACTIVE ovs" in sentence for sentence in found)
    assert any(sentence.startswith("invariant 4") for sentence in found)
