"""The address to which Neutron and Cinder tell what happened, as they tell Nova (`os-server-external-events`).

What is told is a hint to look at once and nothing more: nobody proves who tells it, so nothing is believed. It is
written down in the database, where whichever worker waits for it finds it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import sqlalchemy as sa

from resizeflow.clock import Clock
from resizeflow.persistence.database import AWAY, Database
from resizeflow.persistence.models import Instance, ServerEvent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

LOG = logging.getLogger(__name__)
PATH = "/os-server-external-events"
LARGEST = 2**20
"""Bytes of a request."""
HEARD = 64 * LARGEST
"""Bytes of a larger one that are read and thrown away, so that whoever sends it gets to hear why it is refused."""
SLOWEST = 10.0
"""Seconds for which a client is waited for."""
NOTED = frozenset({"network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"})
"""Events that are answered with 200: a machine's ports are looked at wherever it counts. Others, such as Cinder's
`volume-extended`, ask for something that resizeflow does not do, and are answered with 422, as Nova answers those that
it cannot handle (nova/api/openstack/compute/server_external_events.py)."""


class Receiver:
    """Listens in a thread, at `HOST:PORT`, from `open` to `close`."""

    def __init__(self, database: Database, address: str, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        parts = urlsplit(f"//{address}")
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._server: WSGIServer | None = None

    @property
    def url(self) -> str:
        """Where it listens; Neutron is told it as Nova's (`[nova] auth_type = none, endpoint`)."""
        return f"http://{self._host}:{self._server.server_port if self._server else self._port}"

    def open(self) -> None:
        """Begins to listen. Where that fails, as where another worker of the machine listens, it is told and nothing
        else: what is waited for is looked at anyway."""
        try:
            self._server = make_server(self._host, self._port, self._answer, _Server, _Handler)
        except OSError as error:
            LOG.warning("Nothing listens to Neutron and Cinder at %s: %s", self.url, error.strerror)
            return
        threading.Thread(target=self._server.serve_forever, name="event receiver", daemon=True).start()

    def close(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        code, answer = self._received(environ)
        body = json.dumps(answer).encode()
        start(
            f"{code} {HTTPStatus(code).phrase}",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]

    def _received(self, environ: WSGIEnvironment) -> tuple[int, dict[str, Any]]:
        try:
            body = _body(environ)
            if environ["REQUEST_METHOD"] != "POST" or not environ["PATH_INFO"].endswith(PATH):
                return 404, _fault(404, f"There is only POST {PATH} here.")
            events = [_read(event) for event in json.loads(body)["events"]]
        except TimeoutError:
            return 408, _fault(408, f"The body did not come within {SLOWEST:.0f} seconds.")
        except (ValueError, KeyError, TypeError, AttributeError):
            return 400, _fault(400, "The body is not a list of events as Nova takes them.")
        try:
            return self._keep(events)
        except AWAY:
            return 503, _fault(503, "The database does not answer.")

    def _keep(self, events: list[ServerEvent]) -> tuple[int, dict[str, Any]]:
        with self._database.write() as tx:
            ids = sorted({event.instance_id for event in events})
            known = set(tx.session.scalars(sa.select(Instance.id).where(Instance.id.in_(ids))))
            codes = [404 if one.instance_id not in known else 200 if one.name in NOTED else 422 for one in events]
            told = [_told(event, code) for event, code in zip(events, codes, strict=True)]
            now = self._clock.now()
            kept = [event for event, code in zip(events, codes, strict=True) if code == 200]
            for event in kept:
                event.received_at = now
            tx.server_events.add(kept, now)
        if codes and set(codes) == {404}:
            return 404, _fault(404, "No machine is managed that any of the events is about.")
        return (200 if set(codes) <= {200} else 207), {"events": told}


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = SLOWEST

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        LOG.debug("Told by %s: %s", self.address_string(), format % args)


def _body(environ: WSGIEnvironment) -> bytes:
    """Read to its end before anything is answered: a connection that is closed with bytes unread takes the answer with
    it. Raises ValueError for one that is too large or whose length is none, TimeoutError where it does not come."""
    size = int(environ.get("CONTENT_LENGTH") or 0)
    if size < 0:
        raise ValueError
    if size <= LARGEST:
        body: bytes = environ["wsgi.input"].read(size)
        return body
    left = min(size, HEARD)
    while left > 0 and (read := environ["wsgi.input"].read(min(left, LARGEST))):
        left -= len(read)
    raise ValueError


def _read(event: Mapping[str, Any]) -> ServerEvent:
    """Raises ValueError for one that is too long to be kept, KeyError and others for what is no event."""
    words = [event["name"], event["server_uuid"], event.get("tag") or "", event.get("status") or "completed"]
    for word, longest in zip(words, (64, 36, 64, 16), strict=True):
        if not isinstance(word, str) or len(word) > longest:
            raise ValueError
    return ServerEvent(name=words[0], instance_id=words[1], tag=words[2], status=words[3])


def _told(event: ServerEvent, code: int) -> dict[str, Any]:
    status = event.status if code == 200 else "failed"
    told = {"name": event.name, "server_uuid": event.instance_id, "status": status, "code": code}
    return told | ({"tag": event.tag} if event.tag else {})


def _fault(code: int, message: str) -> dict[str, Any]:
    name = {400: "badRequest", 404: "itemNotFound", 408: "requestTimeout"}.get(code, "serviceUnavailable")
    return {name: {"message": message, "code": code}}
