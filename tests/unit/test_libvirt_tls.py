"""docs/libvirt-tls.md, word by word: its commands make certificates by which a real libvirtd lets in whom it should,
and nobody else. That libvirtd is an ordinary user's, with libvirt's own test driver: no machine here is touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.ports import free_port
from tests.documented import BLOCK, ROOT

LIBVIRTD = shutil.which("libvirtd", path="/usr/sbin:/usr/bin")
USER = "nobody"
PAGE = ROOT / "docs/libvirt-tls.md"
FOR_ROOT = re.compile(r"install -m \d+ (\S+) /etc/pki/libvirt/(?:private/)?(\w+)\.pem")
pytestmark = [
    pytest.mark.skipif(LIBVIRTD is None, reason="no libvirtd here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a libvirtd as another user"),
]


def typed() -> list[str]:
    """The page's commands for an ordinary user, but for those that reach a host; the host is this machine."""
    lines = [line for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))
             for line in block[3].replace("\\\n", " ").splitlines()]  # fmt: skip
    ours = [line[2:] for line in lines if line.startswith("$ ") and not line.startswith(("$ virsh", "$ resizeflow"))]
    return [line.replace("h1.example.org", "localhost") for line in ours]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's commands leave behind; and the same by an authority that nobody knows."""
    folder = tmp_path_factory.mktemp("pki")
    for place in (folder, folder / "stranger"):
        place.mkdir(exist_ok=True)
        script = "\n".join(["set -e", *typed()])
        done = subprocess.run(["bash", "-c", script], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (place / "clientkey.pem").stat().st_mode & 0o077 == 0
    return folder


@pytest.fixture(scope="module")
def port(pki: Path) -> Iterator[int]:
    """Where a libvirtd listens, with the server's files where the page says, and its list of who may come."""
    number = free_port()
    text = PAGE.read_text(encoding="utf-8")
    allowed = re.search(r"^ {4}(tls_allowed_dn_list = .*)$", text, re.MULTILINE)
    files = {name: pki / file for file, name in FOR_ROOT.findall(text)}
    assert allowed
    assert set(files) == {"servercert", "serverkey", "clientcert", "clientkey"}
    home = pki / "home"
    home.mkdir()
    (home / "libvirtd.conf").write_text(
        f'listen_tls = 1\nlisten_addr = "127.0.0.1"\ntls_port = "{number}"\nca_file = "{pki}/cacert.pem"\n'
        f'cert_file = "{files["servercert"]}"\nkey_file = "{files["serverkey"]}"\n{allowed[1]}\n'
        f'unix_sock_dir = "{home}"\nauth_unix_rw = "none"\n'
    )
    for path in (pki, *pki.rglob("*")):
        shutil.chown(path, USER)
    for parent in list(pki.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    environment = {"PATH": "/usr/sbin:/usr/bin", "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    daemon = subprocess.Popen(
        ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups", str(LIBVIRTD), "--listen",
         "--config", str(home / "libvirtd.conf"), "--pid-file", str(home / "pid")],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while "running" not in machines(number, pki) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield number
    finally:
        daemon.terminate()
        daemon.wait()


def machines(port: int, pkipath: Path, host: str = "localhost") -> str:
    """What virsh sees of libvirt's test driver by TLS, or its complaint."""
    words = ["virsh", "-c", f"test+tls://{host}:{port}/default?pkipath={pkipath}", "list", "--all"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def folder_of(tmp_path: Path, ca: Path, certificate: Path, key: Path) -> Path:
    for source, name in ((ca, "cacert.pem"), (certificate, "clientcert.pem"), (key, "clientkey.pem")):
        shutil.copy(source, tmp_path / name)
    return tmp_path


def test_a_worker_is_let_in(port: int, pki: Path) -> None:
    assert re.search(r"\btest +running", machines(port, pki))


def test_another_host_is_let_in(port: int, pki: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, pki / "cacert.pem", pki / "h1-cert.pem", pki / "h1-key.pem")
    assert "running" in machines(port, folder)


def test_a_certificate_of_another_authority_is_not_let_in(port: int, pki: Path, tmp_path: Path) -> None:
    stranger = pki / "stranger"
    folder = folder_of(tmp_path, pki / "cacert.pem", stranger / "clientcert.pem", stranger / "clientkey.pem")
    assert "failed to connect" in machines(port, folder)


def test_a_host_of_another_authority_is_not_believed(port: int, pki: Path) -> None:
    assert "hasn't got a known issuer" in machines(port, pki / "stranger")


def test_a_host_under_another_name_is_not_believed(port: int, pki: Path) -> None:
    assert "does not match the hostname" in machines(port, pki, "127.0.0.1")


def test_without_a_certificate_the_complaint_is_the_one_of_the_page(port: int, tmp_path: Path) -> None:
    assert "Cannot read CA certificate" in machines(port, tmp_path)
    assert "Cannot read CA certificate" in PAGE.read_text(encoding="utf-8")
