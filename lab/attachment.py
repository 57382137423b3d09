"""A volume for a guest: made by Cinder, attached to a host through its API, and opened there by QEMU itself."""

import base64
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from lab.cinder import TYPES
from lab.system import LabError
from lab.volumes import Volumes

if TYPE_CHECKING:
    from lab.host import Host

INITIATOR = "iqn.2026-11.dev.resizeflow"


@dataclass(frozen=True)
class VolumeSpec:
    """A volume to make for a new guest, or one that is there already."""

    kind: str
    size_gb: int = 1
    volume_id: str | None = None

    @classmethod
    def parse(cls, text: str) -> "VolumeSpec":
        """Read `rbd:1G`; the size may be left out."""
        kind, _, size = text.partition(":")
        number = (size or "1G").upper().removesuffix("G")
        if kind not in TYPES or not number.isdigit() or int(number) == 0:
            raise LabError(f"'{text}' is no volume: write a type ({', '.join(TYPES)}) and a size, as in rbd:1G")
        return cls(kind, int(number))


@dataclass(frozen=True)
class Attached:
    """A volume that is attached to a host."""

    volume_id: str
    connection: dict[str, Any]
    initiator: str

    def disk(self, target: str) -> str:
        """Its disk in a domain's definition."""
        discard = " discard='unmap'" if self.connection.get("discard") else ""  # as Nova does
        return f"""\
    <disk type='network' device='disk'>
      <driver name='qemu' type='{self.connection.get("format") or "raw"}' cache='none'{discard}/>
{self._source()}
      <target dev='{target}' bus='virtio'/>
      <serial>{self.volume_id}</serial>
    </disk>
"""

    @property
    def secret(self) -> tuple[str, str] | None:
        """The UUID of the libvirt secret that the disk names, and its type."""
        match self.connection["driver_volume_type"]:
            case "rbd":
                return self.connection["secret_uuid"], "ceph"
            case "iscsi":
                return self.connection["attachment_id"], "iscsi"
        return None

    def _source(self) -> str:
        match kind := self.connection["driver_volume_type"]:
            case "rbd":
                name = self.connection["name"]
                pairs = zip(self.connection["hosts"], self.connection["ports"], strict=True)
                hosts = [f"<host name={quoteattr(host)} port={quoteattr(port)}/>" for host, port in pairs]
                more = [self._auth()]
            case "iscsi":
                name = f"{self.connection['target_iqn']}/{self.connection['target_lun']}"
                address, _, port = self.connection["target_portal"].rpartition(":")
                hosts = [f"<host name={quoteattr(address)} port={quoteattr(port)}/>"]
                more = [f"<initiator><iqn name={quoteattr(self.initiator)}/></initiator>", self._auth()]
            case "nfs":
                address, _, export = self.connection["export"].partition(":")
                name = f"{export}/{self.connection['name']}"
                hosts = [f"<host name={quoteattr(address)}/>"]
                more = ["<identity user='+0' group='+0'/>"]
            case _:
                raise LabError(f"the lab's hosts cannot open a volume by {kind}")
        lines = "\n".join(f"        {line}" for line in [*hosts, *more])
        return f"      <source protocol='{kind}' name={quoteattr(name)}>\n{lines}\n      </source>"

    def _auth(self) -> str:
        if (secret := self.secret) is None:
            return ""
        user = quoteattr(self.connection["auth_username"])
        return f"<auth username={user}><secret type='{secret[1]}' uuid='{secret[0]}'/></auth>"


def initiator(host: "Host") -> str:
    """The name that a host has as an iSCSI initiator."""
    return f"{INITIATOR}:{host.uuid}"


def connector(host: "Host") -> dict[str, Any]:
    """What Cinder is told of a host."""
    return {
        "host": host.name,
        "ip": host.address,
        "initiator": initiator(host),
        "multipath": False,
        "platform": "x86_64",
        "os_type": "linux",
        "do_local_attach": False,
    }


def attach(volumes: Volumes, volume_id: str, instance_id: str, host: "Host") -> Attached:
    """Attach a volume to a machine on a host, and give the host the secret that opens it."""
    client = volumes.cinder.client()
    attachment = client.attachments.create(volume_id, None, instance_id)["id"]
    connection = client.attachments.update(attachment, connector(host)).connection_info
    attached = Attached(volume_id, connection, initiator(host))
    define_secret(volumes, attached, host)
    client.attachments.complete(attachment)
    return attached


def define_secret(volumes: Volumes, attached: Attached, host: "Host") -> None:
    """A host's libvirt keeps the key of Ceph's user, and each iSCSI volume's own password."""
    if (secret := attached.secret) is None:
        return
    number, kind = secret
    if kind == "ceph":
        value = volumes.ceph.key()
        usage = f"<name>client.{attached.connection['auth_username']} secret</name>"
    else:
        value = base64.b64encode(attached.connection["auth_password"].encode()).decode()
        # Two attachments of one volume may be on one host, and a usage is unique.
        usage = f"<target>{attached.connection['target_iqn']}/{uuid.UUID(number).hex}</target>"
    xml = f"<secret ephemeral='no' private='no'><uuid>{number}</uuid><usage type='{kind}'>{usage}</usage></secret>"
    host.virsh("secret-define", "/dev/stdin", stdin=xml)
    host.virsh("secret-set-value", number, "--file", "/dev/stdin", stdin=value)


def remove(volumes: Volumes, volume_id: str, instance_id: str, hosts: Sequence["Host"]) -> None:
    """Remove a machine's attachments of a volume, the secrets that hosts have for them, and the volume, unless another
    machine has it too."""
    client = volumes.cinder.client()
    attachments = client.attachments.list(detailed=True, search_opts={"volume_id": volume_id})
    for attachment in attachments:
        if attachment.instance == instance_id:
            for host in hosts:
                with suppress(LabError):
                    host.virsh("secret-undefine", attachment.id)
            client.attachments.delete(attachment.id)
    if all(attachment.instance == instance_id for attachment in attachments):
        volumes.cinder.delete_volume(volume_id)
