"""The ways to get a disk's content from one lab host to the other, each timed until the copy is on the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.bench import DESTINATION, GUEST, SOURCE, BenchError, Product, moment
from lab.lab import Lab
from lab.system import LabError, run, wait_until
from resizeflow.persistence.models import Event
from resizeflow.states import MigrationStatus

FLAVOR = "larger"
NBD_PORT, SSH_PORT = 10809, 2222
LIMIT = 900.0
"""Seconds that one copy may take."""
SSHD = "/usr/sbin/sshd"
SEPARATION = Path("/run/sshd")
"""An empty directory that sshd insists on."""
SSHD_CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""


@dataclass(frozen=True)
class Copied:
    """A finished copy."""

    path: Path
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    """Where the time went, by the event log."""


class Way(Protocol):
    """Copies on entering, and on leaving removes the copy."""

    def __call__(self) -> AbstractContextManager[Copied]: ...


class ByProduct:
    """The task TransferDisks of a real resize, which is reverted afterwards."""

    def __init__(self, product: Product, transfer: str) -> None:
        self._product = product
        self._transfer = transfer

    @contextmanager
    def __call__(self) -> Iterator[Copied]:
        product = self._product
        job = product.service.resize(GUEST, FLAVOR, host=DESTINATION)
        events = product.finish(job, MigrationStatus.FINISHED, self._transfer)
        with product.database.read() as tx:
            path = Path(tx.migrations.get(job.migration_id).disks[0].dest_path or "")
        synced = _synced(path)  # nothing, if it is on the disk as it should be
        seconds = moment(events, "TransferDisks done") - moment(events, "TransferDisks started")
        yield Copied(path, seconds + synced, _parts(events, seconds))
        product.finish(product.service.revert(GUEST), MigrationStatus.REVERTED)


class ByHand:
    """A copy into a file in the destination's pool."""

    def __init__(self, lab: Lab, source: Path, folder: Path) -> None:
        self.source = lab.host(SOURCE)
        self.destination = lab.host(DESTINATION)
        self.disk = source
        self.folder = folder

    @contextmanager
    def local_copy(self) -> Iterator[Copied]:
        """`cp`, with no network between."""
        with self._timed() as (copy, began):
            run(["cp", "--sparse=always", str(self.disk), str(copy)], timeout=LIMIT)
            yield _copied(copy, began)

    @contextmanager
    def nbd(self) -> Iterator[Copied]:
        """`qemu-nbd` on the source, `qemu-img convert` on the destination: needs an agent on both."""
        with self._timed() as (copy, began):
            size = self._virtual_size()
            run(["qemu-img", "create", "-q", "-f", "qcow2", str(copy), size])
            with self._nbd_server() as url:
                convert = ["qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "qcow2", url, str(copy)]
                self.destination.netns_exec(convert, timeout=LIMIT)
            yield _copied(copy, began)

    @contextmanager
    def rsync(self) -> Iterator[Copied]:
        """`rsync --sparse` over ssh, pushed by the source, as Nova does it with its rsync transport."""
        with self._ssh_server() as ssh, self._timed() as (copy, began):
            target = f"root@{self.destination.address}:{copy}"
            command = ["rsync", "--sparse", "-e", " ".join(ssh), str(self.disk), target]
            self.source.netns_exec(command, timeout=LIMIT)
            yield _copied(copy, began)

    @contextmanager
    def _timed(self) -> Iterator[tuple[Path, float]]:
        """Where to copy to, and when it began."""
        copy = self.destination.pool_path / "by-hand.qcow2"
        try:
            yield copy, time.monotonic()
        finally:
            copy.unlink(missing_ok=True)

    def _virtual_size(self) -> str:
        info = run(["qemu-img", "info", str(self.disk)])
        return info.partition(" bytes)")[0].rpartition("(")[2]

    @contextmanager
    def _nbd_server(self) -> Iterator[str]:
        ready = self.folder / "nbd.pid"
        command = [
            "qemu-nbd", "--persistent", "--read-only", "--format=qcow2", f"--bind={self.source.address}",
            f"--port={NBD_PORT}", f"--pid-file={ready}", str(self.disk),
        ]  # fmt: skip
        with self._daemon(SOURCE, command) as server:
            if not wait_until(lambda: ready.exists() or server.poll() is not None, 10, interval=0.01):
                raise BenchError("qemu-nbd does not get ready")
            yield f"nbd://{self.source.address}:{NBD_PORT}"
        ready.unlink(missing_ok=True)

    @contextmanager
    def _ssh_server(self) -> Iterator[list[str]]:
        """A server on the destination's lab address, with keys that exist as long as it does; how to log in."""
        folder = self.folder / "ssh"
        folder.mkdir()
        made = not SEPARATION.exists()
        SEPARATION.mkdir(exist_ok=True)
        try:
            for key in ("host", "user"):
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)])
            address = self.destination.address
            (folder / "known").write_text(f"[{address}]:{SSH_PORT} {(folder / 'host.pub').read_text()}")
            (folder / "config").write_text(SSHD_CONFIG.format(address=address, port=SSH_PORT, folder=folder))
            ssh = ["ssh", "-F", "none", "-p", str(SSH_PORT), "-i", str(folder / "user"), "-o", "BatchMode=yes"]
            ssh += ["-o", f"UserKnownHostsFile={folder / 'known'}"]

            def answers() -> bool:
                try:
                    self.source.netns_exec([*ssh, f"root@{address}", "true"])
                except LabError:
                    return False
                return True

            with self._daemon(DESTINATION, [SSHD, "-D", "-e", "-f", str(folder / "config")]):
                if not wait_until(answers, 10):
                    raise BenchError("sshd on the destination lets nobody in")
                yield ssh
        finally:
            shutil.rmtree(folder)
            if made:
                SEPARATION.rmdir()

    @contextmanager
    def _daemon(self, host: str, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        netns = self.source.paths.netns(host)
        with subprocess.Popen(["ip", "netns", "exec", netns, *command], stderr=subprocess.DEVNULL) as daemon:
            try:
                yield daemon
            finally:
                daemon.terminate()


def _copied(copy: Path, began: float) -> Copied:
    _synced(copy)
    return Copied(copy, time.monotonic() - began)


def _synced(path: Path) -> float:
    """Writes a file to the disk; how long that took."""
    began = time.monotonic()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return time.monotonic() - began


def _parts(events: Sequence[Event], seconds: float) -> dict[str, float]:
    """Seconds of each kind of effect on the hosts, and what is left: the copy with the waiting for its end."""
    parts: dict[str, float] = defaultdict(float)
    for event in events:
        if event.task == "TransferDisks" and event.kind == "effect" and "seconds" in event.data:
            parts[event.text.partition(" on ")[0]] += event.data["seconds"]
    parts["copy"] = seconds - sum(parts.values())
    return dict(parts)
