"""An iSCSI target daemon of the lab's own, tgtd, whose targets Cinder makes and removes."""

import shlex
from pathlib import Path

from lab.daemon import Daemon
from lab.paths import LabPaths
from lab.system import LabError, run, wait_until

PORT = 3260


class Targets(Daemon):
    """A tgtd at a lab's switch, with a control socket of its own, and what Cinder needs to command it."""

    def __init__(self, paths: LabPaths, folder: Path, address: str) -> None:
        self.portal = f"{address}:{PORT}"
        self.environment = {"TGT_IPC_SOCKET": str(folder / "socket")}
        command = ["tgtd", "-f", "--iscsi", f"portal={self.portal}"]
        super().__init__(paths, folder, "tgtd", command, self.environment)

    @property
    def volumes(self) -> Path:
        """Where Cinder writes a file of configuration per target."""
        return self.folder / "targets"

    @property
    def images(self) -> Path:
        """The volumes themselves."""
        return self.folder / "images"

    @property
    def commands(self) -> Path:
        """A folder with the `tgt-admin` that knows this daemon's configuration; Debian's would read the machine's."""
        return self.folder / "bin"

    def start(self) -> None:
        """Start it with the targets that Cinder made, as Debian's own service does."""
        for folder in (self.volumes, self.images, self.commands):
            folder.mkdir(parents=True, exist_ok=True)
        conf = self.folder / "targets.conf"
        conf.write_text(f"include {self.volumes}/*\n")
        admin = self.commands / "tgt-admin"
        admin.write_text(f'#!/bin/sh\nexec /usr/sbin/tgt-admin --conf {shlex.quote(str(conf))} "$@"\n')
        admin.chmod(0o755)
        super().start()
        if not wait_until(self._answers, timeout=90):
            raise LabError(f"tgtd of lab '{self.paths.name}' does not answer: {self.last_words()}")
        self._command(str(admin), "--execute")

    def stop(self, timeout: float = 0) -> None:  # noqa: ARG002 - as every daemon
        """It would ignore a friendlier signal as long as there are targets."""
        self.kill()

    def names(self) -> list[str]:
        """The targets that it serves."""
        lines = self._command("tgtadm", "--lld", "iscsi", "--op", "show", "--mode", "target").splitlines()
        return [line.split()[-1] for line in lines if line.startswith("Target ")]

    def _answers(self) -> bool:
        try:
            self.names()
        except LabError:
            return False
        return True

    def _command(self, *argv: str) -> str:
        environment = [f"{key}={value}" for key, value in self.environment.items()]
        return run(["ip", "netns", "exec", self.paths.switch_netns, "env", *environment, *argv])
