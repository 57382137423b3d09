"""A real Cinder for a lab: one process that keeps its state in SQLite, with backends for RBD, iSCSI and NFS volumes."""

import hashlib
import json
import os
import shlex
import shutil
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from lab import openstack_environment
from lab.ceph import POOL, USER, Ceph
from lab.daemon import Daemon
from lab.iscsi import PORT as ISCSI_PORT
from lab.iscsi import Targets
from lab.nfs import Exports
from lab.paths import LabPaths
from lab.ports import ADDRESS, free_port
from lab.system import LabError, run, wait_until

SERVER = Path(__file__).with_name("cinder_server") / "server.py"
PORT = 8776
PROJECT = "1" * 32
"""Cinder takes no other letters than a UUID's for a project."""
VERSION = "3.71"
TYPES: dict[str, dict[str, str]] = {
    "rbd": {"volume_backend_name": "rbd"},
    "iscsi": {"volume_backend_name": "iscsi"},
    "nfs": {"volume_backend_name": "nfs"},
    "multi": {"volume_backend_name": "rbd", "multiattach": "<is> True"},
}
BACKENDS = ("rbd", "iscsi", "nfs")
START_SECONDS = 120.0
PATIENCE_SECONDS = 180.0

CONF = """\
[DEFAULT]
auth_strategy = noauth
api_paste_config = {etc}/api-paste.ini
resource_query_filters_file = {etc}/resource_filters.json
rootwrap_config = {etc}/rootwrap.conf
state_path = {folder}/state
transport_url = fake:///
osapi_volume_listen = {address}
osapi_volume_listen_port = {port}
host = lab
enabled_backends = {backends}
use_stderr = true
# Only one of the services in the process sends heartbeats.
service_down_time = 86400000
[database]
connection = sqlite:///{folder}/cinder.sqlite
[oslo_concurrency]
lock_path = {folder}/lock
[coordination]
backend_url = file://{folder}/coordination
[cinder_sys_admin]
helper_command = {programs}/privsep-helper --config-file {folder}/cinder.conf
[nova]
auth_type = none
endpoint = http://{address}:8774/v2.1
[rbd]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = rbd
rbd_ceph_conf = {ceph.conf}
rbd_pool = {pool}
rbd_user = {user}
rbd_secret_uuid = {secret}
rados_connect_timeout = 5
[iscsi]
volume_driver = file_iscsi.FileIscsiDriver
volume_backend_name = iscsi
file_iscsi_folder = {targets.images}
volumes_dir = {targets.volumes}
target_ip_address = {address}
target_port = {iscsi_port}
target_helper = tgtadm
[nfs]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
volume_backend_name = nfs
nfs_shares_config = {folder}/shares
nfs_mount_point_base = {folder}/mounts
nas_secure_file_operations = true
nas_secure_file_permissions = true
"""

# Cinder finds the share mounted already, so that it needs no NFS in the kernel; only it sees the mount. Its NFS driver
# wants to see a mount.nfs, which it does not use.
SCRIPT = """\
set -eu
mount --make-rprivate /
mount --bind {export} {mount}
exec {python} {server} --config-file {conf} --machine {machine} {port}
"""


class Cinder:
    """The volume service of a lab."""

    def __init__(
        self, paths: LabPaths, folder: Path, address: str, *, ceph: Ceph, targets: Targets, exports: Exports
    ) -> None:
        self.paths = paths
        self.folder = folder
        self.address = address
        self._ceph = ceph
        self._targets = targets
        self._exports = exports

    @property
    def port(self) -> int:
        """Its port on this machine's loopback, the same after each start."""
        note = self.folder / "port"
        if not note.exists():
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{free_port()}\n")
        return int(note.read_text())

    @property
    def endpoint(self) -> str:
        """Where it is reached from this machine."""
        return f"http://{ADDRESS}:{self.port}/v3"

    @property
    def lab_endpoint(self) -> str:
        """Where it is reached from within the lab: at the switch, and from the hosts."""
        return f"http://{self.address}:{PORT}/v3"

    @property
    def secret_uuid(self) -> str:
        """The libvirt secret that RBD disks name: each lab's is another, as its Ceph is."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"ceph.{self.paths.name}.lab"))

    @property
    def database(self) -> Path:
        """Its state, in SQLite: to look at, or to damage."""
        return self.folder / "cinder.sqlite"

    @property
    def daemon(self) -> Daemon:
        """The process."""
        share = hashlib.md5(self._exports.share.encode(), usedforsecurity=False).hexdigest()
        facts = {
            "export": self._exports.export,
            "mount": self.folder / "mounts" / share,
            "python": openstack_environment.FOLDER / "bin/python",
            "server": SERVER,
            "conf": self._conf,
        }
        quoted = {name: shlex.quote(str(value)) for name, value in facts.items()}
        script = SCRIPT.format(**quoted, machine=os.getpid(), port=self.port)
        return Daemon(self.paths, self.folder, "cinder", ["unshare", "--mount", "sh", "-c", script], self._environment)

    def start(self) -> None:
        """Start it, with the state that it had, and wait until it knows all its backends."""
        self.prepare()
        self.daemon.start()
        if not wait_until(lambda: self.pools() == len(BACKENDS), START_SECONDS, interval=0.2):
            raise LabError(f"Cinder of lab '{self.paths.name}' does not serve: {self.daemon.last_words()}")
        self._make_types()

    def stop(self) -> None:
        """The end that an administrator gives it."""
        self.daemon.stop()

    def kill(self) -> None:
        """An end like a crash, whatever it was doing."""
        self.daemon.kill()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It takes requests and never answers; what it took is done after `thaw`."""
        self.daemon.freeze()

    def thaw(self) -> None:
        """Go on."""
        self.daemon.thaw()

    def pools(self) -> int:
        """How many backends have said what room they have: only then volumes can be made. 0 if it does not answer."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.endpoint}/scheduler-stats/get_pools", headers={"X-Auth-Token": f"admin:{PROJECT}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                return len(json.load(answer)["pools"])
        except (OSError, ValueError):
            return 0

    def client(self, timeout: float = 60) -> Any:
        """A python-cinderclient that Cinder takes for an administrator and for a service such as Nova."""
        from cinderclient.client import Client  # noqa: PLC0415 - most labs have no volumes, and start quickly
        from keystoneauth1 import session, token_endpoint  # noqa: PLC0415 - as above

        login = token_endpoint.Token(f"{self.endpoint}/{PROJECT}", f"admin:{PROJECT}")
        headers = {"X-Service-Roles": "service"}
        return Client(VERSION, session=session.Session(login, timeout=timeout, additional_headers=headers))

    def create_volume(self, kind: str, size_gb: int = 1, name: str | None = None) -> str:
        """Make a volume of a type (`rbd`, `iscsi`, `nfs`, `multi`) and wait until it is there; its id."""
        client = self.client()
        made = client.volumes.create(size_gb, name=name, volume_type=kind)
        if not wait_until(lambda: client.volumes.get(made.id).status != "creating", PATIENCE_SECONDS, interval=0.2):
            raise LabError(f"Cinder of lab '{self.paths.name}' still makes volume {made.id}")
        if (status := client.volumes.get(made.id).status) != "available":
            raise LabError(f"Cinder of lab '{self.paths.name}' made volume {made.id}, but its status is {status}")
        return str(made.id)

    def delete_volume(self, volume_id: str) -> None:
        """Remove a volume with its attachments, in whatever state they are. One that is not there is removed.

        An image that was open on a host which lost its power stays open for Ceph a while, and is not removed before.
        """
        client = self.client()

        def removed() -> bool:
            found = [volume for volume in client.volumes.list() if volume.id == volume_id]
            if found and found[0].status != "deleting":
                for attachment in client.attachments.list(search_opts={"volume_id": volume_id}):
                    client.attachments.delete(attachment.id)
                client.volumes.reset_state(volume_id, "available", "detached")
                client.volumes.delete(volume_id)
            return not found

        if not wait_until(removed, PATIENCE_SECONDS, interval=0.2):
            raise LabError(f"Cinder of lab '{self.paths.name}' does not remove volume {volume_id}")

    @property
    def _conf(self) -> Path:
        return self.folder / "cinder.conf"

    @property
    def _environment(self) -> dict[str, str]:
        path = [str(openstack_environment.FOLDER / "bin"), str(self._targets.commands), str(self.folder / "bin")]
        return {
            **self._targets.environment,
            "PATH": ":".join([*path, "/usr/sbin:/usr/bin:/sbin:/bin"]),
            "PYTHONPATH": str(SERVER.parent),
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def prepare(self) -> None:
        """Its files; those of its state only the first time."""
        share = hashlib.md5(self._exports.share.encode(), usedforsecurity=False).hexdigest()
        for folder in ("state", "lock", "coordination", "bin", f"mounts/{share}"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        mount_nfs = self.folder / "bin/mount.nfs"
        mount_nfs.write_text("#!/bin/sh\nexit 1\n")
        mount_nfs.chmod(0o755)
        (self.folder / "shares").write_text(f"{self._exports.share}\n")
        manage = openstack_environment.program("cinder-manage")
        self._conf.write_text(
            CONF.format(
                etc=openstack_environment.etc("cinder").absolute(), programs=manage.parent, folder=self.folder,
                address=self.address, port=PORT, backends=",".join(BACKENDS), pool=POOL, user=USER,
                secret=self.secret_uuid, ceph=self._ceph, targets=self._targets, iscsi_port=ISCSI_PORT,
            )
        )  # fmt: skip
        if not self.database.exists():
            self._make_database(manage)

    def _make_database(self, manage: Path) -> None:
        """An empty one; it appears when it is whole."""
        new = self.folder / "new.sqlite"
        new.unlink(missing_ok=True)
        conf = self.folder / "new.conf"
        conf.write_text(self._conf.read_text().replace(str(self.database), str(new)))
        run(["env", "PYTHONWARNINGS=ignore", str(manage), "--config-file", str(conf), "db", "sync"], timeout=120)
        shutil.move(new, self.database)

    def _make_types(self) -> None:
        client = self.client()
        known = {kind.name for kind in client.volume_types.list()}
        for name, specs in TYPES.items():
            if name not in known:
                client.volume_types.create(name).set_keys(specs)
        client.quota_classes.update("default", volumes=-1, gigabytes=-1)
