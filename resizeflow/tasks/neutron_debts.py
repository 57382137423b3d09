"""Debts at Neutron, paid: a binding that nothing needs, and a port that is not bound to its machine's host.

All is looked at again, as much may have happened since it was written down. What is not as it was is left: the doctor
finds it again.
"""

from __future__ import annotations

from resizeflow.connections import Away
from resizeflow.drivers.interface import DriverError
from resizeflow.persistence.models import Debt, Instance, Migration, MovedPort
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.bindings import Bindings


def pay(task: MoveTask, migration: Migration, debt: Debt) -> str:
    """Settles a debt at Neutron; what became of it, for the log. Raises Away."""
    network = task.gate.network(patience=0)
    port = network.port(debt.object)
    with task.world.database.read() as tx:
        instance = tx.session.get(Instance, debt.instance_id)
        still_open = tx.migrations.open_for(debt.instance_id)
        host = tx.hosts.get(debt.host_id)
    subject = f"port {debt.object}"
    if port is None or instance is None or port.instance_id != instance.id:
        return f"{subject} is left as it is: it is not the machine's any more"
    bindings = Bindings(task, migration, MovedPort(port_id=port.id, mac=port.mac.lower()))
    try:
        if debt.kind == "port":
            bindings.activate(instance.host)
            return f"{subject} is bound to {instance.host.name}, where the machine is"
        needed = {instance.host_id} | ({still_open.source_host_id, still_open.dest_host_id} if still_open else set())
        if host.id in needed:
            return f"{subject} is left as it is: its binding to {host.name} is needed"
        bindings.leave(host, stays=instance.host)
    except Away:
        raise
    except DriverError as error:
        return f"{subject} is left as it is: {error}"
    return f"{subject} is bound to {host.name} no more"
