"""A small cloud on the simulator: two hosts, Cinder, Neutron, one machine, a state database; and runs that may be
killed."""

from __future__ import annotations

import atexit
import itertools
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resizeflow import config
from resizeflow.chaos.child import Child
from resizeflow.clock import Clock
from resizeflow.connections import Connections
from resizeflow.drivers.simulator.bindings import BRIDGE
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.drivers.simulator.disks import swap_word
from resizeflow.drivers.simulator.guests import mac_of
from resizeflow.drivers.simulator.neutron import NEUTRON
from resizeflow.drivers.simulator.snapshots import GONE
from resizeflow.drivers.simulator.world import SimulatedWorld
from resizeflow.drivers.swap import Swap
from resizeflow.inventory import Inventory
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import Base, Job, Migration
from resizeflow.service import Service, Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker

HISTORY = frozenset(
    {
        "events",
        "event_logs",
        "seals",
        "audit_keys",
        "jobs",
        "migrations",
        "migration_disks",
        "migration_volumes",
        "migration_ports",
        "logbooks",
        "flow_details",
        "atom_details",
        "workers",
        "stream_segments",
        "notifications",
        "server_events",
        "postman",
        "alembic_version",
    }
)
"""Tables that tell what happened; all others tell what is, and are as before after a rollback."""
MADE_IN_A_RUN = frozenset({"id", "created_at", "launched_at", "attachment_id"})
"""Columns whose values differ from run to run."""
CHILD_SECONDS = 120.0
"""When a run in a child counts as hanging."""
SWAP, SWAP_UUID = "vdx", "6f1e2d3c-0000-4000-8000-00000000005a"
CONFIG_DRIVE = "sda"
VOLUMES = ("vdm", "vdn", "vdo")
"""The devices of data volumes."""
_templates: dict[int, Path] = {}
DEFAULT_SECTION = {"transfer", "shutdown_timeout", "bandwidth", "resize_confirm_window"}


class FastClock(Clock):
    """The real clock, with waits of a thirtieth: what is simulated takes milliseconds."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return super().wait(event, seconds / 30)


class Cloud:
    """Everything a test needs, in one folder; opened anew in each child process."""

    clock: Clock = FastClock()

    def __init__(
        self,
        folder: Path,
        cinder: Mapping[str, str] | None = None,
        neutron: Mapping[str, str] | None = None,
        /,
        *,
        connection: str | None = None,
        **settings: str,
    ) -> None:
        """`connection` is the URL of an empty state database of today's schema; by default a file in the folder.
        `cinder` are the options of a Cinder elsewhere, none if it is empty; by default it is in the simulated world.
        `neutron` are those of a Neutron, which is in the simulated world unless they have an `auth_type`; by default
        there is none.
        `settings` are those of the section `[worker]`, or of `DEFAULT_SECTION`."""
        self.folder = folder
        self._given_database = connection is not None
        connection = connection or f"sqlite:///{folder / 'state.sqlite'}"
        options = {"host_patience": "0", "lease_seconds": "600", "shutdown_timeout": "5", **settings}
        self.world = SimulatedWorld(folder / "world.sqlite")
        self._simulates_cinder = cinder is None
        if cinder is None:
            cinder = {"auth_type": "noauth", "endpoint": self.world.uri(CINDER)}
        self._simulates_neutron = neutron is not None and "auth_type" not in neutron
        at_home = {"auth_type": "noauth", "endpoint": self.world.uri(NEUTRON)} if self._simulates_neutron else {}
        conf = folder / "resizeflow.conf"
        top = {key: options.pop(key) for key in sorted(DEFAULT_SECTION & options.keys())}
        sections = {
            "DEFAULT": top,
            "database": {"connection": connection},
            "audit": {"key_file": str(folder / "audit.key")},
            "worker": options,
            "cinder": cinder,
            "neutron": {**at_home, **(neutron or {})},
        }
        conf.write_text("".join(f"[{name}]\n{_lines(section)}" for name, section in sections.items()))
        self.settings = config.load(str(conf))
        self.connections = Connections()
        self.uuid = ""
        self.volumes: tuple[str, ...] = ()
        self.ports: tuple[str, ...] = ()

    def build(
        self,
        *,
        running: bool = True,
        disks: tuple[str, ...] = ("vda",),
        disk_format: str = "qcow2",
        swap_mb: tuple[int, int] = (0, 0),
        config_drive: bool = False,
        volumes: tuple[str, ...] = (),
        boot_volume: bool = False,
        ports: int = 0,
        bridged: bool = True,
        vlan: int | None = None,
    ) -> Cloud:
        """Two hosts, the adopted machine `web` on h1, and a larger flavor `big`. `swap_mb` is the machine's swap, on
        SWAP, and the flavor's; `volumes` are Cinder's, by their kinds, on VOLUMES, or the first of them on vda if it is
        the `boot_volume`. It has so many of Neutron's `ports`, and if it is `bridged` a NIC that Neutron knows
        nothing of, on a bridge that filters VLANs if it is in a `vlan`."""
        self.world.create()
        if self._simulates_cinder:
            self.world.add_cinder()
        if self._simulates_neutron:
            self.world.add_neutron()
        bridges = ("br0", BRIDGE) if self._simulates_neutron else ("br0",)
        for host in ("h1", "h2"):
            self.world.add_host(host, vcpus=8, memory_mb=16384, pool_gb=100, bridges=bridges)
            if self._simulates_neutron:
                self.world.set_agent(host)
        now, big = swap_mb
        devices = self._swap_disk(now) if now else ""
        devices += self._config_drive() if config_drive else ""
        places = ("vda", *VOLUMES) if boot_volume else VOLUMES
        self.volumes = tuple(self.world.create_cinder_volume(kind) for kind in volumes)
        self.ports = tuple(self.world.create_port() for _ in range(ports))
        self.uuid = self.world.create_guest(
            "h1",
            "web",
            1,
            512,
            dict.fromkeys(disks, 1),
            running=running,
            disk_format=disk_format,
            devices=devices,
            volumes=dict(zip(places, self.volumes, strict=False)),
            ports=self.ports,
            bridged=bridged,
        )
        if vlan is not None:
            for host in ("h1", "h2"):
                self.world.filter_vlans(host)
            self.world.place_in_vlan("h1", self.uuid, vlan)
        if not self._given_database:
            self.make_database()
        for host in ("h1", "h2"):
            uri = self.world.uri(host)
            shell = None if vlan is None else uri
            self.inventory.add_host(host, uri, peer_uri=uri, data_uri="tcp://198.51.100.12", shell=shell)
        vlans = {} if vlan is None else {mac_of(self.uuid): vlan}
        self.inventory.adopt("h1", "web", swap=SWAP if now else None, vlans=vlans)
        ephemeral = len(disks) - (0 if boot_volume else 1)
        self.inventory.create_flavor("big", vcpus=2, memory_mb=1024, root_gb=2, ephemeral_gb=ephemeral, swap_mb=big)
        return self

    def change_ports(self, host: str) -> None:
        """Somebody takes the machine's first port from it, and gives it another one, where it is."""
        self.world.detach_port(host, self.uuid, self.ports[0])
        added = self.world.create_port()
        self.world.attach_port(host, self.uuid, added)
        self.ports = (*self.ports[1:], added)

    def _swap_disk(self, megabytes: int) -> str:
        size = megabytes * 2**20
        content = swap_word(Swap(SWAP_UUID, size, "swap"))
        path = self.world.create_volume("h1", f"web-{SWAP}.raw", size, content, written=size)
        return (
            f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>"
            f"<target dev='{SWAP}' bus='virtio'/></disk>"
        )

    def _config_drive(self) -> str:
        path = self.world.create_volume("h1", "web-config.iso", 2**19, "config", written=2**19)
        return (
            f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{path}'/>"
            f"<target dev='{CONFIG_DRIVE}' bus='sata'/><readonly/></disk>"
        )

    def make_database(self) -> None:
        """A copy of one that was upgraded once in this process: migrations take longer than most tests."""
        template = _templates.get(os.getpid())
        if template is None:
            template = _templates[os.getpid()] = Path(tempfile.mkdtemp(prefix="resizeflow-")) / "state.sqlite"
            database = Database(f"sqlite:///{template}")
            schema.upgrade(database)
            database.engine.dispose()
            atexit.register(shutil.rmtree, template.parent, ignore_errors=True)
        shutil.copy(template, self.folder / "state.sqlite")

    @cached_property
    def database(self) -> Database:
        """Its engine stays in forked children, with the statements that it has compiled."""
        return Database.of(self.settings)

    @property
    def service(self) -> Service:
        return Service(self.database, self.settings, connections=self.connections)

    @property
    def inventory(self) -> Inventory:
        return Inventory(self.database, self.settings, connections=self.connections)

    # --- running -----------------------------------------------------------------------------------------

    def run(self, job: Submitted, *, tries: int = 1) -> JobState:
        """Takes a job up, at most `tries` times, without waiting for its not-before; its state then."""
        with Worker(self.database, self.settings, clock=self.clock) as worker:
            for _ in range(tries):
                self.expire(job)
                worker.take_and_run(job.job_id)
                if self.job(job).state is JobState.DONE:
                    break
        return self.job(job).state

    def run_in_child(
        self, job: Submitted, point: str | None = None, action: str = "kill", log: Path | None = None
    ) -> int:
        """Runs a job once in a forked child, with a failpoint armed; its exit status, KILLED if it was killed."""
        self.release()
        return Child(lambda: self.run(job), f"{point}={action}" if point else "", log).wait(CHILD_SECONDS)

    def release(self) -> None:
        """Closes this process's own connections: a child must not inherit them, its files may be replaced."""
        self.connections.close()
        self.database.engine.dispose()
        self.world.close()

    def expire(self, job: Submitted) -> None:
        """As if the time of the lease, and of a wait, had passed."""
        with self.database.write() as tx:
            tx.session.execute(
                sa.update(Job).where(Job.id == job.job_id).values(lease_until=database_now() - 1, not_before=0.0)
            )

    # --- looking -----------------------------------------------------------------------------------------

    def job(self, job: Submitted) -> Job:
        with self.database.read() as tx:
            return tx.jobs.get(job.job_id)

    def migration(self, job: Submitted) -> Migration:
        with self.database.read() as tx:
            return tx.migrations.whole(job.migration_id)

    def story(self, job: Submitted) -> str:
        """The event log, for the message of a failed assertion."""
        with self.database.read() as tx:
            return "\n".join(f"{e.seq} {e.epoch} {e.kind} {e.task} {e.text}" for e in tx.events.of(job.migration_id))

    def state(self, job: Submitted | None = None) -> dict[str, Any]:
        """The world and the tables that tell what is, without ids that differ from run to run."""
        state: dict[str, Any] = normal({"world": self._seen(), "tables": self.tables()}, job)
        return state

    def _seen(self) -> dict[str, Any]:
        """The world; of each disk the hosts whose runs wrote on it, in their order, but not how often; of a binding
        that is not in force not whether Neutron knows how it is plugged in: it is made anew where need be. Of each
        secret what it is for, but not who made it; one for what is gone is somebody else's, or the doctor finds it."""
        seen = self.world.snapshot()
        for host in seen["hosts"].values():
            host["secrets"] = [(kind, use) for kind, use, _maker in host["secrets"] if use != GONE]
        for volumes in seen["storages"].values():
            for volume in volumes.values():
                del volume["allocation"]
                volume["content"] = _writers(volume["content"])
        for volume in seen["cinder"].values():
            volume["content"] = _writers(volume["content"])
        for port in seen["neutron"].values():
            port["bindings"] = in_force(port["bindings"])
        return seen

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        tables: dict[str, list[tuple[Any, ...]]] = {}
        with self.database.read() as tx:
            for table in Base.metadata.sorted_tables:
                if table.name in HISTORY:
                    continue
                columns = [column for column in table.columns if column.name not in MADE_IN_A_RUN]
                rows = tx.session.execute(sa.select(*columns)).all()
                tables[table.name] = sorted((tuple(row) for row in rows), key=repr)
        return tables


def _lines(section: Mapping[str, str]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in section.items())


def in_force(bindings: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """A port's bindings as a snapshot has them; the vif_type of the active one only."""
    return [(host, status, vif_type if status == "ACTIVE" else "") for host, status, vif_type in bindings]


def _writers(content: str) -> list[str]:
    return [word for word, _again in itertools.groupby(content.split())]


def normal(state: Any, job: Submitted | None) -> Any:
    """A state with the migration's id and lease epochs replaced by words."""
    if isinstance(state, dict):
        return {normal(key, job): normal(value, job) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [normal(value, job) for value in state]
    if isinstance(state, str):
        if job is not None:
            state = state.replace(job.migration_id, "MIGRATION")
        return re.sub(r'epoch="\d+"', 'epoch="N"', state)
    return state
