"""Guests are moved back and forth for a while, by three workers that are killed and stopped at random.

RESIZEFLOW_SOAK_SECONDS is how long (600 by default), RESIZEFLOW_SOAK_SEED repeats the choices of an earlier run. When
the faults end every job comes to its end, no guest is lost, and none has lost a record that it had acknowledged; but
for what a revert discards, as it must.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.guest import DiskSpec, Guest
from lab.lab import Lab
from lab.serial import Session
from lab.system import wait_until
from resizeflow.persistence.database import AWAY
from resizeflow.persistence.models import Instance
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.fleet import Fleet
from tests.lab import checks
from tests.lab.worker_process import WorkerProcess

pytestmark = [pytest.mark.lab, pytest.mark.certify]

SECONDS = float(os.environ.get("RESIZEFLOW_SOAK_SECONDS", "600"))
SEED = int(os.environ.get("RESIZEFLOW_SOAK_SEED", str(random.SystemRandom().randrange(10**6))))
GUESTS = 4
WORKERS = 3
CALM_WITHIN = 240
"""Seconds after the last fault in which every job must have ended."""
BOOT_WITHIN = 120
SETTINGS = {
    "act_timeout": "6",
    "fence_window": "4",
    "lease_seconds": "16",
    # Workers are killed more often than any task takes to run: nobody is to be asked for that.
    "max_attempts": "1000",
}


@pytest.fixture
def fleet(lab: Lab, tmp_path: Path) -> Iterator[Fleet]:
    """Both hosts known, and flavors that differ in CPUs and memory; no guest yet."""
    fleet = Fleet(tmp_path, lab, **SETTINGS)
    fleet.know_hosts()
    fleet.inventory.create_flavor("small", vcpus=1, memory_mb=160, root_gb=1)
    fleet.inventory.create_flavor("large", vcpus=2, memory_mb=192, root_gb=1)
    yield fleet
    fleet.clean()


@pytest.mark.timeout(SECONDS + CALM_WITHIN + 600)
def test_soak(lab: Lab, fleet: Fleet) -> None:
    print(f"seed {SEED}, {SECONDS:.0f} s")
    choice = random.Random(SEED)  # noqa: S311 - no secret
    machines = [
        Mover(fleet, Guest(lab, f"soak-{n}").create(lab.hosts[n % 2], memory_mb=160, disks=[DiskSpec(1)]), choice)
        for n in range(GUESTS)
    ]
    for machine in machines:
        machine.adopt()
    crew = Crew(fleet, choice)
    try:
        with checks.never_two(lab, *(machine.guest.name for machine in machines)):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                crew.disturb()
                for machine in machines:
                    machine.go_on()
                time.sleep(0.3)
            began = time.monotonic()
            crew.calm_down()
            calm = wait_until(lambda: all(machine.idle() for machine in machines), CALM_WITHIN, interval=0.5)
            assert calm, [machine.story() for machine in machines if not machine.idle()]
            calmed = time.monotonic() - began
    finally:
        crew.end()
    records = sum(machine.check() for machine in machines)
    done = sum((machine.done for machine in machines), Counter[str]())
    with fleet.database.read() as tx:
        assert not tx.debts.open()
    checks.healthy(fleet)
    print(
        f"moves: {done.total()} ({', '.join(f'{count} {what}' for what, count in sorted(done.items()))}); "
        f"workers: {', '.join(f'{count} {what}' for what, count in sorted(crew.done.items()))}; "
        f"jobs taken up again: {sum(machine.again for machine in machines)}; "
        f"records acknowledged: {records}; every job ended {calmed:.0f} s after the last fault"
    )
    assert done.total() and crew.done["killed"], "nothing happened: the time was too short"


class Mover:
    """One guest, moved again and again."""

    def __init__(self, fleet: Fleet, guest: Guest, choice: random.Random) -> None:
        self.fleet = fleet
        self.guest = guest
        self.done: Counter[str] = Counter()
        self.again = 0
        self._choice = choice
        self._job: Submitted | None = None
        self._process: list[int] = []
        self._reports = 0

    def adopt(self) -> None:
        self.guest.wait_report(timeout=BOOT_WITHIN)
        (host,) = self.guest.states()
        self.fleet.inventory.adopt(host, self.guest.name)
        self._note()

    def go_on(self) -> None:
        """Once its job has ended and the guest has reported, the next thing is asked for."""
        if not self.idle():
            return
        if self._job is not None:
            self._count(self._job)
            self._job = None
        if self._booted():
            self._note()
            # An SQLite file is locked for all as long as a worker is stopped in the middle of a transaction.
            with contextlib.suppress(*AWAY):
                self._job = self._next()

    def idle(self) -> bool:
        if self._job is None:
            return True
        job = self.fleet.job(self._job)
        assert job.state is not JobState.NEEDS_ATTENTION, f"{job.reason}\n{self.story()}"
        return job.state is JobState.DONE

    def story(self) -> str:
        return f"{self.guest.name}:\n{self.fleet.story(self._job)}" if self._job else self.guest.name

    def check(self) -> int:
        """The guest is where the records say, once, with all it had acknowledged; how many records that are."""
        if self._job is not None:
            self._count(self._job)
        row = self._row()
        assert checks.runs_only_on(self.guest, row.host.name)
        assert wait_until(self._booted, BOOT_WITHIN), f"{self.guest.name} did not boot"
        assert self.guest.ping(timeout=30)
        # Off and on once more: what it acknowledged last is asked for as well.
        before, host = len(self.guest.reports()), self.fleet.lab.host(row.host.name)
        self.guest.shutdown(host)
        self.guest.start(host)
        assert wait_until(lambda: len(self.guest.reports()) > before, BOOT_WITHIN)
        sessions = self.guest.sessions()
        nothing_lost(sessions)
        with self.fleet.database.read() as tx:
            for migration in tx.migrations.list(row.id, limit=10_000):
                assert tx.events.flaw(migration.id) is None
        return sum(later.acknowledged - later.report["last_record"] for later in sessions)

    def _next(self) -> Submitted:
        name, service = self.guest.name, self.fleet.service
        row = self._row()
        with self.fleet.database.read() as tx:
            migration = tx.migrations.open_for(row.id)
        if migration is not None:
            return self._choice.choice((service.confirm, service.revert))(name)
        here = row.host.name
        there = next(host.name for host in self.fleet.lab.hosts if host.name != here)
        flavor = "small" if row.flavor.name == "large" else "large"
        return service.resize(name, flavor, host=self._choice.choice((there, there, there, here)))

    def _count(self, job: Submitted) -> None:
        row = self.fleet.job(job)
        status = self.fleet.migration(job).status
        self.done["rolled back" if status is MigrationStatus.ERROR else str(status)] += 1
        self.again += row.epoch - 1

    def _note(self) -> None:
        """Which process the guest is, and how often it has reported: another process is another boot."""
        self._process, self._reports = self._processes(), len(self.guest.reports())

    def _booted(self) -> bool:
        return self._processes() == self._process or len(self.guest.reports()) > self._reports

    def _processes(self) -> list[int]:
        return [pid for host in self.fleet.lab.hosts for pid in checks.machine_pids(host, self.guest.name)]

    def _row(self) -> Instance:
        with self.fleet.database.read() as tx:
            return tx.instances.get(self.guest.name)


@dataclass
class Asleep:
    """A stopped worker, and what becomes of it when."""

    worker: WorkerProcess
    until: float
    dies: bool


class Crew:
    """The workers, never fewer than three and never all of them stopped, and what is done to them."""

    def __init__(self, fleet: Fleet, choice: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._fleet = fleet
        self._choice = choice
        self._awake = [self._new() for _ in range(WORKERS)]
        self._asleep: list[Asleep] = []
        self._next = time.monotonic() + 5

    def disturb(self) -> None:
        """Every few seconds somebody is killed or stopped; the stopped go on, or are killed, when their time comes."""
        now = time.monotonic()
        for sleeper in [sleeper for sleeper in self._asleep if sleeper.until < now]:
            self._asleep.remove(sleeper)
            if sleeper.dies:
                self._kill(sleeper.worker)
            else:
                sleeper.worker.go_on()
                self._awake.append(sleeper.worker)
                self.done["woken"] += 1
        if now < self._next:
            return
        self._next = now + self._choice.uniform(3, 15)
        victim = self._choice.choice(self._awake)
        if len(self._awake) == 1 or self._choice.random() < 0.5:
            self._awake.remove(victim)
            self._kill(victim)
            return
        victim.stop(family=self._choice.random() < 0.5)
        self._awake.remove(victim)
        # Some shorter than a lease, some longer.
        self._asleep.append(Asleep(victim, now + self._choice.uniform(3, 40), self._choice.random() < 0.3))
        self.done["stopped"] += 1

    def calm_down(self) -> None:
        """No more faults: whoever sleeps goes on."""
        for sleeper in self._asleep:
            sleeper.worker.go_on()
            self._awake.append(sleeper.worker)
        self._asleep.clear()

    def end(self) -> None:
        for worker in [*self._awake, *(sleeper.worker for sleeper in self._asleep)]:
            worker.kill()

    def _kill(self, worker: WorkerProcess) -> None:
        worker.kill()
        self.done["killed"] += 1
        self._awake.append(self._new())

    def _new(self) -> WorkerProcess:
        return WorkerProcess(self._fleet, jobs=GUESTS)


def nothing_lost(sessions: list[Session]) -> None:
    """Each boot finds every record that the boot before it on the same disk has acknowledged, and all content.

    The boot before it is the last one, in time, whose number is one less: a revert goes back to an older disk, and
    counts on from there.
    """
    first = sessions[0].report
    for number, session in enumerate(sessions):
        checks.same_machine(first, session.report)
        if session.report["boots"] == 1:
            continue
        before = [earlier for earlier in sessions[:number] if earlier.report["boots"] == session.report["boots"] - 1]
        assert before, f"the boot before {session.report} is missing"
        assert session.report["last_record"] >= before[-1].acknowledged, (before[-1], session)
