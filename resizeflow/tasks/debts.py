"""Debts are paid when the host, Cinder or Neutron answers."""

from __future__ import annotations

from resizeflow.connections import Away
from resizeflow.persistence.hosts import debt_consumer
from resizeflow.persistence.models import Debt, Instance, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import cinder_debts, machine, neutron_debts, secrets, vlans
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.carrier import end_carrier


class SettleDebts(MoveTask):
    """Removes what a closed migration had to leave on hosts that could not be reached, and what the doctor found
    there, at Cinder and at Neutron.

    Effect: per debt the domain (only with this migration's mark, never a running one), the disk (by its name, never
        one in use, and only after the machine's own disks have just been seen), the secrets that no domain names, the
        VLAN that nobody needs there, a port put into its own; at Cinder and Neutron as in cinder_debts.py and
        neutron_debts.py. The debt is settled, and the host's allocation released with its last disk.
    Undo: none. Convergent because: what is gone is fine. If killed: the rest by the next run.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        with self.world.database.read() as tx:
            debts = [debt for debt in tx.debts.open() if debt.migration_id == migration.id]
            hosts = {debt.host_id: tx.hosts.get(debt.host_id) for debt in debts}
        settled: dict[int, str] = {}
        # A domain before its disks: a disk in use is refused.
        for debt in sorted(debts, key=lambda debt: debt.kind != "domain"):
            try:
                outcome = self._pay(migration, debt)
            except Away as error:
                place = f"at {debt.service}" if debt.service else f"on {hosts[debt.host_id].name}"
                self.tell(f"{debt.kind} {debt.object} stays as it is {place}: {error}")
            else:
                settled[debt.id] = outcome

        def settle(tx: Transaction) -> None:
            for debt in tx.debts.open():
                if debt.id in settled:
                    tx.debts.settle(debt, hosts[debt.host_id], settled[debt.id], self.name)
            for host_id in hosts:
                left = [debt for debt in tx.debts.open(host_id) if debt.migration_id == migration.id]
                if not any(debt.holds_disk for debt in left):
                    tx.hosts.release(debt_consumer(migration.id), host_id)

        self.world.work.record(settle)

    def _pay(self, migration: Migration, debt: Debt) -> str:
        """Settles one debt; what became of it, for the log."""
        if debt.service == "Cinder":
            return cinder_debts.pay(self, debt)
        if debt.service == "Neutron":
            return neutron_debts.pay(self, migration, debt)
        return self._pay_on_host(migration, debt)

    def _pay_on_host(self, migration: Migration, debt: Debt) -> str:
        with self.world.database.read() as tx:
            host = tx.hosts.get(debt.host_id)
        hypervisor = self.gate.host(host, patience=0)
        if debt.kind == vlans.DEBT:
            vlans.settle(self, host, vlans.Network.of(debt.object))
            return f"VLAN {debt.object} is with the uplinks of {host.name} only if somebody needs it there"
        if debt.kind == vlans.PORT_DEBT:
            return vlans.set_right(self, migration, host, debt.object)
        if debt.kind == "domain":
            end_carrier(self, migration, host)
            domain = hypervisor.domain(debt.object)
            mark = machine.mark_of(domain)
            if mark is not None and mark.migration == migration.id:
                machine.remove_domain(self, host, migration)
            secrets.remove(self, migration, host)
        elif debt.kind == "secret":
            ours = any((one.uuid, one.migration) == (debt.object, migration.id) for one in hypervisor.secrets())
            if ours and debt.object in secrets.named(hypervisor.domains()):
                return f"secret {debt.object} on {host.name} is named by a domain again: it stays"
            if ours:
                self.forget(lambda: hypervisor.undefine_secret(debt.object))
        elif hypervisor.volume(host.pool, debt.object) is not None:
            self._see_the_machine(migration, debt)
            self.forget(lambda: hypervisor.delete_volume(host.pool, debt.object))
        return f"{debt.kind} {debt.object} is removed from {host.name}"

    def _see_the_machine(self, migration: Migration, debt: Debt) -> None:
        """Raises Attention unless the machine has all its disks, and the one to be removed is none of them."""
        with self.world.database.read() as tx:
            instance = tx.session.get(Instance, migration.instance_id)
            if instance is None:
                return  # It is not managed any more: what it left behind is nobody's.
            host, disks = instance.host, list(instance.disks)
        hypervisor = self.gate.host(host, patience=0)
        for disk in disks:
            if hypervisor.volume(host.pool, disk.volume) is None:
                raise self.attention(f"{disk.path} of {instance.name} is missing on {host.name}: nothing is deleted")
            if (host.id, disk.volume) == (debt.host_id, debt.object):
                raise self.attention(f"{disk.path} on {host.name} is in use by {instance.name}: nothing is deleted")
