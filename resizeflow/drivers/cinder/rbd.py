"""Who has an RBD image open: asked of Ceph by the `rbd` command of Debian's ceph-common.

It needs no /etc/ceph: the monitors and the user come from the volume's connection. The key is handed over in memory, by
a file descriptor. A process, because librados waits for a Ceph that is away for as long as it likes.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from resizeflow.drivers.interface import Missing, Refused, Unknown
from resizeflow.drivers.openstack.errors import cleaned
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.volume import VolumeConnection

_NO_SUCH_IMAGE = errno.ENOENT
_NOT_LET_IN = (errno.EPERM, errno.EACCES, errno.EINVAL)
_OTHER_KEY = "handle_auth_bad_method"
"""What librados of Ceph 16 prints again and again for somebody with another key, until its time is up."""


def watchers(connection: VolumeConnection, key: Secret | None, timeout: float) -> tuple[str, ...]:
    """Their addresses. Raises `Missing` without such an image, `Refused` if Ceph or this machine cannot be asked,
    `Unknown` if Ceph does not answer within `timeout` seconds."""
    if connection.kind != "rbd":
        raise Refused(f"Nobody knows who has {connection.name} open: it is connected by {connection.kind}.")
    if connection.user and key is None:
        raise Refused(
            f"Ceph tells who has {connection.name} open to client.{connection.user} only: its key is lacking."
        )
    with _in_memory(key) as descriptor:
        status, answer, words = _rbd_status(connection, descriptor, timeout)
    if status in _NOT_LET_IN or _OTHER_KEY in words:
        raise Refused(f"Ceph does not let client.{connection.user} in with its key.")
    said = _said(words) or f"no answer within {timeout:g} s"
    if status == _NO_SUCH_IMAGE:
        raise Missing(f"Ceph has no image {connection.name}: {said}.")
    if status != 0:
        raise Unknown(f"Ceph did not say who has {connection.name} open: {said}.")
    return tuple(str(watcher["address"]) for watcher in json.loads(answer)["watchers"])


def _said(words: str) -> str:
    """The command's own last line. The library's lines are not repeated: it prints a key that it cannot decode."""
    lines = [line.removeprefix("rbd: ") for line in words.splitlines() if line.startswith("rbd: ")]
    return cleaned(lines[-1]) if lines else ""


def _rbd_status(connection: VolumeConnection, descriptor: int | None, timeout: float) -> tuple[int | None, str, str]:
    """The exit status, None if it had to be killed, and what it printed."""
    seconds = str(max(int(timeout), 1))
    command = ["rbd", "status", connection.name, "--format", "json", "--conf", "/dev/null"]
    command += [
        "--mon-host",
        ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in connection.hosts),
    ]
    # It ends by itself if this process does not live to end it.
    command += ["--client-mount-timeout", seconds, "--rados-osd-op-timeout", seconds]
    if descriptor is None:
        command += ["--auth-supported", "none"]
    else:
        command += ["--id", str(connection.user), "--keyfile", f"/dev/fd/{descriptor}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout,
            pass_fds=() if descriptor is None else (descriptor,),
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("CEPH_")},
        )
    except FileNotFoundError:
        raise Refused(
            "Who has an RBD image open is asked with rbd: install ceph-common on the worker's machine."
        ) from None
    except subprocess.TimeoutExpired as error:
        return None, "", (error.stderr or b"").decode(errors="replace")
    return done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")


@contextmanager
def _in_memory(key: Secret | None) -> Iterator[int | None]:
    """A file that is nowhere, with the key as Ceph writes it."""
    if key is None:
        yield None
        return
    descriptor = os.memfd_create("key")
    try:
        os.write(descriptor, base64.b64encode(key.value))
        yield descriptor
    finally:
        os.close(descriptor)
