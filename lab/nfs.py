"""An NFS server of the lab's own: Ganesha, which serves version 3 from user space, and an rpcbind that tells its ports.

QEMU opens a file on it by itself (libnfs), so a host mounts nothing.
"""

import shlex
import signal
from pathlib import Path

from lab.daemon import Daemon
from lab.paths import SWITCH, LabPaths
from lab.processes import alive, lab_processes, processes_named, send_signal
from lab.system import LabError, run, wait_until

CONF = """\
NFS_CORE_PARAM {{
    Protocols = 3;
    Bind_addr = {address};
    Enable_NLM = false;
    Enable_RQUOTA = false;
}}
EXPORT_DEFAULTS {{
    SecType = sys;
    Squash = No_Root_Squash;
    Access_Type = RW;
    Transports = TCP;
    PrivilegedPort = false;
}}
EXPORT {{
    Export_Id = 1;
    Path = {export};
    Pseudo = {export};
    Filesystem_Id = 1.1;
    # Cinder changes files behind its back.
    Attr_Expiration_Time = 0;
    Protocols = 3;
    FSAL {{ Name = VFS; }}
}}
"""

# Both talk through /run and keep things in /var/lib: the machine's own are covered.
SCRIPT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs run /run
mkdir -p /run/ganesha
mount -t tmpfs nfs /var/lib/nfs
mkdir -p /var/lib/nfs/ganesha
rpcbind -w -h {address}
exec ganesha.nfsd -F -f {conf} -L {log} -p /run/ganesha/pid
"""


class Exports(Daemon):
    """A Ganesha at a lab's switch that exports one folder."""

    def __init__(self, paths: LabPaths, folder: Path, address: str) -> None:
        self.address = address
        script = SCRIPT.format(
            address=address,
            conf=shlex.quote(str(folder / "ganesha.conf")),
            log=shlex.quote(str(folder / "ganesha.log")),
        )
        super().__init__(paths, folder, "ganesha", ["unshare", "--mount", "sh", "-c", script])

    @property
    def export(self) -> Path:
        """The folder that it exports, under the same name."""
        return self.folder / "export"

    @property
    def share(self) -> str:
        """The share as Cinder and clients name it."""
        return f"{self.address}:{self.export}"

    def start(self) -> None:
        """Start both, and wait until the export can be found."""
        self.export.mkdir(parents=True, exist_ok=True)
        (self.folder / "ganesha.conf").write_text(CONF.format(address=self.address, export=self.export))
        if self.pid() is None:
            self._end_rpcbind()
        super().start()
        if not wait_until(self._answers, timeout=90):
            raise LabError(f"the NFS server of lab '{self.paths.name}' does not answer: {self.last_words()}")

    def stop(self, timeout: float = 0) -> None:  # noqa: ARG002 - as every daemon
        """There is nothing that it would have to write down."""
        self.kill()

    def kill(self) -> None:
        super().kill()
        self._end_rpcbind()

    def _end_rpcbind(self) -> None:
        """It makes a daemon of itself, and belongs to the Ganesha that is gone."""
        for pid in processes_named(lab_processes(self.paths, SWITCH), "rpcbind"):
            send_signal(pid, signal.SIGKILL)
            if not wait_until(lambda pid=pid: not alive(pid), timeout=60):  # type: ignore[misc]
                raise LabError(f"rpcbind of lab '{self.paths.name}' (process {pid}) does not die")

    def _answers(self) -> bool:
        try:
            run(["ip", "netns", "exec", self.paths.switch_netns, "rpcinfo", "-T", "tcp", self.address, "mountd", "3"])
        except LabError:
            return False
        return True
