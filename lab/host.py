"""One host of the lab: its libvirtd, its link, its power switch."""

import shlex
import shutil
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from lab import init_process, network
from lab.accelerator import KVM_DEVICE, known_accelerator
from lab.hostfiles import MASK_KVM, START_SCRIPT, write_files
from lab.image import build_directory
from lab.paths import CAPABILITIES, IMAGES, ROOT, LabPaths
from lab.processes import (
    alive,
    belongs,
    kill_lab_processes,
    lab_processes,
    processes_named,
    send_signal,
    stopped,
)
from lab.system import LabError, run, wait_until
from lab.vlans import MANAGEMENT, Vlans

POOL = "default"
_IDENTITY = uuid.UUID("6c0f7f3c-8d0b-4f0e-9f2e-5b1f0c7d5a11")


class Host:
    """A libvirt host with its own network, mount and UTS namespaces."""

    bridge = network.BRIDGE
    pool = POOL

    def __init__(self, paths: LabPaths, name: str) -> None:
        self.paths = paths
        self.name = name

    def __repr__(self) -> str:
        return f"Host({self.paths.name}/{self.name})"

    @property
    def uuid(self) -> str:
        """The host_uuid of its libvirtd, the same each time the lab is built."""
        return str(uuid.uuid5(_IDENTITY, f"{self.paths.name}/{self.name}"))

    @property
    def hostname(self) -> str:
        """The host's own name for itself: unique on this machine, as libvirt demands of two that migrate."""
        return f"{self.name}.{self.paths.name}.lab"

    @property
    def directory(self) -> Path:
        """Everything of this host that is a file, as seen from outside."""
        return self.paths.host_directory(self.name)

    @property
    def address(self) -> str:
        """Where the other hosts reach it."""
        return network.host_address(self.name)

    @property
    def uri(self) -> str:
        """Where a worker on this machine reaches its libvirtd."""
        return f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock"

    @property
    def peer_uri(self) -> str:
        """Where the other hosts' libvirtd reach it, for peer-to-peer migration."""
        return f"qemu+tcp://{self.address}/system"

    @property
    def shell(self) -> str | None:
        """What to write before a command on its bridge's VLANs to run it there; None if the lab has none."""
        vlans = Vlans(self.paths)
        return shlex.join(vlans.shell(self.paths.netns(self.name))) if vlans.exist() else None

    @property
    def pool_path(self) -> Path:
        """The directory of its storage pool: the same path inside and outside, but no other host sees it."""
        return self.directory / "pool"

    def serial_log(self, guest: str) -> Path:
        """What a guest said while it ran here, as seen from outside."""
        return self.directory / "log/qemu" / f"{guest}.serial"

    @property
    def _capabilities(self) -> Path:
        """Where libvirtd remembers what QEMU can do; it looks itself whether that is still true."""
        return self.directory / "cache/qemu/capabilities"

    def build(self, hosts: dict[str, str], pool_size: str | None) -> None:
        """Make or repair the host, all but its daemon. Hosts are given as name → address."""
        if not network.usable(self.paths.netns(self.name)):
            self.die()  # what still runs is in a network that can no longer be reached
        write_files(self.directory, address=self.address, uuid=self.uuid, hostname=self.hostname, hosts=hosts)
        if pool_size is not None:
            self._limit_pool(pool_size)
        if CAPABILITIES.exists() and not self._capabilities.exists():
            shutil.copytree(CAPABILITIES, self._capabilities)
        network.build_host(self.paths, self.name)

    def learn_capabilities(self) -> None:
        """Have libvirtd ask QEMU what it can do, which takes seconds, and keep the answer for other hosts."""
        self.virsh("capabilities")
        with build_directory() as build:
            shutil.copytree(self._capabilities, build / "capabilities")
            (build / "capabilities").rename(CAPABILITIES)

    def virsh(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Ask the host's libvirtd through virsh: a process of its own, which a hung daemon cannot keep."""
        return run(["virsh", "-q", "-c", self.uri, *arguments], stdin=stdin, timeout=timeout)

    def processes(self) -> list[int]:
        """Every process of the host."""
        return lab_processes(self.paths, self.name)

    def qemu_pids(self) -> list[int]:
        """The host's running machines, as processes."""
        return processes_named(self.processes(), "qemu-system-")

    def libvirtd_pid(self) -> int | None:
        """The host's libvirtd, or None if it is down."""
        try:
            pid = int((self.directory / "run/libvirtd.pid").read_text())
        except (OSError, ValueError):
            return None
        is_ours = belongs(pid, self.paths, self.name) and processes_named([pid], "libvirtd")
        return pid if is_ours else None

    def state(self) -> str:
        """What an operator would see: up, hung, or down."""
        pid = self.libvirtd_pid()
        if pid is None:
            return "down"
        return "hung" if stopped(pid) else "up"

    def start_libvirtd(self) -> None:
        """Start the daemon if it is down, wake it if it hangs, and wait until it answers.

        Machines that run are found again.
        """
        if self.libvirtd_pid() is None:
            # One may run that nobody knows: its starter was killed before it could write its number down.
            for stray in processes_named(self.processes(), "libvirtd"):
                send_signal(stray, signal.SIGKILL)
            mask = KVM_DEVICE.exists() and known_accelerator() != "kvm"
            script = START_SCRIPT.format(
                mask_kvm=MASK_KVM.format(directory=self.directory) if mask else "",
                root=ROOT, images=IMAGES, directory=self.directory, hostname=self.hostname,
                init=shlex.join([sys.executable, "-I", "-S", init_process.__file__]),
                pid_file=self.directory / "run/libvirtd.pid",
            )  # fmt: skip
            enter = ["ip", "netns", "exec", self.paths.netns(self.name), "unshare", "--mount", "--uts"]
            run([*enter, "sh", "-c", script])
        if self.state() == "hung":
            self.unhang_libvirtd()
        try:
            self.virsh("uri")
        except LabError:
            raise LabError(f"libvirtd of {self.name} does not answer: {self._last_words()}") from None
        self._ensure_pool()

    def kill_libvirtd(self) -> None:
        """SIGKILL the daemon; its machines run on."""
        if (pid := self.libvirtd_pid()) is not None:
            send_signal(pid, signal.SIGKILL)
            if not wait_until(lambda: not alive(pid), timeout=60):
                raise LabError(f"libvirtd of {self.name} (process {pid}) does not die")

    def hang_libvirtd(self) -> None:
        """SIGSTOP the daemon: it accepts connections and never answers."""
        self._signal_libvirtd(signal.SIGSTOP)

    def unhang_libvirtd(self) -> None:
        """Let a hung daemon go on."""
        self._signal_libvirtd(signal.SIGCONT)

    def cut_link(self) -> None:
        """Pull the network cable; the daemon stays reachable by its local socket."""
        network.set_link(self.paths, self.name, up=False)

    def restore_link(self) -> None:
        """Plug the network cable in again."""
        network.set_link(self.paths, self.name, up=True)

    def link_is_up(self) -> bool:
        """Whether the cable is plugged in."""
        return network.link_is_up(self.paths, self.name)

    def die(self) -> None:
        """Power loss: daemon and machines are gone at once, and so is what a real host keeps in memory."""
        if left := kill_lab_processes(self.paths, self.name):
            raise LabError(f"processes of {self.name} do not die: {left}")
        shutil.rmtree(self.directory / "run", ignore_errors=True)

    def boot(self) -> None:
        """Power on again: machines with autostart start, others stay off."""
        (self.directory / "run").mkdir(exist_ok=True)
        if (vlans := Vlans(self.paths)).exist():
            vlans.reset(self.paths.netns(self.name), network.UPLINK)
        self.start_libvirtd()

    @property
    def carried_vlans(self) -> set[int]:
        """Those that its uplink brings, but for the one by which it is reached."""
        return Vlans(self.paths).of(self.paths.netns(self.name), network.UPLINK) - {MANAGEMENT}

    def place_in_vlan(self, guest: str, vlan: int) -> None:
        """As its operator would: the uplink takes the VLAN, a guest that runs is in it and in no other."""
        vlans, netns = Vlans(self.paths), self.paths.netns(self.name)
        vlans.add(netns, network.UPLINK, vlan)
        for line in self.virsh("domiflist", guest).splitlines():
            vlans.add(netns, line.split()[0], vlan, "pvid", "untagged")

    def netns_exec(self, argv: Sequence[str], timeout: float = 60) -> str:
        """Run a command in the host's network."""
        return run(["ip", "netns", "exec", self.paths.netns(self.name), *argv], timeout=timeout)

    def _signal_libvirtd(self, number: signal.Signals) -> None:
        pid = self.libvirtd_pid()
        if pid is None:
            raise LabError(f"libvirtd of {self.name} does not run")
        send_signal(pid, number)

    def _limit_pool(self, size: str) -> None:
        """Give the pool a file system of its own, of a limited size."""
        mounted = self.pool_path.is_mount()
        if not mounted and (self.libvirtd_pid() is not None or any(self.pool_path.iterdir())):
            raise LabError(f"the pool of {self.name} is there already, without a limit: take the lab down first")
        options = f"{'remount,' if mounted else ''}size={size}"
        run(["mount", "-t", "tmpfs", "-o", options, "lab-pool", str(self.pool_path)])

    def _last_words(self) -> str:
        """The last error in the daemon's log."""
        log = self.directory / "log/libvirtd.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        errors = [line.partition(" : ")[2] for line in lines if ": error :" in line]
        return errors[-1] if errors else "its log says nothing"

    def _ensure_pool(self) -> None:
        """The storage pool: defined, started, and started again with the host."""
        if POOL not in self.virsh("pool-list", "--all", "--name").split():
            self.virsh("pool-define-as", POOL, "dir", "--target", str(self.pool_path))
            self.virsh("pool-autostart", POOL)
        if POOL not in self.virsh("pool-list", "--name").split():
            self.virsh("pool-start", POOL)
        self.virsh("pool-refresh", POOL)
