"""A RabbitMQ server of its own, for tests: its own folder, ports on loopback, Erlang cookie, epmd, and end.

    with RabbitMQ() as broker:
        Cloud(folder, transport_url=broker.url)

It leaves nothing behind, however its owner ends: a small process of the shell, the *keeper*, starts and stops it as it
is told, and at the end of a pipe that the owner (and its forks) holds, ends it and removes the folder.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from lab.ports import ADDRESS, free_port
from lab.system import LabError, wait_until

USER = "rabbitmq"
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
HELLO = b"AMQP\x00\x00\x09\x01"
START_SECONDS = 300.0
KEEPER = """
end() { [ -z "$broker" ] || { kill -"$1" "$broker"; wait "$broker"; broker=; }; }
$EPMD >/dev/null 2>&1 </dev/null & epmd=$!
while read -r word; do
    case $word in
        start) $BROKER >>"$FOLDER/output" 2>&1 </dev/null & broker=$! ;;
        stop) end TERM ;;
        kill) end KILL ;;
    esac
    echo done
done
end KILL
kill -KILL "$epmd"
wait
rm -rf "$FOLDER"
"""


class RabbitMQ:
    """One server, stopped until `start`. Its user has a password that only `url` tells."""

    def __init__(self, parent: Path | None = None) -> None:
        """A new folder in `parent` (default: the machine's place for temporary files). Raises LabError if RabbitMQ is
        not installed."""
        if not PROGRAM.exists():
            raise LabError("RabbitMQ is not installed: run scripts/bootstrap, or apt-get install rabbitmq-server")
        self._password = secrets.token_hex(8)
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="resizeflow-rabbitmq-", dir=parent))
        self._configure()
        self._keeper = self._start_keeper()

    def _configure(self) -> None:
        lines = [
            f"listeners.tcp.1 = {ADDRESS}:{self.port}",
            f"default_user = {USER}",
            f"default_pass = {self._password}",
            # A test machine's disk may be nearly full; RabbitMQ would take nothing then.
            "disk_free_limit.absolute = 10MB",
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "plugins").write_text("[].\n")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, USER, USER)

    def _start_keeper(self) -> subprocess.Popen[str]:
        as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups") if os.geteuid() == 0 else ()
        epmd_port = free_port()
        environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "EPMD": shlex.join([*as_user, "epmd", "-address", ADDRESS, "-port", str(epmd_port)]),
            "BROKER": shlex.join([*as_user, str(PROGRAM)]),
            "FOLDER": str(self.folder),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": ADDRESS,
            "RABBITMQ_NODENAME": f"resizeflow{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "config"),
            # With it the script becomes the server, so that the keeper's child is the server itself.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }
        # In a session of its own: Ctrl-C at the terminal is its owner's.
        return subprocess.Popen(
            ["sh", "-c", KEEPER],
            cwd="/",
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def start(self) -> None:
        """Returns when it takes connections; on the same port as before, with what was kept on disk."""
        self._tell("start")
        if not wait_until(self._answers, timeout=START_SECONDS):
            raise LabError(f"RabbitMQ did not start: {(self.folder / 'output').read_text()[-2000:]}")

    def stop(self) -> None:
        """The end that an administrator gives it."""
        self._tell("stop")

    def kill(self) -> None:
        """An end like a crash."""
        self._tell("kill")

    def close(self) -> None:
        """Ends the server, whatever it does, and removes its folder."""
        self._keeper.communicate()

    @property
    def url(self) -> str:
        """For oslo.messaging, with the password."""
        return f"rabbit://{USER}:{self._password}@{ADDRESS}:{self.port}/"

    def _tell(self, word: str) -> None:
        if self._keeper.stdin is None or self._keeper.stdout is None:
            raise LookupError("the keeper has no pipes")
        self._keeper.stdin.write(f"{word}\n")
        self._keeper.stdin.flush()
        self._keeper.stdout.readline()

    def _answers(self) -> bool:
        """Whether it begins a conversation: it listens once its queues are there."""
        try:
            with socket.create_connection((ADDRESS, self.port), timeout=5) as probe:
                probe.sendall(HELLO)
                return bool(probe.recv(1))
        except OSError:
            return False

    def __enter__(self) -> RabbitMQ:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.close()
