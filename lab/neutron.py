"""A real Neutron of its own, for tests: its own folder, port on loopback, SQLite database, and end.

    with Neutron() as neutron:
        neutron.add_agents("h1", "h2")
        network = neutron.create_network()
        port = neutron.create_port(network, machine, "h1")
        neutron.plug(port, "h1")

It is version 29 with ML2 and the Open vSwitch mechanism driver, without Keystone, broker and agents: hosts are rows of
its table of agents, and `plug` says what an agent would say. It leaves nothing behind, however its owner ends: a small
process of the shell, the *keeper*, starts, stops and signals it as it is told, and at the end of a pipe that the owner
(and its forks) holds, ends it and removes the folder.
"""

from __future__ import annotations

import json
import shlex
import sqlite3
import subprocess
import tempfile
import urllib.request
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import openstack_environment
from lab.ports import ADDRESS, free_port
from lab.system import LabError, run, wait_until

CODE = Path(__file__).with_name("neutron_server")
START_SECONDS = 120.0
HEADERS = {"X-Roles": "admin,service"}
"""Whom Neutron believes without Keystone. With a project beside it, it would take us for no administrator."""
ALIVE, DEAD = "2099-01-01 00:00:00", "2026-01-01 00:00:00"
"""When an agent was last heard of."""
OVS_AGENT = "Open vSwitch agent"

CONF = """\
[DEFAULT]
auth_strategy = noauth
core_plugin = ml2
service_plugins =
transport_url = fake:///
api_paste_config = {etc}/api-paste.ini
state_path = {folder}/state
dhcp_agent_notification = false
# Agents that nobody speaks for stay alive until their row says that they are dead: this is the longest that it takes.
agent_down_time = 2147483
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
send_events_interval = 1
max_overflow = 20
use_stderr = true
[database]
connection = sqlite:///{folder}/neutron.sqlite
[oslo_concurrency]
lock_path = {folder}/lock
[ml2]
type_drivers = flat,vlan,vxlan
tenant_network_types = vxlan
mechanism_drivers = openvswitch
extension_drivers = port_security
[ml2_type_flat]
flat_networks = *
[ml2_type_vlan]
network_vlan_ranges = physnet1:100:200
[ml2_type_vxlan]
vni_ranges = 1:100000
[securitygroup]
firewall_driver = openvswitch
[quotas]
default_quota = -1
quota_network = -1
quota_subnet = -1
quota_port = -1
[nova]
auth_type = none
endpoint = {events}
"""

KEEPER = """
signal() { [ -z "$server" ] || kill -"$1" "$server"; }
end() { [ -z "$server" ] || { kill -"$1" "$server"; kill -CONT "$server"; wait "$server"; server=; }; }
while read -r word; do
    case $word in
        start) [ -n "$server" ] || { $SERVER >>"$FOLDER/output" 2>&1 </dev/null & server=$!; } ;;
        stop) end TERM ;;
        kill) end KILL ;;
        freeze) signal STOP ;;
        thaw) signal CONT ;;
    esac
    echo done
done
end KILL
rm -rf "$FOLDER"
"""


class Neutron:
    """One server, stopped until `start`."""

    def __init__(self, parent: Path | None = None, *, events: str | None = None) -> None:
        """A new folder in `parent` (default: the machine's place for temporary files). `events` is whom it tells what
        Nova wants to know, as `http://HOST:PORT/v2.1`; by default nobody listens. Raises LabError if Neutron is not
        installed."""
        python = openstack_environment.program("python")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="resizeflow-neutron-", dir=parent))
        self._conf = self.folder / "neutron.conf"
        for folder in ("state", "lock"):
            (self.folder / folder).mkdir()
        self.tell_events_to(events or f"http://{ADDRESS}:{free_port()}/v2.1")
        self._keeper = self._start_keeper(python)
        try:
            run([str(python), str(CODE / "schema.py"), str(self.database)], timeout=START_SECONDS)
        except BaseException:
            self.close()
            raise

    def tell_events_to(self, url: str) -> None:
        """Whom it tells what Nova wants to know, from its next start on."""
        etc = openstack_environment.etc("neutron").absolute()
        self._conf.write_text(CONF.format(etc=etc, folder=self.folder, events=url))

    def _start_keeper(self, python: Path) -> subprocess.Popen[str]:
        server = [str(python), str(CODE / "server.py"), str(self._conf), str(self.port)]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SERVER": shlex.join(server),
            "FOLDER": str(self.folder),
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

    # --- the process -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when it answers; on the same port as before, with what it knew. One that is frozen goes on."""
        self._tell("start")
        self._tell("thaw")
        if not wait_until(self._answers, START_SECONDS, interval=0.1):
            raise LabError(f"Neutron did not start: {(self.folder / 'output').read_text()[-2000:]}")

    def stop(self) -> None:
        """The end that an administrator gives it."""
        self._tell("stop")

    def kill(self) -> None:
        """An end like a crash, whatever it was doing."""
        self._tell("kill")

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It takes requests and never answers; what it took is done after `thaw`."""
        self._tell("freeze")

    def thaw(self) -> None:
        """Go on."""
        self._tell("thaw")

    def close(self) -> None:
        """Ends the server, whatever it does, and removes its folder."""
        self._keeper.communicate()

    # --- what is in it -----------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://{ADDRESS}:{self.port}"

    @property
    def database(self) -> Path:
        """Its state, in SQLite: to look at, or to damage."""
        return self.folder / "neutron.sqlite"

    def client(self, timeout: float = 60) -> Any:
        """An openstacksdk connection that Neutron takes for an administrator and for a service such as Nova."""
        import openstack  # noqa: PLC0415 - slow to import
        from keystoneauth1 import noauth, session  # noqa: PLC0415 - as above

        login = session.Session(noauth.NoAuth(endpoint=self.endpoint), timeout=timeout, additional_headers=HEADERS)
        return openstack.connection.Connection(session=login, network_endpoint_override=self.endpoint)

    def add_agents(self, *hosts: str) -> None:
        """Open vSwitch agents that are alive, on hosts that have none."""
        configuration = {
            "bridge_mappings": {"physnet1": "br-ex"},
            "tunnel_types": ["vxlan"],
            "tunneling_ip": ADDRESS,
            "integration_bridge": "br-int",
            "datapath_type": "system",
            "ovs_hybrid_plug": False,
            "extensions": [],
        }
        common = (OVS_AGENT, "neutron-openvswitch-agent", "N/A", True, ALIVE, ALIVE, ALIVE, json.dumps(configuration))
        with sqlite3.connect(self.database, timeout=20) as database:
            database.executemany(
                "INSERT INTO agents (id, host, agent_type, binary, topic, admin_state_up, created_at, started_at, "
                "heartbeat_timestamp, configurations, load) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                [(str(uuid.uuid4()), host, *common) for host in hosts],
            )
        database.close()

    def set_agent(self, host: str, *, alive: bool) -> None:
        """Whether the agent of a host is heard of."""
        self._change("UPDATE agents SET heartbeat_timestamp = ? WHERE host = ?", ALIVE if alive else DEAD, host)

    def set_hybrid(self, host: str, *, hybrid: bool) -> None:
        """Whether the agent of a host plugs ports in through a firewall bridge: of bindings that are made from now."""
        self._change(
            "UPDATE agents SET configurations = json_set(configurations, '$.ovs_hybrid_plug', json(?)) WHERE host = ?",
            json.dumps(hybrid),
            host,
        )

    def create_network(self, name: str = "private", **attributes: Any) -> str:
        """A network without subnets; its id."""
        return str(self.client().network.create_network(name=name, **attributes).id)

    def create_port(self, network_id: str, instance_id: str, host: str, **attributes: Any) -> str:
        """A port of a machine, bound to a host as Nova binds it, not yet plugged in; its id."""
        made = self.client().network.create_port(
            network_id=network_id,
            device_id=instance_id,
            device_owner="compute:nova",
            binding_host_id=host,
            **attributes,
        )
        return str(made.id)

    def plug(self, port_id: str, host: str, *, up: bool = True) -> None:
        """What the agent of a host does when a port's device is there, or is gone. Neutron believes it only where the
        port is bound."""
        url = f"{self.endpoint}/agents/{host}/ports/{port_id}/{'up' if up else 'down'}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60):  # noqa: S310 - our own
            pass

    def __enter__(self) -> Neutron:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.close()

    def _change(self, statement: str, *values: Any) -> None:
        with sqlite3.connect(self.database, timeout=20) as database:
            changed = database.execute(statement, values).rowcount
        database.close()
        if not changed:
            raise LabError(f"Neutron knows nothing like {values}")

    def _tell(self, word: str) -> None:
        if self._keeper.stdin is None or self._keeper.stdout is None:
            raise LookupError("the keeper has no pipes")
        self._keeper.stdin.write(f"{word}\n")
        self._keeper.stdin.flush()
        self._keeper.stdout.readline()

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.endpoint}/v2.0/agents", headers=HEADERS)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False
