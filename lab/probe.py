"""Whether a host can open a volume: asked of QEMU's own block drivers, in the host's network."""

from typing import Any

from lab.attachment import Attached
from lab.host import Host
from lab.system import LabError


def why_not_open(host: Host, attached: Attached, secret: str | None) -> str | None:
    """What QEMU says if a host does not get to read a volume; None if it does.

    `secret` is the key in base64 (RBD) or the password (iSCSI); whoever was attached once knows it.
    """
    options = ",".join(f"{name}={value}" for name, value in _options(attached).items())
    in_base64 = ",format=base64" if attached.connection["driver_volume_type"] == "rbd" else ""
    objects = ["--object", f"secret,id=secret,data={secret}{in_base64}"] if attached.secret else []
    try:
        host.netns_exec(["qemu-io", *objects, "--image-opts", "-r", "-c", "read 0 512", options], timeout=30)
    except LabError as trouble:
        return str(trouble)
    return None


def _options(attached: Attached) -> dict[str, Any]:
    connection = attached.connection
    match kind := connection["driver_volume_type"]:
        case "rbd":
            pool, _, image = connection["name"].partition("/")
            return {
                "driver": "rbd",
                "pool": pool,
                "image": image,
                "server.0.host": connection["hosts"][0],
                "server.0.port": connection["ports"][0],
                "user": connection["auth_username"],
                "auth-client-required.0": "cephx",
                "key-secret": "secret",
            }
        case "iscsi":
            return {
                "driver": "iscsi",
                "transport": "tcp",
                "portal": connection["target_portal"],
                "target": connection["target_iqn"],
                "lun": connection["target_lun"],
                "initiator-name": attached.initiator,
                "user": connection["auth_username"],
                "password-secret": "secret",
            }
        case "nfs":
            address, _, export = connection["export"].partition(":")
            path = f"{export}/{connection['name']}"
            return {"driver": "nfs", "server.type": "inet", "server.host": address, "path": path}
    raise LabError(f"the lab's hosts cannot open a volume by {kind}")
