"""Neutron's API in one process, with a way to say what the agents of its hosts would say.

Run by the interpreter of Cinder's and Neutron's own virtual environment:

    server.py CONF PORT

There is no broker, and there are no agents. `POST /agents/HOST/ports/PORT/up` (or `down`) calls what an Open vSwitch
agent calls when it has plugged a port in; it answers 204. All other requests go to Neutron.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

ADDRESS = "127.0.0.1"
Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request."""

    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    """Neutron keeps its own log; nobody waits for names of clients."""

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return str(self.client_address[0])


def main() -> None:
    """Serve until killed."""
    conf, port = Path(sys.argv[1]), int(sys.argv[2])
    os.environ["OS_NEUTRON_CONFIG_DIR"] = str(conf.parent)
    os.environ["OS_NEUTRON_CONFIG_FILES"] = conf.name
    sys.argv[1:] = []
    from neutron.wsgi.api import (  # type: ignore[import-not-found] # noqa: PLC0415 - importing it starts it
        application,
    )

    make_server(ADDRESS, port, with_agents(application), Server, Handler).serve_forever()


def with_agents(application: Application) -> Application:
    """The API, and the agents' side of it."""

    def answer(environment: dict[str, Any], start: Start) -> Iterable[bytes]:
        match environment["PATH_INFO"].split("/"):
            case ["", "agents", host, "ports", port_id, "up" | "down" as state]:
                tell(host, port_id, state)
                start("204 No Content", [])
                return [b""]
        return application(environment, start)

    return answer


def tell(host: str, port_id: str, state: str) -> None:
    """What the agent of a host says of a port. Before it plugs one in, it asks how, which binds an active binding that
    is unbound; without an active one on its host it does nothing."""
    from neutron.plugins.ml2.rpc import (  # type: ignore[import-not-found] # noqa: PLC0415 - only while it runs
        RpcCallbacks,
    )
    from neutron_lib import context  # type: ignore[import-not-found] # noqa: PLC0415 - as above
    from neutron_lib.plugins import directory  # type: ignore[import-not-found] # noqa: PLC0415 - as above

    plugin = directory.get_plugin()
    agents = RpcCallbacks(plugin.notifier, plugin.type_manager)
    admin = context.get_admin_context()
    known = {"device": port_id, "agent_id": f"ovs-agent-{host}", "host": host}
    if state == "down":
        agents.update_device_down(admin, **known)
    elif "port_id" in agents.get_device_details(admin, **known):
        agents.update_device_up(admin, **known)


if __name__ == "__main__":
    main()
