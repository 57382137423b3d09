"""A soak: several workers, several machines, kills and stops at random; when the faults end, everything must end."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import sqlalchemy as sa

from resizeflow.chaos.child import Child
from resizeflow.chaos.cloud import Cloud
from resizeflow.chaos.judge import broken_invariants, lower_epochs, shared_volumes, unbound_runs
from resizeflow.drivers.simulator.bindings import BRIDGE
from resizeflow.drivers.simulator.exports import KINDS
from resizeflow.errors import ResizeflowError
from resizeflow.persistence.database import AWAY
from resizeflow.persistence.models import Instance, Job
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker

WORKERS = 3
MACHINES = 6
HOSTS = ("h1", "h2", "h3")
SETTLE_SECONDS = 120.0
"""Once no more goes wrong every job must be done within this time."""
LEASE = {"lease_seconds": "4", "act_timeout": "1", "fence_window": "0.5", "look_timeout": "1", "max_attempts": "1000"}
BEAT = 0.3
"""Seconds between two things that happen."""


@dataclass
class Outcome:
    """What a soak did, and what was wrong in the end."""

    seed: int
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Soak:
    """A cloud with three hosts and six machines, that are moved to and fro."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - no secret
        self._outcome = Outcome(seed, 0.0)
        self._workers: list[Child] = []
        self._stopped: list[tuple[float, Child]] = []
        self.cloud = Cloud(folder, None, {}, **LEASE)
        self._build()

    def _build(self) -> None:
        cloud = self.cloud
        cloud.build(disks=("vda",), volumes=KINDS, ports=2)
        cloud.world.add_host("h3", vcpus=16, memory_mb=32768, pool_gb=200, bridges=("br0", BRIDGE))
        cloud.world.set_agent("h3")
        uri = cloud.world.uri("h3")
        cloud.inventory.add_host("h3", uri, peer_uri=uri, data_uri="tcp://198.51.100.13")
        for number in range(1, MACHINES):
            name, host = f"web{number}", HOSTS[number % 2]
            volumes = {"vdm": cloud.world.create_cinder_volume(KINDS[number % len(KINDS)])}
            ports = [cloud.world.create_port() for _ in range(number % 3)]
            cloud.world.create_guest(
                host, name, 1, 512, {"vda": 1}, running=number % 3 != 0, volumes=volumes, ports=ports
            )
            cloud.inventory.adopt(host, name)
        cloud.inventory.create_flavor("larger", vcpus=4, memory_mb=2048, root_gb=3, ephemeral_gb=0)

    def run(self, seconds: float, told: Callable[[float], None] = lambda _: None) -> Outcome:
        """Faults for so many seconds, then peace; `told` is called now and then with the seconds that have passed."""
        began = time.monotonic()
        try:
            while time.monotonic() - began < seconds:
                self._ask_for_something()
                self._let_something_go_wrong()
                told(time.monotonic() - began)
                time.sleep(BEAT)
            self._settle()
        finally:
            for child in [*self._workers, *(child for _until, child in self._stopped)]:
                child.end()
        self._outcome.seconds = time.monotonic() - began
        self._outcome.wrong += self._violations()
        return self._outcome

    # --- what users do -----------------------------------------------------------------------------------

    def _ask_for_something(self) -> None:
        counts = self._outcome.counts
        try:
            what, ask = self._random.choice(list(self._possible()))
            ask()
            counts[what] += 1
        except ResizeflowError:
            counts["requests refused"] += 1
        except AWAY:
            counts["database away"] += 1

    def _possible(self) -> Iterator[tuple[str, Callable[[], object]]]:
        with self.cloud.database.read() as tx:
            instance = self._random.choice(tx.session.scalars(sa.select(Instance).order_by(Instance.name)).all())
            migration = tx.migrations.open_for(instance.id)
        service, name = self.cloud.service, instance.name
        if migration is None:
            flavor = self._random.choice(["big", "larger"])
            yield "resizes", lambda: service.resize(name, flavor)
            yield "cold migrations", lambda: service.migrate(name)
        elif migration.status is MigrationStatus.FINISHED:
            yield "confirms", lambda: service.confirm(name)
            yield "reverts", lambda: service.revert(name)
        else:
            yield "rollbacks", lambda: service.rollback(migration.id)
            yield "waits", lambda: None

    # --- what goes wrong ---------------------------------------------------------------------------------

    def _let_something_go_wrong(self) -> None:
        while len(self._workers) < WORKERS:
            self._workers.append(self._new_worker())
        event = self._random.choice(["kill", "stop", *["nothing"] * 4])
        if event == "kill":
            self._workers.pop(self._random.randrange(WORKERS)).end()
            self._outcome.counts["workers killed"] += 1
        elif event == "stop":
            child = self._workers.pop(self._random.randrange(WORKERS))
            os.kill(child.pid, signal.SIGSTOP)
            # One that was stopped in the middle of a transaction has the file of SQLite locked all the while.
            self._stopped.append(
                (time.monotonic() + self._random.uniform(0, 2 * self.cloud.settings.lease_seconds), child)
            )
            self._outcome.counts["workers stopped"] += 1
        for until, child in list(self._stopped):
            if until < time.monotonic():
                self._stopped.remove((until, child))
                self._wake(child)

    def _wake(self, child: Child) -> None:
        """It goes on where it was, as one worker more; it is killed in the end like all others."""
        child.wake(0.0)
        self._workers.append(child)
        if len(self._workers) > WORKERS:
            self._workers.pop(0).end()

    def _new_worker(self) -> Child:
        self.cloud.release()
        return Child(self._serve)

    def _serve(self) -> None:
        with Worker(self.cloud.database, self.cloud.settings, clock=self.cloud.clock) as worker:
            worker.serve(2)

    # --- the end -----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        while self._stopped:
            self._wake(self._stopped.pop()[1])
        while len(self._workers) < WORKERS:
            self._workers.append(self._new_worker())
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._unfinished() and time.monotonic() < deadline:
            time.sleep(BEAT)

    def _unfinished(self) -> list[Job]:
        with self.cloud.database.read() as tx:
            return list(tx.session.scalars(sa.select(Job).where(Job.state != JobState.DONE)).all())

    def _violations(self) -> Iterator[str]:
        for job in self._unfinished():
            yield f"{job.flow} of migration {job.migration_id} is {job.state} after {SETTLE_SECONDS:g} s: {job.reason}"
        cloud = self.cloud
        yield from broken_invariants(cloud)
        counts = self._outcome.counts
        with cloud.database.read() as tx:
            counts["jobs done"], takes = tx.session.execute(
                sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(Job.epoch), 0)).select_from(Job)
            ).one()
            counts["take-overs"] = takes - counts["jobs done"]
            for instance in tx.session.scalars(sa.select(Instance)).all():
                yield from _lost(cloud, instance)
        effects = cloud.world.effects()
        yield from lower_epochs(effects)
        yield from shared_volumes(effects)
        yield from unbound_runs(effects)


def _lost(cloud: Cloud, instance: Instance) -> Iterator[str]:
    runs = cloud.world.running(instance.id)
    if runs not in ((), (instance.host.name,)):
        yield f"{instance.name} runs on {', '.join(runs)}, the records say {instance.host.name}"
    for disk in instance.disks:
        content = cloud.world.content(instance.host.name, disk.volume).split()
        if content[:1] != [f"made:{instance.name}-{disk.device}"]:
            yield f"{disk.volume} of {instance.name} does not hold what was written first: {content}"
