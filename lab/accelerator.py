"""Which accelerator guests get: KVM only where a short boot proves that it runs guests.

`/dev/kvm` proves nothing: inside some virtual machines it exists, opens, and hangs the first guest.
"""

import json
import select
import subprocess
import time
from pathlib import Path

from lab.image import Image
from lab.paths import IMAGES
from lab.system import TIED

KVM_DEVICE = Path("/dev/kvm")
PROBE_TIMEOUT = 8.0
PROBE_ANSWER = b"LAB-PROBE-OK"
CACHE = IMAGES / "accelerator.json"


def accelerator(image: Image) -> str:
    """Return "kvm" or "tcg"; the probe runs once per boot of this machine.

    The caller holds the lab's lock.
    """
    if (known := known_accelerator()) is not None:
        return known
    found = "kvm" if KVM_DEVICE.exists() and _kvm_boots(image) else "tcg"
    CACHE.write_text(json.dumps({"boot": _boot_id(), "accelerator": found}))
    return found


def known_accelerator() -> str | None:
    """The result of a probe since the machine's last boot, if there was one."""
    try:
        cached = json.loads(CACHE.read_text())
    except (OSError, ValueError):
        return None
    return str(cached["accelerator"]) if cached["boot"] == _boot_id() else None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _kvm_boots(image: Image) -> bool:
    """Boot the guest's own kernel and wait for its one word."""
    argv = [
        *TIED,
        "qemu-system-x86_64", "-accel", "kvm", "-machine", "q35", "-m", "128", "-nodefaults", "-no-reboot",
        "-display", "none", "-serial", "stdio", "-kernel", str(image.kernel), "-initrd", str(image.initrd),
        "-append", "console=ttyS0 quiet panic=-1 lab.probe",
    ]  # fmt: skip
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as probe:
        try:
            return _says(probe, PROBE_ANSWER, time.monotonic() + PROBE_TIMEOUT)
        finally:
            probe.kill()


def _says(process: subprocess.Popen[bytes], answer: bytes, deadline: float) -> bool:
    """Read the process's output until the answer, its end, or the deadline."""
    assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
    heard = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], left)[0]:
            data = process.stdout.read1(4096)  # type: ignore[attr-defined]
            if not data:
                return False
            heard += data
            if answer in heard:
                return True
    return False
