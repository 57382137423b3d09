"""libvirt secrets: what QEMU shows to Ceph and to an iSCSI target. Their values appear in no error."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, tostring

import libvirt

from resizeflow.drivers.hypervisor import SecretFacts, SecretSpec
from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.libvirt.elements import add, parse, text
from resizeflow.drivers.libvirt.session import Session
from resizeflow.drivers.secret import Secret

_OURS = "resizeflow migration "
"""What the description of a secret of ours begins with; the migration's id follows."""
_USED_BY = {"ceph": ("name", "resizeflow {uuid}"), "iscsi": ("target", "resizeflow-{uuid}")}
"""How libvirt's secrets of each kind name their use, which no two secrets may have in common."""


def secret_facts(session: Session) -> tuple[SecretFacts, ...]:
    """All secrets of the host; one that vanishes meanwhile is left out."""
    with session.asking("list its secrets"):
        return tuple(sorted(_listed(session), key=lambda secret: secret.uuid))


def secret_value(session: Session, uuid: str) -> Secret | None:
    """The value of a secret, None if it has none."""
    with session.asking(f"give the value of secret {uuid}"):
        secret = _find(session, uuid)
        try:
            return Secret(secret.value(0))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
                return None
            raise


def define(session: Session, spec: SecretSpec) -> None:
    """Makes a secret and gives it its value, in two calls: libvirt knows no single one.

    libvirt refuses it for a UUID whose secret serves another use: one that is not ours is neither changed nor taken.
    """
    if spec.kind not in _USED_BY:
        raise Refused(f"{session.host}: a secret of kind '{spec.kind}' is not one that a disk uses.")
    with session.asking(f"define secret {spec.uuid}"):
        session.fence()
        secret = session.connection.secretDefineXML(_secret_xml(spec), 0)
        session.fence()
        secret.setValue(spec.secret.value, 0)


def undefine(session: Session, uuid: str) -> None:
    """Forgets a secret."""
    with session.asking(f"undefine secret {uuid}"):
        secret = _find(session, uuid)
        session.fence()
        secret.undefine()


def _find(session: Session, uuid: str) -> libvirt.virSecret:
    """The secret as libvirt's object. Raises `Missing`: only here, since a start also fails for want of a secret."""
    try:
        return session.connection.secretLookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
            raise Missing(f"{session.host} has no secret {uuid}.") from None
        raise


def _listed(session: Session) -> Iterator[SecretFacts]:
    for secret in session.connection.listAllSecrets(0):
        try:
            root = parse(secret.XMLDesc(0))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
                raise
            continue
        usage, description = root.find("usage"), text(root, "description") or ""
        yield SecretFacts(
            uuid=secret.UUIDString(),
            kind="none" if usage is None else usage.get("type", ""),
            migration=description.removeprefix(_OURS) if description.startswith(_OURS) else None,
        )


def _secret_xml(spec: SecretSpec) -> str:
    secret = Element("secret", {"ephemeral": "no", "private": "no"})
    add(secret, "uuid", spec.uuid)
    add(secret, "description", _OURS + spec.migration)
    name, use = _USED_BY[spec.kind]
    add(add(secret, "usage", type=spec.kind), name, use.format(uuid=spec.uuid))
    return tostring(secret, encoding="unicode")
