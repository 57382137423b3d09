"""The virtual environment that Cinder runs in: its dependencies are many, and none of them are the program's.

`scripts/bootstrap` makes it from `lab/cinder.lock`.
"""

from pathlib import Path

from lab.system import LabError

FOLDER = Path(__file__).parents[1] / ".venv-cinder"
LOCK = Path(__file__).with_name("cinder.lock")
INSTALLED = FOLDER / ".installed"
"""The lock file as it was installed."""


def program(name: str) -> Path:
    """One of Cinder's programs, or its `python`. Raises LabError if it is not installed."""
    if not INSTALLED.exists() or INSTALLED.read_bytes() != LOCK.read_bytes():
        raise LabError(f"Cinder is not installed in {FOLDER}, or not this version: run scripts/bootstrap")
    return FOLDER / "bin" / name


def etc(name: str) -> Path:
    """A file that Cinder's package brings for /etc/cinder."""
    return FOLDER / "etc/cinder" / name
