"""The doctor: examines records, hosts, Cinder and Neutron, and repairs records."""

from __future__ import annotations

from collections.abc import Iterator

from resizeflow.audit.verify import Progress, silent
from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.connections import Connections
from resizeflow.doctor import attachments, leftovers, libvirt_secrets, port_bindings, repairs, restore, snapshot, vlans
from resizeflow.doctor.accounts import check_allocations, check_quota
from resizeflow.doctor.agreement import check_bindings, check_flows, check_states
from resizeflow.doctor.history import check_logs, check_secrets
from resizeflow.doctor.machines import check_running, check_size
from resizeflow.doctor.report import OpenDebt, Owed, Report, Suspect
from resizeflow.doctor.snapshot import Records, World
from resizeflow.looks import Looks
from resizeflow.persistence.database import Database


class Doctor:
    """Looks at records, hosts, Cinder and Neutron; changes records only, and only in `repair` and `after_restore`."""

    def __init__(
        self, database: Database, settings: Settings, *, connections: Connections, clock: Clock | None = None
    ) -> None:
        self.database = database
        self.looks = Looks(connections, settings, clock or Clock())

    def examine(self, progress: Progress = silent) -> Report:
        """Checks all invariants; breaches come by their number. A machine in the middle of its migration is none,
        also while its job goes on. `progress` is told of lines of logs, which are what takes long."""
        return self._examine(progress)[0]

    def repair(self, who: str, progress: Progress = silent) -> Report:
        """Sets records right and has leftovers removed (docs/doctor.md says which); what it found before. `who` asked
        for it, for the log."""
        report, owed = self._examine(progress)
        with self.database.write() as tx:
            repairs.repair(tx, owed, who)
        return report

    def after_restore(self, who: str) -> None:
        """Makes a restored database safe to go on with: every unfinished job waits for a person, under an epoch that
        nobody can have been given. Raises Conflict while a worker is up."""
        with self.database.read() as tx:
            restore.require_no_worker(tx)
            records = snapshot.read(tx)
        world = snapshot.look(self.looks, records)
        with self.database.write() as tx:
            restore.set_apart(tx, world, who)

    def _examine(self, progress: Progress) -> tuple[Report, list[Owed]]:
        """The report, and what may be recorded as debts.

        The records are of one moment, the answers of hosts and services of later ones: what does not fit may be a job's
        progress in between. So what they show is looked at twice, and counts if it was there both times and no job of
        the machine has come or gone meanwhile.
        """
        with self.database.read() as tx:
            records = snapshot.read(tx)
            breaches = [
                *check_quota(records),
                *check_allocations(records),
                *check_bindings(records),
                *check_states(records),
                *check_flows(tx),
                *check_logs(tx, progress),
                *check_secrets(tx),
            ]
        world, suspects = self._look(records)
        if suspects:
            with self.database.read() as tx:
                later = snapshot.read(tx)
            world, again = self._look(later)
            before = {(s.breach.invariant, s.breach.subject, s.breach.found) for s in suspects}
            suspects = [
                s
                for s in again
                if (s.breach.invariant, s.breach.subject, s.breach.found) in before
                and records.jobs_ever.get(s.instance_id or "") == later.jobs_ever.get(s.instance_id or "")
            ]
        found = sorted([*breaches, *(s.breach for s in suspects)], key=lambda b: (b.invariant, b.subject))
        debts = tuple(OpenDebt.of(debt, records.host_name(debt.host_id)) for debt in records.debts)
        return Report(tuple(found), debts, world.silent), [s.owed for s in suspects if s.owed]

    def _look(self, records: Records) -> tuple[World, list[Suspect]]:
        world = snapshot.look(self.looks, records)
        with self.database.read() as tx:
            return world, [
                *_machines(records, world),
                *attachments.find(tx, records, world),
                *port_bindings.find(tx, records, world),
                *vlans.find(tx, records, world),
                *leftovers.find(tx, records, world),
                *libvirt_secrets.find(tx, records, world),
            ]


def _machines(records: Records, world: World) -> Iterator[Suspect]:
    for instance in records.instances.values():
        for check in (check_running, check_size):
            for breach in check(records, world, instance):
                yield Suspect(breach, instance.id)
