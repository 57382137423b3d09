"""Workers killed at every effect on a volume, with a real Cinder on Ceph, iSCSI and NFS, and simulated hosts.

In a resize, a confirm and a revert: before, checked and after each call that changes something at Cinder, and around
each commit that stores an attachment's id; then resumed, or rolled back; and at each point of the way back. In the end
each volume has one attachment, completed, on the machine's host, and no other but the one that keeps the way back of a
resize that is not yet decided; records and hosts are as after an undisturbed run, or as before.

A sample is in each run of the tests, all of it in `scripts/certify cinder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from resizeflow.drivers.interface import Effect
from resizeflow.drivers.volume import EFFECTS
from resizeflow.flows import TASKS
from resizeflow.tasks import volumes as volume_tasks
from resizeflow.tasks.attachments import Attachments
from tests.lab.cinder_cloud import CinderCloud
from tests.lab.cinder_judge import wrong
from tests.lab.conftest import CinderMaker
from tests.lab.kill_laboratory import Case, KillLaboratory, try_all

pytestmark = [pytest.mark.lab, pytest.mark.timeout(4 * 3600)]

HEAD = "| operation | volumes     | points | cases | violations | seconds a case |"
OF_VOLUMES = frozenset(
    task.__name__ for tasks in TASKS.values() for task in tasks if task.__module__ == volume_tasks.__name__
)
TURNING = {"resize": "StartDestination.complete_attachment", "revert": "StartSource.complete_attachment"}
"""What is refused for the last volume, so that the way back begins when all of them have been connected."""
AT_CINDER = frozenset(method for method, effect in EFFECTS.items() if effect is Effect.ACT)
OF_SECRETS = frozenset({"define_secret", "undefine_secret"})


def is_of_volumes(point: str) -> bool:
    """Whether a point is of an effect on Cinder or on a secret, of the storing of an attachment's id, or of what a
    volume task saves at its end."""
    *words, what, _when = point.split(".")
    if what in ("SUCCESS", "REVERTED"):
        return words[0] in OF_VOLUMES
    return what.partition("#")[0] in AT_CINDER | OF_SECRETS | {"attachment"}


def laboratory(cloud: CinderCloud, operation: str, folder: Path) -> KillLaboratory[CinderCloud]:
    turning = f"{TURNING[operation]}#{len(cloud.volumes)}.checked" if operation in TURNING else None
    return KillLaboratory(cloud, operation, folder / operation, wrong, concerns=is_of_volumes, turning=turning)


@pytest.mark.parametrize(
    ("kinds", "every"),
    [
        pytest.param(("rbd", "iscsi"), 47, id="sample"),
        pytest.param(("rbd",), 1, id="rbd", marks=pytest.mark.certify),
        pytest.param(("iscsi",), 1, id="iscsi", marks=pytest.mark.certify),
        pytest.param(("nfs",), 1, id="nfs", marks=pytest.mark.certify),
        pytest.param(("multi",), 1, id="multi", marks=pytest.mark.certify),
        pytest.param(("rbd", "iscsi"), 1, id="two", marks=pytest.mark.certify),
    ],
)
def test_killed_at_every_effect_on_a_volume(
    make_cinder_cloud: CinderMaker, tmp_path: Path, kinds: Sequence[str], every: int
) -> None:
    """`every` so-manieth case is tried."""
    cloud = make_cinder_cloud().build_machine(*kinds)
    stories: list[str] = []
    print(HEAD)
    resize = laboratory(cloud, "resize", tmp_path)
    stories += try_all(resize, every, "+".join(kinds))
    for operation in ("confirm", "revert"):
        resize.end.restore()
        stories += try_all(laboratory(cloud, operation, tmp_path), every, "+".join(kinds))
    assert not stories, "\n".join(stories)


def test_what_is_wrong_is_seen(make_cinder_cloud: CinderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that does not look for what nobody has written down leaves an attachment."""
    resize = laboratory(make_cinder_cloud().build_machine("nfs"), "resize", tmp_path)
    case = Case("resize", "ReserveVolumes.create_attachment#1.after", "rollback")
    assert resize.run(case) == []
    monkeypatch.setattr(Attachments, "sweep", lambda _: None)
    found = resize.run(case) or []
    assert any("'reserved', 'nowhere'" in sentence for sentence in found)
    assert any("nothing accounts for it" in sentence for sentence in found)
