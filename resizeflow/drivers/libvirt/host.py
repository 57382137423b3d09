"""A real host behind the `Hypervisor` interface, inside the child process that holds its connection."""

from __future__ import annotations

from resizeflow.drivers.hypervisor import (
    DomainFacts,
    HostFacts,
    Hypervisor,
    MergeFacts,
    PoolFacts,
    SecretFacts,
    SecretSpec,
    StreamTarget,
    VolumeFacts,
    VolumeSpec,
)
from resizeflow.drivers.libvirt import (
    announce,
    domains,
    facts,
    lifecycle,
    merges,
    pools,
    secrets,
    stream,
    swap,
    transfer,
    volumes,
)
from resizeflow.drivers.libvirt.session import Session
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.swap import Swap


class LibvirtHost(Hypervisor):
    """Each method is a function of the module that knows its subject."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def facts(self) -> HostFacts:
        return facts.host_facts(self._session)

    def check_cpu(self, xml: str) -> None:
        facts.check_cpu(self._session, xml)

    def pool(self, pool: str) -> PoolFacts:
        return pools.pool_facts(self._session, pool)

    def volume(self, pool: str, name: str) -> VolumeFacts | None:
        return volumes.volume_facts(self._session, pool, name)

    def volumes(self, pool: str) -> tuple[VolumeFacts, ...]:
        return volumes.all_volume_facts(self._session, pool)

    def swap(self, pool: str, name: str) -> Swap | None:
        return swap.signature(self._session, pool, name)

    def domain(self, uuid: str) -> DomainFacts | None:
        return domains.domain_facts(self._session, uuid)

    def domains(self) -> tuple[DomainFacts, ...]:
        return domains.all_domain_facts(self._session)

    def definition_with_secrets(self, uuid: str) -> str:
        return domains.definition_with_secrets(self._session, uuid)

    def merge(self, uuid: str, device: str) -> MergeFacts | None:
        return merges.merge_facts(self._session, uuid, device)

    def secrets(self) -> tuple[SecretFacts, ...]:
        return secrets.secret_facts(self._session)

    def secret_value(self, uuid: str) -> Secret | None:
        return secrets.secret_value(self._session, uuid)

    def create_volume(self, pool: str, spec: VolumeSpec) -> None:
        volumes.create(self._session, pool, spec)

    def grow_volume(self, pool: str, name: str, capacity: int) -> None:
        volumes.grow(self._session, pool, name, capacity)

    def make_swap(self, pool: str, name: str, swap_space: Swap) -> None:
        swap.make(self._session, pool, name, swap_space)

    def delete_volume(self, pool: str, name: str) -> None:
        volumes.delete(self._session, pool, name)

    def define(self, xml: str) -> None:
        lifecycle.define(self._session, xml)

    def undefine(self, uuid: str) -> None:
        lifecycle.undefine(self._session, uuid)

    def set_autostart(self, uuid: str, on: bool) -> None:
        lifecycle.set_autostart(self._session, uuid, on)

    def start_paused(self, uuid: str) -> None:
        lifecycle.start_paused(self._session, uuid)

    def start_carrier(self, xml: str) -> None:
        lifecycle.start_carrier(self._session, xml)

    def resume(self, uuid: str) -> None:
        lifecycle.resume(self._session, uuid)

    def suspend(self, uuid: str) -> None:
        lifecycle.suspend(self._session, uuid)

    def announce(self, uuid: str) -> None:
        announce.announce(self._session, uuid)

    def shutdown(self, uuid: str) -> None:
        lifecycle.shutdown(self._session, uuid)

    def destroy(self, uuid: str) -> None:
        lifecycle.destroy(self._session, uuid)

    def define_secret(self, spec: SecretSpec) -> None:
        secrets.define(self._session, spec)

    def undefine_secret(self, uuid: str) -> None:
        secrets.undefine(self._session, uuid)

    def start_merge(self, uuid: str, device: str, bandwidth: int) -> None:
        merges.start_merge(self._session, uuid, device, bandwidth)

    def pivot_merge(self, uuid: str, device: str) -> None:
        merges.pivot_merge(self._session, uuid, device)

    def transfer(self, uuid: str, peer_uri: str, data_uri: str, xml: str, bandwidth: int) -> None:
        transfer.transfer(self._session, uuid, peer_uri=peer_uri, data_uri=data_uri, xml=xml, bandwidth=bandwidth)

    def stream(self, pool: str, name: str, target: StreamTarget) -> None:
        stream.stream(self._session, pool, name, target)
