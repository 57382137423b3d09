"""Where a lab keeps its things, and the names by which they are found again without any state file."""

import re
from dataclasses import dataclass
from pathlib import Path

from lab.system import LabError

ROOT = Path("/var/lib/resizeflow-lab")
IMAGES = ROOT / "images"
CAPABILITIES = IMAGES / "capabilities"
NETNS_DIRECTORY = Path("/run/netns")
NETNS_PREFIX = "rflab"
SWITCH = "switch"

_LAB_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_GUEST_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,50}", re.IGNORECASE)
_RESERVED = {IMAGES.name}


@dataclass(frozen=True)
class LabPaths:
    """The names of one lab. Dots separate the parts of a namespace's name, so `a` never matches `a-b`."""

    name: str

    def __post_init__(self) -> None:
        if not _LAB_NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise LabError(f"'{self.name}' cannot name a lab: use up to 31 lower-case letters, digits and dashes")

    @property
    def directory(self) -> Path:
        """Everything of this lab that is a file."""
        return ROOT / self.name

    @property
    def guests(self) -> Path:
        """One small file per guest: its address, MAC and UUID."""
        return self.directory / "guests"

    @property
    def switch_netns(self) -> str:
        """The network namespace that holds the lab's switch."""
        return self.netns(SWITCH)

    def netns(self, part: str) -> str:
        """The network namespace of a host, or of the switch."""
        return f"{NETNS_PREFIX}.{self.name}.{part}"

    def host_directory(self, host: str) -> Path:
        """Everything of one host that is a file."""
        return self.directory / host

    def netns_names(self) -> list[str]:
        """The lab's network namespaces that exist now, found by name."""
        prefix = f"{NETNS_PREFIX}.{self.name}."
        return sorted(path.name for path in NETNS_DIRECTORY.glob(f"{prefix}*"))

    def host_names(self) -> list[str]:
        """The hosts that were built, complete or not, in order."""
        found = (path.name for path in self.directory.glob("h*"))
        return sorted((name for name in found if name[1:].isdigit()), key=lambda name: int(name[1:]))


def lab_names() -> list[str]:
    """All labs of this machine, by their directories and by their namespaces."""
    names = {path.name for path in ROOT.glob("*") if path.is_dir() and path.name not in _RESERVED}
    names |= {path.name.split(".")[1] for path in NETNS_DIRECTORY.glob(f"{NETNS_PREFIX}.*.*")}
    return sorted(names)


def check_guest_name(name: str) -> None:
    """Guest names become file names and host names."""
    if not _GUEST_NAME.fullmatch(name):
        raise LabError(f"'{name}' cannot name a guest: use up to 51 letters, digits, dots and dashes")
