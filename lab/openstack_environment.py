"""The virtual environment that Cinder and Neutron run in: their dependencies are many, and none of them the program's.

`scripts/bootstrap` makes it from `lab/openstack.lock`.
"""

from pathlib import Path

from lab.system import LabError

FOLDER = Path(__file__).parents[1] / ".venv-openstack"
LOCK = Path(__file__).with_name("openstack.lock")
INSTALLED = FOLDER / ".installed"
"""The lock file as it was installed."""


def program(name: str) -> Path:
    """One of their programs, or their `python`. Raises LabError if it is not installed."""
    if not INSTALLED.exists() or INSTALLED.read_bytes() != LOCK.read_bytes():
        raise LabError(f"Cinder and Neutron are not installed in {FOLDER}, or not these: run scripts/bootstrap")
    return FOLDER / "bin" / name


def etc(service: str) -> Path:
    """The folder of files that a service's package brings for /etc/SERVICE."""
    return FOLDER / "etc" / service
