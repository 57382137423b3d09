"""Host to host: the source's libvirt migrates a paused carrier with its storage to the destination's.

What is true is read from both hosts (reference: libvirt's behaviour under kills): complete is "no carrier on the
source, a paused one at the destination that receives nothing any more"; a job on the source is a transfer under way,
whoever started it; a carrier on the source without a job and without one at the destination has to start (again).
"""

from __future__ import annotations

from dataclasses import dataclass

from resizeflow.drivers.hypervisor import DomainFacts, PowerState
from resizeflow.drivers.interface import DriverError, Refused, Watch
from resizeflow.persistence.models import Host, Migration
from resizeflow.tasks import machine
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.carrier import carrier_xml, copied, end_carrier, progress

BEGINNINGS = 4
"""How often a transfer that ended early is begun in one run of the task."""
POLL = 1.0
ADOPT_LOOKS = 3
SETTLE = 15.0
"""Seconds that the hosts may look half-way (job ended, other side not yet) before that counts as a failure."""


class PathBlocked(DriverError):
    """The source cannot reach the destination: no byte ever arrived."""


@dataclass(frozen=True)
class Ends:
    """The carrier on both hosts, None where there is none of this migration."""

    source: DomainFacts | None
    destination: DomainFacts | None

    @property
    def complete(self) -> bool:
        there = self.destination
        return self.source is None and there is not None and not there.incoming and there.state is PowerState.PAUSED

    @property
    def under_way(self) -> bool:
        return self.source is not None and self.source.job_running


class DirectTransfer:
    """One migration's direct transfer, from whatever state the hosts are in."""

    def __init__(self, task: MoveTask, migration: Migration, host: Host) -> None:
        self.task = task
        self.gate = task.gate
        self.migration = migration
        self.host = host
        self._watch: Watch | None = None
        self._begun = 0
        self._moved = False

    def run(self) -> None:
        """Returns when the destination has all disks, recorded. Raises PathBlocked, DriverError, HostAway."""
        try:
            self._run()
        finally:
            if self._watch is not None:
                self._watch.stop()

    def _run(self) -> None:
        self._adopt()
        while True:
            ends = self._ends()
            if ends.complete:
                copied(self.task, self.migration, f"all disks are on {self.host.name}")
                return
            if ends.under_way:
                self._follow()
            elif self._watch is not None and not self._watch.ended():
                self.gate.watching("transfer", POLL / 4)
            elif self._watch is None or not self._settling():
                self._begin(ends)

    def _adopt(self) -> None:
        """A carrier of an earlier run may be about to send: for a moment neither host shows the job."""
        for _ in range(ADOPT_LOOKS):
            ends = self._ends()
            if ends.source is None or ends.complete:
                return
            if ends.under_way:
                self.task.tell("the transfer is running already: it is taken over")
                return
            self.gate.watching("adopt", POLL)

    def _ends(self) -> Ends:
        uuid = self.migration.instance_id
        source = self.gate.host(self.migration.source_host).domain(uuid)
        there = self.gate.host(self.host).domain(uuid)
        return Ends(
            source if machine.has_role(source, self.migration, "carrier", live=True) else None,
            there if machine.has_role(there, self.migration, "carrier", live=True) else None,
        )

    def _follow(self) -> None:
        """Polls a running transfer until it ends; one without progress is ended on the source."""
        source = self.gate.host(self.migration.source_host)
        clock, stall = self.task.world.clock, self.task.world.settings.stall_timeout
        best, since, told = -1, clock.boottime(), -1
        while True:
            domain = source.domain(self.migration.instance_id)
            if domain is None or not domain.job_running:
                return
            if domain.bytes_done > best:
                best, since = domain.bytes_done, clock.boottime()
                self._moved = self._moved or best > 0
            if best != told and domain.bytes_total:
                progress(self.task, self.migration, best, domain.bytes_total)
                told = best
            if clock.boottime() - since > stall:
                self.task.tell_retry(f"no progress for {stall:g} s: the transfer is ended and begun again")
                end_carrier(self.task, self.migration, self.migration.source_host)
                return
            self._wait()

    def _wait(self) -> None:
        """Until the next look; our own call wakes us when it returns, an adopted transfer has nobody to."""
        if self._watch is None or self._watch.ended():
            self.gate.watching("transfer", POLL)
        else:
            self._watch.news(POLL)
            self.gate.watching("transfer", 0)

    def _settling(self) -> bool:
        """A transfer that just ended may need a moment until both hosts show it."""
        clock = self.task.world.clock
        deadline = clock.boottime() + SETTLE
        while clock.boottime() < deadline:
            ends = self._ends()
            if ends.complete or ends.under_way:
                return True
            if ends.destination is None:
                return False
            self.gate.watching("transfer", POLL / 2)
        return False

    def _begin(self, ends: Ends) -> None:
        self._explain_the_end()
        if ends.destination is not None:
            end_carrier(self.task, self.migration, self.host)
        if self._begun:
            # One that outlived its libvirtd may be refused for ever: "Target CPU does not match source".
            end_carrier(self.task, self.migration, self.migration.source_host)
        try:
            self._start_carrier(bypass_cache=True)
        except Refused as error:
            self.task.tell(f"the carrier is started with the host's page cache: {error}")
            self._start_carrier(bypass_cache=False)
        self._begun += 1
        self._watch = self.gate.start(
            self.migration.source_host,
            "transfer",
            self.migration.instance_id,
            self.host.peer_uri,
            self.host.data_uri or "",
            carrier_xml(self.task, self.migration, at_destination=True),
            self.task.world.settings.bandwidth,
        )

    def _start_carrier(self, *, bypass_cache: bool) -> None:
        """Some file systems refuse to be read without the page cache: `Refused`."""
        source = self.gate.host(self.migration.source_host)
        uuid = self.migration.instance_id
        xml = carrier_xml(self.task, self.migration, at_destination=False, bypass_cache=bypass_cache)
        self.task.ensure(
            lambda: machine.has_role(source.domain(uuid), self.migration, "carrier", live=True),
            lambda: source.start_carrier(xml),
            f"carrier on {self.migration.source_host.name}",
        )

    def _explain_the_end(self) -> None:
        if self._watch is None:
            return
        error = self._watch.error()
        self._watch.stop()
        self._watch = None
        reason = str(error) if error else "it ended without a word"
        if "No space left" in reason:
            raise DriverError(f"the destination's pool is full: {reason}")
        if self._begun >= BEGINNINGS or (not self._moved and self._begun >= 2):
            kind = DriverError if self._moved else PathBlocked
            raise kind(f"the transfer from {self.migration.source_host.name} to {self.host.name} fails: {reason}")
        self.task.tell_retry(f"the transfer ended early and is begun again: {reason}")
