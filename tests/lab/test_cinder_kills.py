"""Workers killed at every effect on a volume, with a real Cinder on Ceph, iSCSI and NFS, and simulated hosts.

In a resize, a confirm and a revert: before, checked and after each call that changes something at Cinder, and around
each commit that stores an attachment's id; then resumed, or rolled back; and at each point of the way back. In the end
each volume has one attachment, completed, on the machine's host, and no other but the one that keeps the way back of a
resize that is not yet decided; records and hosts are as after an undisturbed run, or as before.

A sample is in each run of the tests, all of it in `scripts/certify cinder`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from resizeflow.tasks.attachments import Attachments
from tests.lab.cinder_laboratory import Case, CinderLaboratory
from tests.lab.conftest import CinderMaker

pytestmark = [pytest.mark.lab, pytest.mark.timeout(4 * 3600)]

HEAD = "| operation | volumes     | points | cases | violations | seconds a case |"


@pytest.mark.parametrize(
    ("kinds", "every"),
    [
        pytest.param(("rbd", "iscsi"), 23, id="sample"),
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
    wrong: list[str] = []
    print(HEAD)
    resize = CinderLaboratory(cloud, "resize", tmp_path / "resize")
    wrong += try_all(resize, every)
    for operation in ("confirm", "revert"):
        resize.end.restore()
        wrong += try_all(CinderLaboratory(cloud, operation, tmp_path / operation), every)
    assert not wrong, "\n".join(wrong)


def test_what_is_wrong_is_seen(make_cinder_cloud: CinderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that does not look for what nobody has written down leaves an attachment."""
    laboratory = CinderLaboratory(make_cinder_cloud().build_machine("nfs"), "resize", tmp_path / "resize")
    case = Case("resize", "ReserveVolumes.create_attachment#1.after", "rollback")
    assert laboratory.run(case) == []
    monkeypatch.setattr(Attachments, "sweep", lambda _: None)
    found = laboratory.run(case) or []
    assert any("'reserved', 'nowhere'" in sentence for sentence in found)
    assert any("nothing accounts for it" in sentence for sentence in found)


def try_all(laboratory: CinderLaboratory, every: int) -> list[str]:
    """Runs the cases of an operation and prints a line about them; the stories of those that ended wrong."""
    cases = list(laboratory.cases())
    cases = cases[every // 2 % len(cases) :: every]
    stories: list[str] = []
    points, tried = set(), 0
    began = time.monotonic()
    for case in cases:
        found = laboratory.run(case)
        if found is None:
            continue
        tried += 1
        points.add(case.point)
        if found:
            stories.append("\n".join([str(case), *found, laboratory.story()]))
    seconds = (time.monotonic() - began) / max(tried, 1)
    kinds = "+".join(laboratory.cloud.kinds)
    print(
        f"| {laboratory.operation:9} | {kinds:11} | {len(points):6} | {tried:5} | {len(stories):10} | {seconds:14.1f} |"
    )
    return stories
