"""A host's shell by a real ssh, with a key that may do no more than contrib/resizeflow-vlans lets it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.system import TIED
from resizeflow.drivers import connect
from resizeflow.drivers.interface import Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.shell.runner import Runner, words_of
from tests.contract.contract_sites import until

pytestmark = pytest.mark.lab
FORCED = Path(__file__).parents[2] / "contrib/resizeflow-vlans"
NETNS = "rf-ssh-contract"
WITHIN = ("ip", "netns", "exec", NETNS)
PORT = "2222"


@dataclass
class Sshd:
    """One in a network of its own, where there is a bridge."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def shell(self) -> str:
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": self.folder / "known",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        return shlex.join(
            [*WITHIN, "ssh", "-F", "none", "-i", str(self.folder / "key"), *words, "-p", PORT, "root@127.0.0.1"]
        )

    def ask(self, method: str, *args: object, timeout: float = 20) -> object:
        return connect(f"shell:{self.shell}").call(method, args, timeout=timeout)

    def act(self, *command: str, timeout: float = 20) -> None:
        Runner(tuple(words_of(self.shell)), time.monotonic() + timeout).act(*command)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for name in ("key", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    key = (tmp_path / "key.pub").read_text()
    (tmp_path / "authorized").write_text(f'restrict,command="{FORCED}" {key}')
    (tmp_path / "config").write_text(
        f"Port {PORT}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\n"
        f"AuthorizedKeysFile {tmp_path / 'authorized'}\nStrictModes no\nPidFile none\nUsePAM no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    try:
        for command in ("ip link set lo up", "ip link add br0 type bridge"):
            subprocess.run([*WITHIN, *command.split()], check=True)
        serve = [*TIED, *WITHIN, "/usr/sbin/sshd", "-D", "-e", "-f", str(tmp_path / "config")]
        with (tmp_path / "log").open("wb") as log, subprocess.Popen(serve, stderr=log) as process:
            until(lambda: b"listening" in (tmp_path / "log").read_bytes())
            yield Sshd(tmp_path, process)
            process.kill()
    finally:
        subprocess.run(["ip", "netns", "delete", NETNS], check=True)


def test_looks_and_refusals(sshd: Sshd) -> None:
    with pytest.raises(Refused, match="br0 does not filter VLANs"):
        sshd.ask("bridge_links", "br0")
    with pytest.raises(Missing, match="no bridge br9"):
        sshd.ask("bridge_links", "br9")
    with pytest.raises(Refused, match='Cannot find bridge device "nothing"'):
        sshd.act(*["bridge", "vlan", "add", "dev", "nothing", "vid", "10", "pvid", "untagged"])
    with pytest.raises(Refused, match="is not allowed"):
        sshd.act(*["ip", "link", "delete", "br0"])


def test_a_host_that_is_away(sshd: Sshd) -> None:
    sshd.process.kill()
    sshd.process.wait()
    with pytest.raises(Unreachable, match="Connection refused"):
        sshd.ask("bridge_links", "br0")
    with pytest.raises(Unknown, match="Connection refused"):
        sshd.act("bridge", "vlan")


def test_a_key_that_is_not_known_there(sshd: Sshd) -> None:
    (sshd.folder / "authorized").write_text("")
    with pytest.raises(Unreachable, match="Permission denied"):
        sshd.ask("bridge_links", "br0")


def test_a_host_that_hangs(sshd: Sshd) -> None:
    sshd.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Unknown, match="in time"):
        sshd.ask("bridge_links", "br0", timeout=2)
    assert time.monotonic() - began < 15
    sshd.process.send_signal(signal.SIGCONT)
    with pytest.raises(Missing):
        sshd.ask("bridge_links", "br9")
