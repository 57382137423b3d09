"""A lab: hosts, the switch between them, and the guest's image. Built, repaired, listed, and taken down."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab import network, storage_network
from lab.accelerator import accelerator, known_accelerator
from lab.host import Host
from lab.image import Image, build_image, image, sweep_builds
from lab.paths import CAPABILITIES, IMAGES, ROOT, SWITCH, LabPaths
from lab.processes import kill_lab_processes, lab_processes
from lab.system import LabError, locked, require_programs, require_root, run
from lab.vlans import Peer, Vlans
from lab.volumes import Volumes

MAX_HOSTS = 80
PROGRAMS = {
    "libvirtd": "libvirt-daemon",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "mke2fs": "e2fsprogs",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "depmod": "kmod",
    "unshare": "util-linux",
}


class Lab:
    """A named set of real libvirt hosts on this machine."""

    def __init__(self, name: str = "default") -> None:
        self.paths = LabPaths(name)

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.paths.name

    @property
    def hosts(self) -> list[Host]:
        """The hosts that were built."""
        return [Host(self.paths, name) for name in self.paths.host_names()]

    @property
    def volumes(self) -> Volumes:
        """The storage of the lab, if it was brought up with volumes."""
        return Volumes(self.paths)

    @property
    def vlans(self) -> Vlans:
        """The VLANs of the lab, if it was brought up with them."""
        return Vlans(self.paths)

    @property
    def image(self) -> Image:
        """What guests boot from."""
        return image()

    @property
    def accelerator(self) -> str:
        """What guests run on: "kvm" or "tcg"."""
        if (known := known_accelerator()) is not None:
            return known
        with locked(ROOT):
            return accelerator(build_image())

    def host(self, name: str) -> Host:
        """One host by its name."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts) or "none"
        raise LabError(f"lab '{self.name}' has no host '{name}' (it has: {known})")

    def exists(self) -> bool:
        """Whether anything of the lab is there."""
        return self.paths.directory.exists() or bool(self.paths.netns_names())

    def up(self, hosts: int = 2, pool_size: str | None = None, *, volumes: bool = False, vlans: bool = False) -> None:
        """Bring up hosts h1 to hN, storage for volumes, bridges that filter VLANs. Repeatable: what is there and works
        stays, what is missing is built."""
        require_root()
        require_programs(PROGRAMS)
        if not 1 <= hosts <= MAX_HOSTS:
            raise LabError(f"a lab has 1 to {MAX_HOSTS} hosts, not {hosts}")
        if pool_size is not None and not re.fullmatch(r"[1-9]\d*[KMG]", pool_size):
            raise LabError(f"'{pool_size}' is no size for a pool: write it as in 512M or 3G")
        with locked(ROOT):
            accelerator(build_image())
            self.paths.guests.mkdir(parents=True, exist_ok=True)
            network.build_switch(self.paths)
            if vlans and not self.vlans.exist():
                self.vlans.up()
                network.build_switch(self.paths)
            names = sorted({f"h{number}" for number in range(1, hosts + 1)} | set(self.paths.host_names()))
            addresses = {name: network.host_address(name) for name in names}
            built = [Host(self.paths, name) for name in names]
            for host in built:
                host.build(addresses, pool_size)
            with ThreadPoolExecutor(max_workers=8) as pool:
                list(pool.map(Host.start_libvirtd, built))
            if not CAPABILITIES.exists():
                built[0].learn_capabilities()
        if volumes or self.volumes.exist():
            self.volumes.up()

    def down(self) -> None:
        """Take everything down, found by name and by namespace, so that no state file is needed.

        Raises if anything is left.
        """
        require_root()
        if not ROOT.exists() and not self.exists():
            return
        with locked(ROOT):
            kill_lab_processes(self.paths)
            for mount in self._mounts():
                run(["umount", str(mount)])
            storage_network.remove(self.paths)
            network.delete_networks(self.paths)
            if self.paths.directory.exists():
                shutil.rmtree(self.paths.directory)
            sweep_builds()
            left = self.leftovers()
        if left:
            raise LabError(f"lab '{self.name}' is not all gone: {'; '.join(left)}")

    def leftovers(self) -> list[str]:
        """What is there of this lab, told one by one: empty after a clean `down`."""
        found = [f"process {pid}" for pid in lab_processes(self.paths)]
        found += [f"mount {mount}" for mount in self._mounts()]
        found += [f"network namespace {name}" for name in self.paths.netns_names()]
        if self.paths.directory.exists():
            found.append(f"directory {self.paths.directory}")
        return found

    @property
    def at_switch(self) -> list[str]:
        """What to write before a command to run it at the switch: it reaches the hosts by their addresses only."""
        return ["ip", "netns", "exec", self.paths.switch_netns]

    def ping(self, address: str, timeout: float = 5) -> bool:
        """Whether an address in the lab answers within the time, asked from the switch."""
        return network.ping(self.paths, address, timeout)

    def add_peer(self, name: str, vlan: int, address: str, *, at: str = SWITCH) -> Peer:
        """Somebody with an address, in a VLAN, at the switch or at the bridge of a host."""
        return network.add_peer(self.paths, name, vlan, address, at)

    def remove_peer(self, name: str) -> None:
        """It goes, with its cable."""
        network.remove_peer(self.paths, name)

    def status(self) -> dict[str, Any]:
        """What an operator wants to see at a glance."""
        return {
            "name": self.name,
            "accelerator": self.accelerator if self.exists() else None,
            "hosts": [
                {
                    "name": host.name,
                    "state": host.state(),
                    "libvirtd": host.libvirtd_pid(),
                    "link": "up" if host.link_is_up() else "down",
                    "address": host.address,
                    "machines": len(host.qemu_pids()),
                    "uri": host.uri,
                    "peer_uri": host.peer_uri,
                    "pool_path": str(host.pool_path),
                }
                for host in self.hosts
            ],
            "vlans": self.vlans.exist(),
            "volumes": self.volumes.cinder.endpoint if self.volumes.exist() else None,
        }

    def _mounts(self) -> list[Path]:
        """Mounts below the lab's directory, innermost first."""
        mounts = (Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return sorted((path for path in mounts if self.paths.directory in path.parents), reverse=True)


def remove_images() -> None:
    """Remove the image cache and the labs' root, once no lab is left in it."""
    if not ROOT.exists():
        return
    with locked(ROOT):
        if IMAGES.exists():
            shutil.rmtree(IMAGES)
        if not any(ROOT.iterdir()):
            ROOT.rmdir()
