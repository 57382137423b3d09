"""A simulated Neutron: its ports, their bindings, its errors, and its agents on the hosts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resizeflow.drivers.interface import Missing
from resizeflow.drivers.network import NetworkAgent, NetworkPort, NetworkService, PortBinding
from resizeflow.drivers.simulator import bindings
from resizeflow.drivers.simulator.agents import KIND, is_alive, report
from resizeflow.drivers.simulator.session import Session
from resizeflow.drivers.simulator.store import boottime

NEUTRON = "neutron"
"""Its name among the places of a world."""


class SimulatedNeutron(NetworkService):
    """Neutron, for the length of a call. Its acts are logged by the port that they are about."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- looks -------------------------------------------------------------------------------------------

    def network_service(self) -> None:
        with self._looking("network_service"):
            return

    def network_agents(self) -> tuple[NetworkAgent, ...]:
        with self._looking("network_agents") as db:
            hosts = [row["host"] for row in db.execute("SELECT host FROM neutron_agents ORDER BY host")]
            return tuple(NetworkAgent(host, KIND, is_alive(db, host)) for host in hosts)

    def port(self, port_id: str) -> NetworkPort | None:
        with self._looking("port") as db:
            try:
                return bindings.shown_port(bindings.port(db, port_id))
            except Missing:
                return None

    def ports(self, instance_id: str) -> tuple[NetworkPort, ...]:
        with self._looking("ports") as db:
            rows = db.execute("SELECT * FROM neutron_ports WHERE instance = ? ORDER BY id", (instance_id,))
            return tuple(bindings.shown_port(row) for row in rows)

    def bindings(self, port_id: str) -> tuple[PortBinding, ...]:
        with self._looking("bindings") as db:
            try:
                return tuple(bindings.shown_binding(row) for row in bindings.bindings_of(db, port_id))
            except Missing:
                return ()

    @contextmanager
    def _looking(self, method: str) -> Iterator[sqlite3.Connection]:
        """As a session's, once the agents have told what they see."""
        with self._session.looking(method):
            pass
        with self._session.store.transaction() as db:
            report(db, boottime())
            yield db

    # --- acts --------------------------------------------------------------------------------------------

    def create_binding(self, port_id: str, host: str, vnic_type: str, profile: Mapping[str, Any]) -> None:
        with self._session.acting("create_binding", port_id, host, vnic_type, profile) as db:
            bindings.create(db, port_id, host, vnic_type, profile)

    def activate_binding(self, port_id: str, host: str) -> None:
        with self._session.acting("activate_binding", port_id, host) as db:
            bindings.activate(db, port_id, host)

    def delete_binding(self, port_id: str, host: str) -> None:
        with self._session.acting("delete_binding", port_id, host) as db:
            bindings.delete(db, port_id, host)
