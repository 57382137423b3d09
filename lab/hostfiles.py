"""What a host's libvirtd is configured with, and the script that gives it a machine of its own."""

from pathlib import Path

LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_dir = "/run/libvirt"
host_uuid = "{uuid}"
# A client that is stopped is dropped after three seconds.
keepalive_interval = 1
keepalive_count = 2
log_filters = "3:util.object 3:rpc"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
vnc_listen = "127.0.0.1"
migration_address = "{address}"
migration_host = "{address}"
"""

# Each host sees its own directories in the places where libvirt looks, and of the lab's directory only itself
# and the shared image: a definition that names another host's pool has to fail, as it would between machines.
START_SCRIPT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs staging /mnt
mkdir /mnt/host /mnt/images
mount --rbind {directory} /mnt/host
mount --bind {images} /mnt/images
mount -t tmpfs lab {root}
mkdir -p {directory} {images}
mount --rbind /mnt/host {directory}
mount --bind /mnt/images {images}
umount -l /mnt
mkdir -p /run/libvirt /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount --bind {directory}/run /run/libvirt
mount --bind {directory}/etc /etc/libvirt
mount --bind {directory}/lib /var/lib/libvirt
mount --bind {directory}/log /var/log/libvirt
mount --bind {directory}/cache /var/cache/libvirt
for file in hosts passwd group; do mount --bind {directory}/etc/$file /etc/$file; done
{mask_kvm}
hostname {hostname}
cd /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \\
    {init} libvirtd --daemon --listen --config {directory}/etc/libvirtd.conf --pid-file {pid_file}
"""

# Debian's libvirtd does not start without this user, although its configuration says root: the package that
# makes it would also start a libvirtd of the machine's own.
LIBVIRT_USER = {
    "passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin",
    "group": "libvirt-qemu:x:64055:",
}

# Where KVM does not run guests its device only misleads: libvirt would offer it, and probe it for seconds. A
# read-only file in its place is what libvirt takes for "no KVM", also for root.
MASK_KVM = "mount --bind {directory}/etc/hosts /dev/kvm && mount -o remount,bind,ro /dev/kvm"

DIRECTORIES = ("run", "etc", "lib", "log/qemu", "cache", "pool")


def write_files(directory: Path, *, address: str, uuid: str, hostname: str, hosts: dict[str, str]) -> None:
    """Make a host's directories and configuration files."""
    for name in DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    etc = directory / "etc"
    (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(address=address, uuid=uuid))
    (etc / "qemu.conf").write_text(QEMU_CONF.format(address=address))
    names = {"127.0.0.1": "localhost", **{host: name for name, host in hosts.items()}}
    names[address] = f"{hostname} {names.get(address, '')}"
    (etc / "hosts").write_text("".join(f"{where} {what}\n" for where, what in names.items()))
    for file, line in LIBVIRT_USER.items():
        known = Path("/etc", file).read_text()
        user = line.partition(":")[0]
        (etc / file).write_text(known + ("" if f"\n{user}:" in known else f"{line}\n"))
