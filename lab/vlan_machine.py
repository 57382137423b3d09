"""An emulated machine with Debian's kernel, whose bridges filter VLANs: what the kernel here may not do.

Nothing but a network lives in it, which commands make and look at: `python -m lab.vlan_machine SOCKET COMMAND...` runs
one there.
"""

import base64
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.image import build_initrd, unpack_kernel
from lab.paths import IMAGES, ROOT
from lab.system import TIED, LabError, locked, wait_until

PROGRAMS = (Path("/usr/sbin/ip"), Path("/usr/sbin/bridge"))
MODULES = ("bridge", "veth", "tun", "8021q")
INIT = Path(__file__).with_name("vlan_machine_init")
KERNEL, KERNEL_MODULES, INITRD = (IMAGES / f"vlan-machine.{what}" for what in ("vmlinuz", "modules", "initrd"))
READY, BOOT_SECONDS = "VLAN-MACHINE-READY", 120.0
QEMU = (
    "qemu-system-x86_64 -machine q35 -m 256 -display none -no-reboot -nic none "
    "-append 'console=ttyS0 quiet panic=-1'"
)  # fmt: skip


class VlanMachine:
    """A running one."""

    def __init__(self, path: Path) -> None:
        self._socket = path

    @property
    def shell(self) -> str:
        """What to write before a command to run it there."""
        return shlex.join([sys.executable, "-m", "lab.vlan_machine", str(self._socket)])

    def run(self, *command: str) -> str:
        """What a command prints there. Raises LabError."""
        code, printed, said = self.answer(*command)
        if code:
            raise LabError(f"'{shlex.join(command)}' failed: {said.strip()}")
        return printed

    def answer(self, *command: str) -> tuple[int, str, str]:
        """Its exit code, its output, its errors."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(60)
            link.connect(str(self._socket))
            link.sendall(base64.b64encode(shlex.join(command).encode()) + b"\n")
            received = b""
            while not received.endswith(b"\n"):
                if not (piece := link.recv(65536)):
                    raise LabError("the machine has gone")
                received += piece
        code, *texts = received.split()
        printed, said = (base64.b64decode(text[1:]).decode() for text in texts)
        return int(code), printed, said


@contextmanager
def vlan_machine(folder: Path) -> Iterator[VlanMachine]:
    """Boots one; it ends with the context, or with this process."""
    with locked(ROOT):
        _build()
    path, console = folder / "machine", folder / "console"
    command = [*TIED, *shlex.split(QEMU), "-kernel", str(KERNEL), "-initrd", str(INITRD)]
    command += ["-serial", f"file:{console}", "-serial", f"unix:{path},server=on,wait=off"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            if not wait_until(lambda: READY in _text(console), BOOT_SECONDS):
                raise LabError(f"the machine did not boot: {_text(console)[-400:]}")
            yield VlanMachine(path)
        finally:
            process.kill()


def _build() -> None:
    """What is missing or out of date of the kernel, its modules and the root file system."""
    if not (KERNEL.exists() and KERNEL_MODULES.exists()):
        unpack_kernel(KERNEL, KERNEL_MODULES, MODULES)
    if not INITRD.exists() or INITRD.stat().st_mtime < max(INIT.stat().st_mtime, KERNEL_MODULES.stat().st_mtime):
        build_initrd(INITRD, KERNEL_MODULES, INIT, PROGRAMS)


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def main() -> int:
    """Runs one command there, as here."""
    path, *command = sys.argv[1:]
    code, printed, said = VlanMachine(Path(path)).answer(*command)
    sys.stdout.write(printed)
    sys.stderr.write(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
