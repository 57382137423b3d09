"""A small HTTP server that answers as a test wants Keystone, Cinder and Neutron to answer."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

PROJECT = "2" * 32
PASSWORD = "planted-password"  # noqa: S105
PATIENCE = 60.0
"""Seconds that a busy machine gets for what takes a moment."""
NEVER = threading.Event()
"""An answer is not due as long as anybody waits for it."""
VERSIONS = {"versions": [{"id": "v3.0", "status": "CURRENT", "version": "3.71", "min_version": "3.0"}]}
"""What Cinder says of itself."""
TOKENS = "POST /v3/auth/tokens"
EXTENSION = "/v2.0/extensions/binding-extended"
AGENTS = "/v2.0/agents"


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    what: str
    """`POST /v3/auth/tokens`, without a query."""
    query: str
    headers: Message
    body: Any


@dataclass
class Answer:
    """What is answered, once it is `due` if that is given. Without a status the connection is broken off."""

    status: int | None = 200
    body: Any = field(default_factory=dict)
    due: threading.Event | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who has gone away is not told about."""


class Stub:
    """Answers requests by `answers`, a list for each: the last one stays. Without any it says 404."""

    def __init__(self, certificate: str | None = None) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, list[Answer]] = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, what: str, *answers: Answer) -> None:
        """What comes at a request, one after the other."""
        self.answers[what] = list(answers)

    def is_keystone(self, endpoint: str, *roles: str) -> None:
        """Answers as a Keystone whose catalog has Cinder at an endpoint, and Neutron on the same server."""
        self.answer("GET /v3", Answer(body={"version": {"id": "v3.14", "status": "stable", "links": _links(self.url)}}))
        self.answer(TOKENS, self.token("secret-token-1", endpoint, *roles))

    def token(self, token: str, endpoint: str, *roles: str) -> Answer:
        """A token for an hour; `admin` and `service` unless other roles are given."""
        url = f"{endpoint}/{PROJECT}" if endpoint.endswith("/v3") else endpoint
        end = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + 3600))
        body = {
            "methods": ["password"],
            "expires_at": end,
            "project": {"id": PROJECT, "name": "service", "domain": {"id": "default", "name": "Default"}},
            "user": {"id": "u", "name": "resizeflow", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": role, "name": role} for role in roles or ("admin", "service")],
            "catalog": [
                {"type": "block-storage", "name": "cinder", "endpoints": [_entry(url)]},
                {"type": "network", "name": "neutron", "endpoints": [_entry(endpoint.removesuffix("/v3"))]},
            ],
        }
        return Answer(201, {"token": body}, headers={"X-Subject-Token": token})

    def slow_clock(self) -> Callable[[int], float]:
        """`time.clock_gettime`, by which each token asked for from now on takes ten minutes."""
        clock, before = time.clock_gettime, len(self.requests(TOKENS))
        return lambda which: clock(which) + 600 * (len(self.requests(TOKENS)) - before)

    def is_cinder(self) -> None:
        """Answers as a Cinder with nothing in it."""
        links = {"links": _links(self.url)}
        self.answer("GET /", Answer(300, {"versions": [{**version, **links} for version in VERSIONS["versions"]]}))
        self.answer("GET /v3/", Answer(body=VERSIONS))
        self.answer(f"GET /v3/{PROJECT}/attachments", Answer(body={"attachments": []}))

    def is_neutron(self) -> None:
        """Answers as a Neutron with nothing in it."""
        links = [{"rel": "self", "href": f"{self.url}/v2.0/"}]
        self.answer("GET /", Answer(body={"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]}))
        self.answer(f"GET {EXTENSION}", Answer(body={"extension": {"alias": "binding-extended"}}))
        self.answer(f"GET {AGENTS}", Answer(body={"agents": []}))

    def requests(self, what: str) -> list[Asked]:
        """Those that came of a kind."""
        return [asked for asked in self.asked if asked.what == what]


def without_keystone(url: str) -> dict[str, str]:
    """The options of section [cinder] for a Cinder without Keystone."""
    return {"auth_type": "noauth", "user_id": "admin", "project_id": PROJECT, "endpoint": f"{url}/v3"}


def neutron_without_keystone(url: str) -> dict[str, str]:
    """The options of section [neutron] for a Neutron without Keystone."""
    return {"auth_type": "noauth", "endpoint": url}


def with_keystone(url: str) -> dict[str, str]:
    """The options of either section for a service that a Keystone leads to."""
    return {
        "auth_type": "password",
        "auth_url": f"{url}/v3",
        "username": "resizeflow",
        "password": PASSWORD,
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }


def nobody() -> str:
    """An address at which nobody listens, nor will anybody meanwhile."""
    return "http://127.0.0.1:1"


def _entry(url: str) -> dict[str, str]:
    return {"interface": "public", "region": "one", "region_id": "one", "url": url}


def _links(url: str) -> list[dict[str, str]]:
    return [{"rel": "self", "href": f"{url}/v3/"}]


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            asked = Asked(f"{self.command} {path}", query, self.headers, sent)
            stub.asked.append(asked)
            answers = stub.answers.get(asked.what, [Answer(404, "<html>nothing here</html>")])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer.due is not None:
                answer.due.wait(PATIENCE)
            if answer.status is None:
                self.close_connection = True
                return
            html = isinstance(answer.body, str)
            body = answer.body.encode() if html else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/html" if html else "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
