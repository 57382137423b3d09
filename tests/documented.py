"""The commands of the docs, as their reader types them.

They are in ```console blocks, after `$ ` or `# `. A comment of HTML in the line before a block says what is special:

    <!-- exit 4 -->             its last command of resizeflow ends with this code
    <!-- not run: WHY -->       its commands are only parsed
    <!-- fleet: SCENE -->       it begins with a new fleet, in which SCENE has happened (tests/scenes.py)

Commands of resizeflow are run one after the other at a simulated fleet, all others are
named in `OTHERS` with the reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("resizeflow/runbook/*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"((?:^ *<!-- .*? -->\n)*)^( *)```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


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
    "ssh": "another machine",
    "export": "the reader's shell",
    "source": "the reader's shell",
}
"""Programs whose commands are not run here, and why."""
