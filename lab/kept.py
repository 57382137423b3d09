"""A guest that has booted once, kept with its memory and its disks: to boot takes an emulated machine longest.

    kept = Kept(guest, host, "two-disks")
    if not kept.exists():
        guest.create(host)
        guest.wait_report()
        kept.keep()
    kept.wake()

Its clock stands still until it is woken, and is right again when it boots.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lab.guest import Guest
from lab.system import run

if TYPE_CHECKING:
    from lab.host import Host


class Kept:
    """A guest on a host as it was once, by a name that is free to choose. It ends with its lab."""

    def __init__(self, guest: Guest, host: "Host", name: str) -> None:
        self._guest = guest
        self._host = host
        self._folder = host.directory / "kept" / name

    def exists(self) -> bool:
        """Whether it was kept."""
        return self._definition.exists()

    def keep(self) -> None:
        """From now on it was; it runs no more."""
        self._disks.mkdir(parents=True, exist_ok=True)
        self._host.virsh("save", self._guest.name, str(self._memory))
        for disk in self._guest.disks(self._host):
            _copy(disk, self._disks)
        shutil.copy(self._guest.file, self._facts)
        shutil.copy(self._host.serial_log(self._guest.name), self._said)
        self._definition.write_text(self._host.virsh("dumpxml", self._guest.name, "--inactive", "--security-info"))

    def wake(self) -> None:
        """It runs on from there, and has said what it had said."""
        for disk in self._disks.iterdir():
            _copy(disk, self._host.pool_path)
        shutil.copy(self._facts, self._guest.file)
        shutil.copy(self._said, self._host.serial_log(self._guest.name))
        self._host.virsh("pool-refresh", self._host.pool)
        self._host.virsh("define", str(self._definition))
        self._host.virsh("restore", str(self._memory))

    @property
    def _disks(self) -> Path:
        return self._folder / "disks"

    @property
    def _memory(self) -> Path:
        return self._folder / "memory"

    @property
    def _facts(self) -> Path:
        return self._folder / "facts.json"

    @property
    def _said(self) -> Path:
        return self._folder / "serial"

    @property
    def _definition(self) -> Path:
        """Written last."""
        return self._folder / "definition.xml"


def _copy(disk: Path, folder: Path) -> None:
    """Holes stay holes."""
    run(["cp", "--sparse=always", str(disk), str(folder)])
