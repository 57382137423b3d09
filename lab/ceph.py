"""A Ceph cluster of one node, of which RBD volumes are made: a monitor, a manager, and an OSD in a sparse file.

It needs neither /etc/ceph nor the kernel: who opens an image, QEMU or the `rbd` command, knows the monitor's address
and has a key.
"""

import json
import uuid
from pathlib import Path
from typing import Any

from lab.daemon import Daemon
from lab.paths import LabPaths
from lab.system import LabError, run, wait_until

POOL = "volumes"
USER = "cinder"
MONITOR_PORT = 3300
SIZE = 20 << 30
START_SECONDS = 90.0

CONF = """\
[global]
fsid = {fsid}
mon_host = v2:{address}:{port}
public_addr = {address}
cluster_addr = {address}
ms_bind_ipv6 = false
ms_bind_msgr1 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/$name.keyring
run_dir = {folder}
admin_socket = {folder}/$name.asok
pid_file =
log_file = {folder}/$name.ceph.log
log_to_stderr = false
err_to_stderr = true
mon_cluster_log_file = {folder}/cluster.log
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
# A single OSD has nobody to renew its read lease with, after it was frozen for longer than that.
osd_pool_default_read_lease_ratio = 60
osd_crush_chooseleaf_type = 0
# A test machine's disk may be nearly full.
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mon_osd_nearfull_ratio = .95
mon_osd_backfillfull_ratio = .96
mon_osd_full_ratio = .97
# Nothing has to be gathered for the sake of many: changes and figures are known at once.
paxos_propose_interval = .05
paxos_min_wait = .01
mgr_stats_period = 1
mgr_tick_period = 1
[client]
admin_socket =
log_file =
[mon]
mon_data = {folder}/mon
[mgr]
mgr_data = {folder}/mgr
mgr_initial_modules =
[osd]
osd_data = {folder}/osd
osd_objectstore = bluestore
bluestore_block_size = {size}
bluestore_block_create = true
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
osd_memory_target = 939524096
# So long an image stays open for Ceph when its writer has lost its power; 30 by default.
osd_client_watch_timeout = 15
osd_op_num_shards = 1
osd_op_num_threads_per_shard = 2
"""

CAPABILITIES = {
    "mon.": ["mon", "allow *"],
    "client.admin": ["mon", "allow *", "osd", "allow *", "mgr", "allow *"],
    "mgr.x": ["mon", "allow profile mgr", "osd", "allow *"],
    "osd.0": ["mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"],
    f"client.{USER}": [
        "mon", "profile rbd", "osd", f"profile rbd pool={POOL}", "mgr", f"profile rbd pool={POOL}",
    ],
}  # fmt: skip


class Ceph:
    """The cluster at a lab's switch."""

    def __init__(self, paths: LabPaths, folder: Path, address: str) -> None:
        self.paths = paths
        self.folder = folder
        self.address = address
        parts = {"mon": "a", "mgr": "x", "osd": "0"}
        self.daemons = [
            Daemon(paths, folder, kind, [f"ceph-{kind}", "-f", "-i", name, "-c", str(self.conf)])
            for kind, name in parts.items()
        ]

    @property
    def conf(self) -> Path:
        """The configuration file that every client may use; it says where the keyrings are."""
        return self.folder / "ceph.conf"

    @property
    def keyring(self) -> Path:
        """The key of the user that Cinder and QEMU are."""
        return self.folder / f"client.{USER}.keyring"

    def key(self) -> str:
        """That key, as a libvirt secret takes it: in base64."""
        return run(["ceph-authtool", "--print-key", str(self.keyring), "--name", f"client.{USER}"]).strip()

    def start(self) -> None:
        """Make the cluster, if it is not there, start what does not run, and wait until it serves."""
        made = (self.folder / "made").exists()
        if not made:
            self._make()
        for daemon in self.daemons:
            daemon.start()
        if not made:
            self.command("osd", "pool", "create", POOL, "8")
            self.command("osd", "pool", "application", "enable", POOL, "rbd")
            (self.folder / "made").touch()
        if not wait_until(self.serves, START_SECONDS, interval=0.2):
            said = "; ".join(f"{daemon.name}: {daemon.last_words()}" for daemon in self.daemons)
            raise LabError(f"Ceph of lab '{self.paths.name}' does not serve: {said}")

    def stop(self) -> None:
        """The end that an administrator gives it."""
        for daemon in reversed(self.daemons):
            daemon.stop()

    def kill(self) -> None:
        """An end like a power cut."""
        for daemon in reversed(self.daemons):
            daemon.kill()

    def freeze(self) -> None:
        """Nobody gets an answer any more: clients hang."""
        for daemon in self.daemons:
            daemon.freeze()

    def thaw(self) -> None:
        """Go on."""
        for daemon in self.daemons:
            daemon.thaw()

    def serves(self) -> bool:
        """Whether data can be read, and is known how much there is room for: a status alone may be an old one."""
        try:
            self.rbd("ls", POOL, timeout=2)
            status = json.loads(self.command("status", "--format", "json", timeout=5))
        except (LabError, ValueError):
            return False
        groups = status["pgmap"].get("pgs_by_state", [])
        clean = bool(groups) and all(group["state_name"] == "active+clean" for group in groups)
        return clean and status["pgmap"]["bytes_avail"] > 0

    def command(self, *arguments: str, timeout: float = 60) -> str:
        """Ask the cluster with the `ceph` command, as its administrator."""
        return self._at_switch("ceph", "--conf", str(self.conf), *arguments, timeout=timeout)

    def rbd(self, *arguments: str, timeout: float = 60) -> str:
        """Ask for images with the `rbd` command, as Cinder's user."""
        return self._at_switch("rbd", "--conf", str(self.conf), "--id", USER, *arguments, timeout=timeout)

    def watchers(self, image: str) -> list[str]:
        """The addresses of those that have an image open for writing; `image` is a volume's id or an image's name."""
        status = json.loads(self.rbd("status", _image(image), "--format", "json"))
        return [str(watcher["address"]) for watcher in status["watchers"]]

    def locks(self, image: str) -> list[dict[str, Any]]:
        """The locks on an image: a writer that runs has the exclusive one."""
        found: list[dict[str, Any]] = json.loads(self.rbd("lock", "list", _image(image), "--format", "json"))
        return found

    def _at_switch(self, *argv: str, timeout: float) -> str:
        return run(["ip", "netns", "exec", self.paths.switch_netns, *argv], timeout=timeout)

    def _make(self) -> None:
        """The files of a new cluster; what a killed attempt left is thrown away."""
        self.kill()
        for folder in ("mon", "mgr", "osd"):
            run(["rm", "-rf", str(self.folder / folder)])
            (self.folder / folder).mkdir(parents=True)
        fsid = str(uuid.uuid4())
        facts = {"fsid": fsid, "address": self.address, "port": MONITOR_PORT, "size": SIZE, "folder": self.folder}
        self.conf.write_text(CONF.format(**facts))
        everybody = self.folder / "everybody.keyring"
        everybody.unlink(missing_ok=True)
        for name, capabilities in CAPABILITIES.items():
            keyring = self.folder / f"{name}.keyring"
            pairs = zip(capabilities[::2], capabilities[1::2], strict=True)
            options = [word for service, what in pairs for word in ("--cap", service, what)]
            run(["ceph-authtool", "--create-keyring", str(keyring), "--gen-key", "-n", name, *options])
            create = [] if everybody.exists() else ["--create-keyring"]
            run(["ceph-authtool", *create, str(everybody), "--import-keyring", str(keyring)])
        monitors = self.folder / "monmap"
        monitor = f"[v2:{self.address}:{MONITOR_PORT}]"
        run(["monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", monitor, str(monitors)])
        (self.folder / "mon.a.keyring").write_bytes((self.folder / "mon..keyring").read_bytes())
        conf = ["-c", str(self.conf)]
        run(["ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", str(monitors), "--keyring", str(everybody)])
        self.daemons[0].start()
        osd = str(uuid.uuid4())
        self.command("osd", "new", osd, "0")
        self._at_switch("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd, timeout=60)
        self.command("osd", "crush", "add", "osd.0", "1", "root=default", "host=lab")


def _image(name: str) -> str:
    """A volume's image is called after it by Cinder."""
    return f"{POOL}/{name if name.startswith('volume-') else f'volume-{name}'}"
