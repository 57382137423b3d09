"""The fleet that the commands of the docs are typed at, and what may have happened to it before."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.hypervisor import VolumeSpec
from resizeflow.drivers.simulator import ALWAYS
from resizeflow.persistence.models import Binding, Event, Host, Migration, MovedDisk, Port, QuotaUsage
from tests.planted import by_hand, host_id, sql

ANY_MIGRATION = "1a2b3c4d"
"""What the docs write for the beginning of a migration's id."""
NOTHING_KNOWN = "nothing known"
"""The scene in which the database is empty."""
HOST_URI = re.compile(r"qemu\+(?:tls|tcp)://(?:h|198\.51\.100\.1)(\d)\b\S*|\$\(python -m lab uri h(\d)\)")
"""How the docs name a host: by its name, or the lab's address or command."""


class Fleet:
    """Hosts h1 and h2, the machines web-1 (managed) and db-1 (not yet) on h1, the flavor medium; and what happened."""

    def __init__(self, folder: Path, scene: str) -> None:
        self.cloud = cloud = Cloud(folder, max_attempts="1")
        cloud.world.create().add_cinder()
        for host in ("h1", "h2"):
            cloud.world.add_host(host, vcpus=8, memory_mb=16384, pool_gb=100)
        for name in ("web-1", "db-1"):
            cloud.world.create_guest("h1", name, 1, 512, {"vda": 1})
        cloud.make_database()
        if scene != NOTHING_KNOWN:
            for host in ("h1", "h2"):
                uri = cloud.world.uri(host)
                cloud.inventory.add_host(host, uri, peer_uri=uri)
            cloud.inventory.adopt("h1", "web-1")
            cloud.inventory.create_flavor("medium", vcpus=2, memory_mb=1024, root_gb=2)
        SCENES[scene](cloud)

    def typed(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The words for this fleet: its hosts' URIs, its latest migration."""
        with self.cloud.database.read() as tx:
            latest = tx.session.scalar(sa.select(Migration.id).order_by(Migration.created_at.desc()))
        known = [HOST_URI.sub(lambda found: self.cloud.world.uri(f"h{found[1] or found[2]}"), word) for word in words]
        return tuple(word.replace(ANY_MIGRATION, latest[:8] if latest else ANY_MIGRATION) for word in known)


def _submitted(cloud: Cloud) -> None:
    cloud.service.resize("web-1", "medium", host="h2")


def _finished(cloud: Cloud) -> None:
    cloud.run(cloud.service.resize("web-1", "medium", host="h2"))


def _waits_for_its_host(cloud: Cloud) -> None:
    job = cloud.service.resize("web-1", "medium", host="h2")
    cloud.world.set_up("h1", False)
    cloud.run(job)
    cloud.world.set_up("h1", True)


def _rolled_back(cloud: Cloud) -> None:
    cloud.world.fail("h2", "start_paused", "no such CPU", times=ALWAYS)
    _finished(cloud)
    cloud.world.heal()


def _attention(cloud: Cloud) -> None:
    _finished(cloud)
    cloud.world.fail("h1", "undefine", "the daemon is out of memory", times=ALWAYS)
    cloud.run(cloud.service.confirm("web-1"), tries=2)
    cloud.world.heal()


def _in_debt(cloud: Cloud) -> None:
    """h1 was away while the resize was confirmed."""
    _finished(cloud)
    cloud.world.set_up("h1", False)
    cloud.run(cloud.service.confirm("web-1"))
    cloud.world.set_up("h1", True)


def _binding_left(cloud: Cloud) -> None:
    _rolled_back(cloud)
    with cloud.database.read() as tx:
        port = tx.session.scalars(sa.select(Port)).first()
        migration = tx.session.scalars(sa.select(Migration)).one()
    assert port is not None
    left = {"port_id": port.id, "host_id": host_id(cloud, "h2"), "active": False, "migration_id": migration.id}
    sql(cloud, sa.insert(Binding).values(left))


def _disk_left(cloud: Cloud) -> None:
    _rolled_back(cloud)
    with cloud.database.read() as tx:
        disk = tx.session.scalars(sa.select(MovedDisk)).one()
    by_hand(cloud, "h2", "create_volume", "default", VolumeSpec(str(disk.dest_volume), 2**30, "qcow2"))


def _forged(cloud: Cloud) -> None:
    _finished(cloud)
    sql(cloud, sa.update(Event).where(Event.seq == 5).values(text="nothing happened"))


SCENES: Mapping[str, Callable[[Cloud], object]] = {
    "at rest": lambda _cloud: None,
    "submitted": _submitted,
    "finished": _finished,
    "rolled back": _rolled_back,
    "needs attention": _attention,
    "web-1 waited for h1": _waits_for_its_host,
    "something left on h1": _in_debt,
    "a quota counted wrongly": lambda cloud: sql(cloud, sa.update(QuotaUsage).values(in_use=QuotaUsage.in_use + 1)),
    "a host counted wrongly": lambda cloud: sql(cloud, sa.update(Host).values(used_vcpus=Host.used_vcpus + 1)),
    "a binding left": _binding_left,
    "a disk left on h2": _disk_left,
    "a forged log": _forged,
    "h2 disabled": lambda cloud: cloud.inventory.set_host("h2", enabled=False),
    "web-1 locked": lambda cloud: cloud.inventory.lock("web-1", True),
    "db-1 managed": lambda cloud: cloud.inventory.adopt("h1", "db-1", project="shop"),
    NOTHING_KNOWN: lambda _cloud: None,
}
"""What has happened at a fleet."""
