"""The commands of the docs, as their reader types them, and the fleet that they are typed at.

They are in ```console blocks, after `$ ` or `# `. A comment of HTML in the line before a block says what is special:

    <!-- exit 4 -->             its last command ends with this code
    <!-- not run: WHY -->       its commands are only parsed
    <!-- fleet: SCENE -->       it begins with a new fleet, in which SCENE has happened

Commands of resizeflow are run one after the other at a simulated fleet, all others are
named in `OTHERS` with the reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers.simulator import ALWAYS
from resizeflow.persistence.models import Event, Migration

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("resizeflow/runbook/*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"((?:^ *<!-- .*? -->\n)*)^( *)```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ANY_MIGRATION = "1a2b3c4d"
"""What the docs write for the beginning of a migration's id."""
NOTHING_KNOWN = "nothing known"
"""The scene in which the database is empty."""
HOST_URI = re.compile(r"qemu\+(?:tls|tcp)://(?:h|198\.51\.100\.1)(\d)\b\S*|\$\(python -m lab uri h(\d)\)")
"""How the docs name a host: by its name, or the lab's address or command."""


@dataclass(frozen=True)
class Block:
    """Commands that are read together."""

    line: int
    commands: tuple[tuple[str, ...], ...]
    exit_code: int
    not_run: str | None
    scene: str | None


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    for match in BLOCK.finditer(text):
        said = dict(re.findall(r"<!-- (exit|not run|fleet):? (.*?) -->", match[1]))
        lines = [line.strip() for line in match[3].replace("\\\n", " ").splitlines()]
        typed = [words_of(line[2:]) for line in lines if line.startswith(("$ ", "# "))]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, tuple(typed), int(said.get("exit", 0)), said.get("not run"), said.get("fleet")))
    return found


def words_of(line: str) -> tuple[str, ...]:
    """A command as its program gets it: without variables before it, a comment behind it, and where its output goes."""
    words = shlex.split(line, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    ends = [number for number, word in enumerate(words) if word in (">", "|", "<<END")]
    return tuple(words[: ends[0]] if ends else words)


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


def _rolled_back(cloud: Cloud) -> None:
    cloud.world.fail("h2", "start_paused", "no such CPU", times=ALWAYS)
    _finished(cloud)
    cloud.world.heal()


def _attention(cloud: Cloud) -> None:
    _finished(cloud)
    cloud.world.fail("h1", "undefine", "the daemon is out of memory", times=ALWAYS)
    cloud.run(cloud.service.confirm("web-1"), tries=2)
    cloud.world.heal()


def _forged(cloud: Cloud) -> None:
    _finished(cloud)
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Event).where(Event.seq == 5).values(text="nothing happened"))


SCENES: Mapping[str, Callable[[Cloud], object]] = {
    "at rest": lambda _cloud: None,
    "submitted": _submitted,
    "finished": _finished,
    "rolled back": _rolled_back,
    "needs attention": _attention,
    "a forged log": _forged,
    "h2 disabled": lambda cloud: cloud.inventory.set_host("h2", enabled=False),
    "web-1 locked": lambda cloud: cloud.inventory.lock("web-1", True),
    "db-1 managed": lambda cloud: cloud.inventory.adopt("h1", "db-1", project="shop"),
    NOTHING_KNOWN: lambda _cloud: None,
}
"""What has happened at a fleet."""

OTHERS: Mapping[str, str] = {
    "virsh": "a real host",
    "bridge": "a real host",
    "ip": "a real host",
    "qemu-img": "a real host",
    "nft": "a real host",
    "mkdir": "a real host",
    "install": "a real host",
    "openssl": "test_libvirt_tls.py runs it",
    "printf": "test_libvirt_tls.py runs it",
    "umask": "test_libvirt_tls.py runs it",
    "openstack": "a Neutron",
    "cinder": "a Cinder",
    "rbd": "a Ceph",
    "ceph": "a Ceph",
    "psql": "a PostgreSQL",
    "pg_dump": "a PostgreSQL",
    "journalctl": "systemd",
    "systemctl": "systemd",
    "systemd-analyze": "test_systemd_unit.py runs it",
    "systemd-creds": "systemd",
    "pytest": "the tests themselves",
    "apt-get": "installs packages",
    "python3": "makes a virtual environment",
    "pip": "installs packages",
    "ln": "root",
    "cp": "root",
    "scp": "another machine",
    "export": "the reader's shell",
    "source": "the reader's shell",
}
"""Programs whose commands are not run here, and why."""
