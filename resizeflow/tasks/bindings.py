"""Steps on Neutron's bindings of a migration's ports.

Host and port together name a binding, so a request that is repeated makes no second one. Neutron knows no fence: one
that arrives late may make another binding active than the one that was meant last, or delete it. So each binding is
looked at again while the machine waits for its ports to be plugged in, and at the end, when the other is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from resizeflow.drivers.interface import DriverError
from resizeflow.drivers.network import BINDING_FAILED, ERROR, UNBOUND, Plug, PortBinding, plug_of
from resizeflow.persistence.models import Binding, Host, Migration, MovedPort, Port
from resizeflow.persistence.transaction import Transaction
from resizeflow.ports import SeenPort, active
from resizeflow.tasks import vlans
from resizeflow.tasks.base import MoveTask

LOOK_EVERY = 2.0
"""Seconds between two looks at a port that is to be plugged in, unless Neutron tells of it before."""
LISTEN_EVERY = 0.5
"""Seconds between two looks at what Neutron told."""


def current(migration: Migration) -> list[MovedPort]:
    """Neutron's ports that the machine has: without those that were removed at the destination since."""
    return [port for port in migration.ports if not port.detached]


def record_ports(tx: Transaction, instance_id: str, host_id: str, found: Sequence[SeenPort], new: vlans.Vlans) -> None:
    """The instance's record has exactly the ports that were found, bound to a host; those that are `new` in VLANs are
    in these."""
    instance = tx.instances.get(instance_id)
    known = {row.mac.lower(): row for row in instance.ports}
    for one in found:
        row = known.pop(one.mac, None)
        if row is None:
            row = Port(mac=one.mac, vlan=new.get(one.mac), bindings=[Binding(host_id=host_id, active=True)])
            instance.ports.append(row)
        row.port_id, row.bridge = one.port_id, one.bridge
    for gone in known.values():
        instance.ports.remove(gone)


def record_now(
    tx: Transaction, migration: Migration, host_id: str, found: Sequence[SeenPort], new: vlans.Vlans
) -> None:
    """The migration's ports are those that the machine was found with at its destination, and those that it had."""
    now = {one.port_id: one for one in found if one.port_id is not None}
    for row in migration.ports:
        row.detached = now.pop(row.port_id, None) is None
    for port_id, one in now.items():
        migration.ports.append(MovedPort(port_id=port_id, mac=one.mac))
    vlans.owe_gone(tx, migration, host_id, found)
    record_ports(tx, migration.instance_id, host_id, found, new)


class Bindings:
    """The bindings of one port of a migration, at Neutron."""

    def __init__(self, task: MoveTask, migration: Migration, port: MovedPort) -> None:
        self.task = task
        self.migration = migration
        self.port = port
        self.network = task.gate.network()

    def __str__(self) -> str:
        return f"port {self.port.port_id} ({self.port.mac})"

    @property
    def is_ours(self) -> bool:
        """Whether the machine has the port, by Neutron: one that somebody deleted, or took from it, is not bound by us
        any more."""
        port = self.network.port(self.port.port_id)
        if port is not None and port.instance_id == self.migration.instance_id:
            return True
        self.task.tell(f"{self} {'was deleted at Neutron' if port is None else 'was taken from the machine'}")
        return False

    def require(self) -> None:
        """Raises DriverError if it is not the machine's any more."""
        if not self.is_ours:
            raise DriverError(f"{self} is the machine's no more: it was deleted at Neutron, or taken from it")

    def bind(self, host: Host) -> None:
        """There is a binding to a host, with the kind and profile of the active one. Raises DriverError if Neutron
        cannot make one, also where it says so by a binding that failed only.

        One that was active before, and one beside which none is active, is worth nothing to Neutron: it is made anew.
        """
        bindings = self.network.bindings(self.port.port_id)
        there = next((binding for binding in bindings if binding.host == host.name), None)
        if there is not None and (there.vif_type == UNBOUND or active(bindings) is None):
            self._delete(host)
        nothing = PortBinding(host.name, active=False, vif_type=UNBOUND)
        like = active(bindings) or next(iter(bindings), nothing)
        self.task.ensure(
            lambda: self._on(host) is not None,
            lambda: self.network.create_binding(self.port.port_id, host.name, like.vnic_type, like.profile),
            f"a binding of {self} to {host.name}",
        )
        found = self._on(host)
        if found is not None and found.vif_type == BINDING_FAILED:
            raise DriverError(f"Neutron cannot bind {self} to {host.name}: is the network there, and its agent alive?")

    def activate(self, host: Host) -> None:
        """The binding to a host is the active one, and Neutron knows how the port is plugged in by it."""
        if self._is_active(host):
            return
        self.bind(host)
        self.task.ensure(
            lambda: self._is_active(host),
            lambda: self.network.activate_binding(self.port.port_id, host.name),
            f"activation of the binding of {self} to {host.name}",
        )
        self.task.tell(f"{self} is bound to {host.name}")

    def leave(self, host: Host, *, stays: Host | None) -> None:
        """No binding to a host is left; that of the host where the machine `stays` is the active one, whatever a late
        request has made of it. Of a port that is not the machine's any more (`stays` is None, or Neutron says so) only
        an inactive one is removed: an active one is of somebody else. Of a port that nobody has, Neutron neither tells
        nor deletes bindings (400): they are left."""
        port = self.network.port(self.port.port_id)
        if port is None or not port.instance_id:
            self.task.tell(f"{self} {'was deleted at Neutron' if port is None else 'is of no machine any more'}")
            return
        if stays is not None and port.instance_id == self.migration.instance_id:
            self.activate(stays)
        found = self._on(host)
        if found is None or found.active:
            return
        self._delete(host)
        self.task.tell(f"the binding of {self} to {host.name} is deleted")
        if stays is not None and self.is_ours:
            self.activate(stays)  # a late request may have made the other the active one right before it was deleted

    def plug(self, host: Host) -> Plug:
        """How it is plugged in at the host that it is bound to. Raises DriverError."""
        port, binding = self.network.port(self.port.port_id), self._on(host)
        if port is None or binding is None:
            raise DriverError(f"{self} is not bound to {host.name} any more")
        return plug_of(port, binding)

    def is_plugged(self, host: Host) -> bool:
        """Whether the host's agent has plugged it in. The binding may have been changed since, and is set right. Raises
        DriverError where Neutron says that it could not be plugged in."""
        self.activate(host)
        port = self.network.port(self.port.port_id)
        if port is not None and port.status == ERROR:
            raise DriverError(f"{self} could not be plugged in on {host.name}: it is in status {ERROR} at Neutron")
        return port is not None and port.plugged

    def _delete(self, host: Host) -> None:
        self.task.ensure(
            lambda: self._on(host) is None,
            lambda: self.network.delete_binding(self.port.port_id, host.name),
            f"end of the binding of {self} to {host.name}",
        )

    def _on(self, host: Host) -> PortBinding | None:
        found = self.network.bindings(self.port.port_id)
        return next((binding for binding in found if binding.host == host.name), None)

    def _is_active(self, host: Host) -> bool:
        binding = self._on(host)
        return binding is not None and binding.active and binding.vif_type != UNBOUND


def each(task: MoveTask, migration: Migration, ports: Iterable[MovedPort]) -> list[Bindings]:
    """Ports with their bindings. Neutron is not asked for a machine without."""
    return [Bindings(task, migration, port) for port in ports]


def bring(task: MoveTask, migration: Migration, host: Host) -> None:
    """The machine's ports are bound to a host. Raises DriverError if one cannot be."""
    for port in each(task, migration, current(migration)):
        port.require()
        port.activate(host)


def bring_back(task: MoveTask, migration: Migration, host: Host) -> None:
    """As `bring`, on a way back: a port that somebody deleted, or took, meanwhile is none to be brought."""
    for port in each(task, migration, current(migration)):
        if port.is_ours:
            port.activate(host)


def plugs(task: MoveTask, migration: Migration, host: Host) -> Mapping[str, Plug]:
    """How the machine's ports are plugged in at a host, by MAC."""
    return {port.port.mac: port.plug(host) for port in each(task, migration, current(migration))}


def await_plugged(task: MoveTask, migration: Migration, host: Host) -> None:
    """Waits until the host's agent has plugged in all ports of a machine that was started there and does not run yet.
    Raises DriverError when the time for it is over, or Neutron says that it failed."""
    timeout = task.world.settings.vif_plugging_timeout
    ports = each(task, migration, current(migration))
    if not ports:
        return
    if not timeout:
        task.tell("whether its ports are plugged in is not waited for: vif_plugging_timeout is 0")
        return
    until = task.world.clock.boottime() + timeout
    heard = _last_heard(task, ports)
    while waiting := [port for port in ports if not port.is_plugged(host)]:
        if task.world.clock.boottime() >= until:
            raise DriverError(
                f"{waiting[0]} was not plugged in on {host.name} within {timeout:g} s: does Neutron's agent there live?"
            )
        heard = _listen(task, waiting, heard, min(LOOK_EVERY, until - task.world.clock.boottime()))
    task.tell(f"{', '.join(map(str, ports))} plugged in on {host.name}")


def _last_heard(task: MoveTask, ports: Sequence[Bindings]) -> int:
    with task.world.database.read() as tx:
        return tx.server_events.last([port.port.port_id for port in ports])


def _listen(task: MoveTask, ports: Sequence[Bindings], heard: int, seconds: float) -> int:
    """Waits until it is time to look again, or Neutron tells of one of the ports."""
    until = task.world.clock.boottime() + seconds
    while task.world.clock.boottime() < until:
        task.gate.pause(LISTEN_EVERY)
        with task.world.database.read() as tx:
            last = tx.server_events.last([port.port.port_id for port in ports])
        if last > heard:
            return last
    return heard
