"""The unit of contrib/: systemd understands it, also as docs/systemd.md changes it, and it may do little."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documented import ROOT

UNIT = ROOT / "contrib/resizeflow-worker.service"
PROGRAM = "/opt/resizeflow/bin/resizeflow"
MOST_EXPOSED = 2.5
"""Of `systemd-analyze security`, from 0 (may do nothing) to 10."""


def analyze(*words: str) -> str:
    """What it says; of a unit without faults nothing."""
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def installed(folder: Path, name: str) -> Path:
    """The unit, with a program that is there."""
    unit = folder / name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, sys.executable))
    return unit


@pytest.mark.parametrize("name", ["resizeflow-worker.service", "resizeflow-worker@.service"])
def test_systemd_understands_the_unit(tmp_path: Path, name: str) -> None:
    unit = installed(tmp_path, name)
    assert analyze("verify", str(unit).replace("@.", "@1.")) == ""


def test_systemd_understands_the_drop_in_of_the_docs(tmp_path: Path) -> None:
    page = (ROOT / "docs/systemd.md").read_text(encoding="utf-8")
    match = re.search(r"^(?: {4}.*\n)*? {4}\[Service\]\n(?: {4}\S.*\n)+", page, re.MULTILINE)
    assert match
    unit = installed(tmp_path, "resizeflow-worker.service")
    folder = tmp_path / "resizeflow-worker.service.d"
    folder.mkdir()
    drop_in = re.sub(r"^ {4}", "", match[0], flags=re.MULTILINE)
    assert "LoadCredential=audit.key:" in drop_in
    (folder / "override.conf").write_text(drop_in.replace(PROGRAM, sys.executable))
    assert analyze("verify", str(unit)) == ""
    (folder / "override.conf").write_text(drop_in.replace("LoadCredential=", "LoadCredentials="))
    assert "LoadCredentials" in analyze("verify", str(unit))


def test_the_unit_may_do_little(tmp_path: Path) -> None:
    told = analyze("security", "--offline=true", "--no-pager", str(installed(tmp_path, "resizeflow-worker.service")))
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert match, told
    assert float(match[1]) <= MOST_EXPOSED


def test_the_docs_say_what_the_unit_says() -> None:
    unit, page = UNIT.read_text(encoding="utf-8"), (ROOT / "docs/systemd.md").read_text(encoding="utf-8")
    for setting in ("TimeoutStopSec=90", "KillMode=mixed", "Restart=on-failure"):
        assert setting in unit
        assert f"`{setting}`" in page
    (jobs,) = re.findall(r"--jobs (\d+)", unit)
    assert f"`--jobs` jobs at a time, {jobs} in the unit" in page
