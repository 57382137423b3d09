"""The storage of a lab: Ceph, an iSCSI target, an NFS server, and the Cinder that makes volumes of them.

    lab.up(hosts=2, volumes=True)
    volume = lab.volumes.cinder.create_volume("rbd", 1)
    lab.volumes.ceph.watchers(volume)

All of it runs at the lab's switch, under an address of its own, and ends with `lab.down()`.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from lab import network, openstack_environment, storage_network
from lab.ceph import Ceph
from lab.cinder import Cinder
from lab.iscsi import Targets
from lab.nfs import Exports
from lab.paths import ROOT, LabPaths
from lab.system import LabError, locked, require_programs, require_root

PROGRAMS = {
    "ceph": "ceph-common",
    "rbd": "ceph-common",
    "ceph-mon": "ceph-mon",
    "ceph-mgr": "ceph-mgr",
    "ceph-osd": "ceph-osd",
    "tgtd": "tgt",
    "ganesha.nfsd": "nfs-ganesha",
    "rpcbind": "rpcbind",
}


class Volumes:
    """The storage of one lab: stopped until `up`, and found again by whoever asks for it."""

    def __init__(self, paths: LabPaths) -> None:
        self.paths = paths

    @property
    def folder(self) -> Path:
        """All its files."""
        return self.paths.directory / "volumes"

    def exist(self) -> bool:
        """Whether the lab has storage."""
        return self._note.exists()

    @cached_property
    def address(self) -> str:
        """Where hosts and this machine reach it."""
        try:
            return self._note.read_text().strip()
        except FileNotFoundError:
            raise LabError(f"lab '{self.paths.name}' has no volumes: bring it up with --volumes") from None

    @cached_property
    def ceph(self) -> Ceph:
        """The cluster of the RBD volumes."""
        return Ceph(self.paths, self.folder / "ceph", self.address)

    @cached_property
    def targets(self) -> Targets:
        """The daemon of the iSCSI volumes."""
        return Targets(self.paths, self.folder / "iscsi", self.address)

    @cached_property
    def exports(self) -> Exports:
        """The server of the NFS volumes."""
        return Exports(self.paths, self.folder / "nfs", self.address)

    @cached_property
    def cinder(self) -> Cinder:
        """The volume service."""
        folder = self.folder / "cinder"
        ceph, targets, exports = self.ceph, self.targets, self.exports
        return Cinder(self.paths, folder, self.address, ceph=ceph, targets=targets, exports=exports)

    def up(self) -> None:
        """Build or repair, start what does not run, and wait until volumes can be made."""
        require_root()
        require_programs(PROGRAMS)
        openstack_environment.program("python")
        with locked(ROOT):
            self.paths.guests.mkdir(parents=True, exist_ok=True)
            network.build_switch(self.paths)
            self.folder.mkdir(exist_ok=True)
            storage_network.build(self.paths, self._note)
        for part in (self.ceph, self.targets, self.exports):
            part.folder.mkdir(exist_ok=True)
        with ThreadPoolExecutor() as pool:
            prepared = pool.submit(self.cinder.prepare)
            for started in [pool.submit(part.start) for part in (self.ceph, self.targets, self.exports)]:
                started.result()
            prepared.result()
        self.cinder.start()

    @property
    def _note(self) -> Path:
        return self.folder / "address"
