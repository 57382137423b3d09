"""The definition of a lab guest: what an operator might have, down to the details that a move has to keep."""

from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from lab.attachment import Attached
from lab.image import Image
from lab.network import BRIDGE
from lab.system import LabError

METADATA_NAMESPACE = "urn:resizeflow:lab"
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on audit=0 nokaslr no_timer_check"
)
"""`no_timer_check`: an emulated machine on a busy host may get no timer interrupt while the kernel looks for one."""
LETTERS = "abcdefghijklmnop"


@dataclass(frozen=True)
class DiskSpec:
    """A disk to make for a new guest."""

    size_gb: int = 1
    format: str = "qcow2"

    @classmethod
    def parse(cls, text: str) -> "DiskSpec":
        """Read `1G:qcow2`; the format may be left out."""
        size, _, image_format = text.partition(":")
        image_format = image_format or "qcow2"
        number = size.upper().removesuffix("G")
        if not number.isdigit() or int(number) == 0 or image_format not in {"qcow2", "raw"}:
            raise LabError(f"'{text}' is no disk: write a size and a format, as in 1G:qcow2 or 2G:raw")
        return cls(int(number), image_format)


@dataclass(frozen=True)
class GuestFacts:
    """What makes a guest itself, wherever it runs."""

    name: str
    uuid: str
    ip: str
    mac: str
    vnc_password: str
    volumes: list[str] = field(default_factory=list)
    """Those that were made in Cinder for it."""


@dataclass(frozen=True)
class Disk:
    """A disk that exists in a pool."""

    path: Path
    format: str


def definition(
    facts: GuestFacts,
    *,
    accelerator: str,
    image: Image,
    vcpus: int,
    memory_mb: int,
    disks: list[Disk],
    volumes: list[Attached],
) -> str:
    """The domain's XML, with the volumes behind the disks. The address is on the kernel's command line, so it travels
    with the definition."""
    command_line = f"{KERNEL_COMMAND_LINE} lab.ip={facts.ip} lab.hostname={facts.name}"
    return f"""\
<domain type={quoteattr("kvm" if accelerator == "kvm" else "qemu")}>
  <name>{escape(facts.name)}</name>
  <uuid>{facts.uuid}</uuid>
  <title>Lab guest {escape(facts.name)}</title>
  <description>Counts its boots and reports what it is on its serial console.</description>
  <metadata>
    <lab:guest xmlns:lab={quoteattr(METADATA_NAMESPACE)} ip={quoteattr(facts.ip)}>
      <lab:owner>operations</lab:owner>
    </lab:guest>
  </metadata>
  <memory unit='MiB'>{memory_mb}</memory>
  <currentMemory unit='MiB'>{memory_mb}</currentMemory>
  <vcpu placement='static'>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{image.kernel}</kernel>
    <initrd>{image.initrd}</initrd>
    <cmdline>{escape(command_line)}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
{"".join(_disk(number, disk) for number, disk in enumerate(disks))}\
{"".join(volume.disk(f"vd{LETTERS[number]}") for number, volume in enumerate(volumes, len(disks)))}\
    <interface type='bridge'>
      <mac address='{facts.mac}'/>
      <source bridge='{BRIDGE}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <serial type='file'>
      <source path={quoteattr(serial_path(facts.name))} append='on'/>
      <target port='0'/>
    </serial>
    <console type='file'>
      <source path={quoteattr(serial_path(facts.name))} append='on'/>
      <target type='serial' port='0'/>
    </console>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1' passwd={quoteattr(facts.vnc_password)}/>
    <video><model type='vga'/></video>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
"""


def serial_path(guest: str) -> str:
    """Where a host keeps a guest's serial log, as the host sees it: the same on every host."""
    return f"/var/log/libvirt/qemu/{guest}.serial"


def disk_name(guest: str, number: int, image_format: str) -> str:
    """The volume's name for a guest's disk."""
    return f"{guest}-vd{LETTERS[number]}.{image_format}"


def _disk(number: int, disk: Disk) -> str:
    return f"""\
    <disk type='file' device='disk'>
      <driver name='qemu' type='{disk.format}'/>
      <source file={quoteattr(str(disk.path))}/>
      <target dev='vd{LETTERS[number]}' bus='virtio'/>
    </disk>
"""
