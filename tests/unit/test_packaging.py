"""What is installed: every file that the program reads beside its modules goes into the wheel."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "resizeflow"


def test_every_file_beside_the_modules_is_package_data() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["resizeflow"]
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    names = {str(path.relative_to(PACKAGE)) for path in files}
    assert {"py.typed", "runbook/no-valid-host.md"} < names
    assert [name for name in sorted(names) if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []
