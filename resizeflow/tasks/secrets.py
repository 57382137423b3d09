"""The libvirt secrets that a machine's volumes need on a host: made there before the machine starts, removed when no
domain names them any more. Their values go from Cinder, or from one host's libvirt, to another's, and are kept nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Connected
from resizeflow.drivers.hypervisor import DomainFacts, Hypervisor, SecretSpec
from resizeflow.drivers.interface import DriverError, Missing, Refused
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.volume import SecretUse, VolumeConnection
from resizeflow.persistence.models import Host, Migration
from resizeflow.states import TERMINAL
from resizeflow.tasks.base import MoveTask


def provide(task: MoveTask, migration: Migration, host: Host, volumes: Iterable[Connected]) -> None:
    """The host has the secrets that these volumes' disks name. A Ceph user's, which many machines share, is used as it
    is if the host has it, else copied from the other host. Raises DriverError if that cannot give it."""
    hypervisor = task.gate.host(host)
    for connection in (volume.connection for volume in volumes):
        use = connection.secret
        if use is None:
            continue
        if use.kind == "ceph":
            if _has(hypervisor, use):
                continue
            secret = ceph_key(task, migration, connection)
            if secret is None:
                raise DriverError(
                    f"{host.name} has no libvirt secret {use.uuid} and the other host's cannot be read: define it there"
                )
        else:
            secret = Secret((connection.password or "").encode())
        spec = SecretSpec(use.uuid, use.kind, migration.id, secret)
        task.ensure(
            lambda spec=spec: _value(hypervisor, spec.uuid) == spec.secret,  # type: ignore[misc]
            lambda spec=spec: hypervisor.define_secret(spec),  # type: ignore[misc]
            f"secret {use.uuid} on {host.name}",
        )


def ceph_key(task: MoveTask, migration: Migration, connection: VolumeConnection) -> Secret | None:
    """The key of a connection's Ceph user, from whichever host of the migration tells it."""
    if connection.secret is None:
        return None
    for host in (migration.source_host, migration.dest_host):
        try:
            value = _value(task.gate.host(host, patience=0), connection.secret.uuid) if host else None
        except (HostAway, Refused):
            continue
        if value is not None:
            return value
    return None


def remove(task: MoveTask, migration: Migration, host: Host) -> None:
    """Removes secrets of ours that no domain of the host names, of this migration and of closed ones."""
    if not migration.volumes:
        return
    hypervisor = task.gate.host(host)
    ours = [secret for secret in hypervisor.secrets() if secret.migration is not None]
    if not ours:
        return
    used = named(hypervisor.domains())
    for secret in ours:
        if secret.uuid not in used and _is_over(task, migration, secret.migration):
            task.forget(lambda uuid=secret.uuid: hypervisor.undefine_secret(uuid))  # type: ignore[misc]


def named(domains: Iterable[DomainFacts]) -> set[str]:
    """The secrets that domains name, in what runs or in what would start next."""
    xmls = {xml for domain in domains for xml in (domain.inactive_xml, domain.live_xml) if xml}
    return {uuid for xml in xmls for uuid in definition.read(xml).secrets}


def _is_over(task: MoveTask, migration: Migration, maker: str | None) -> bool:
    if maker == migration.id:
        return True
    with task.world.database.read() as tx:
        row = tx.session.get(Migration, maker)
        return row is not None and row.status in TERMINAL


def _has(hypervisor: Hypervisor, use: SecretUse) -> bool:
    """Whether a host has a secret with a value; of a private one it is believed."""
    try:
        return _value(hypervisor, use.uuid) is not None
    except Refused:
        return True


def _value(hypervisor: Hypervisor, uuid: str) -> Secret | None:
    try:
        return hypervisor.secret_value(uuid)
    except Missing:
        return None
