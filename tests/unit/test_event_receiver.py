"""What Neutron and Cinder tell Nova, told to a worker."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow import event_receiver
from resizeflow.chaos.cloud import Cloud
from resizeflow.clock import Clock
from resizeflow.event_receiver import LARGEST, PATH, Receiver
from resizeflow.persistence.models import ServerEvent

PATIENCE = 60.0
"""Seconds that a slow machine gets for what takes a moment."""
PORT_ID = "0a1b2c3d-0000-4000-8000-000000000001"


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


@pytest.fixture
def receiver(cloud: Cloud) -> Iterator[Receiver]:
    receiver = Receiver(cloud.database, "127.0.0.1:0", Clock())
    receiver.open()
    yield receiver
    receiver.close()


def tell(receiver: Receiver, body: Any, *, path: str = PATH, method: str = "POST") -> tuple[int, Any]:
    address = receiver.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, text, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def plugged(cloud: Cloud, **more: str) -> dict[str, str]:
    return {"name": "network-vif-plugged", "server_uuid": cloud.uuid, "tag": PORT_ID, "status": "completed"} | more


def kept(cloud: Cloud) -> list[tuple[str, str, str]]:
    with cloud.database.read() as tx:
        rows = tx.session.scalars(sa.select(ServerEvent).order_by(ServerEvent.id))
        return [(row.name, row.tag, row.status) for row in rows]


def test_a_plug_is_noted_and_found_by_whoever_waits_for_it(cloud: Cloud, receiver: Receiver) -> None:
    with cloud.database.read() as tx:
        assert tx.server_events.last([PORT_ID]) == 0
    code, answer = tell(receiver, {"events": [plugged(cloud)]}, path=f"/v2.1{PATH}")
    assert (code, [event["code"] for event in answer["events"]]) == (200, [200])
    assert kept(cloud) == [("network-vif-plugged", PORT_ID, "completed")]
    with cloud.database.read() as tx:
        assert tx.server_events.last([PORT_ID]) == 1
        assert tx.server_events.last(["another"]) == 0


def test_what_is_not_ours_and_what_is_not_done_is_told_as_nova_tells_it(cloud: Cloud, receiver: Receiver) -> None:
    strange = plugged(cloud, server_uuid="0a1b2c3d-0000-4000-8000-00000000ffff")
    extended = plugged(cloud, name="volume-extended")
    code, answer = tell(receiver, {"events": [plugged(cloud), strange, extended]})
    assert code == 207
    assert [(event["code"], event["status"]) for event in answer["events"]] == [
        (200, "completed"),
        (404, "failed"),
        (422, "failed"),
    ]
    assert len(kept(cloud)) == 1
    assert tell(receiver, {"events": [strange]})[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"events": 3}',
        b'{"events": [{"name": "x"}]}',
        b'{"events": [3]}',
        b'{"events": [{"name": 1}]}',
    ],
)
def test_what_is_no_event_is_refused(cloud: Cloud, receiver: Receiver, body: bytes) -> None:
    code, answer = tell(receiver, body)
    assert (code, list(answer)) == (400, ["badRequest"])
    assert kept(cloud) == []


def test_neither_long_words_nor_long_bodies_are_kept(cloud: Cloud, receiver: Receiver) -> None:
    assert tell(receiver, {"events": [plugged(cloud, tag="x" * 65)]})[0] == 400
    assert tell(receiver, {"events": [plugged(cloud, tag="x" * LARGEST)]})[0] == 400
    assert tell(receiver, {"events": [plugged(cloud, tag="x" * 8 * LARGEST)]})[0] == 400
    assert kept(cloud) == []


def answer_to(receiver: Receiver, *pieces: bytes) -> bytes:
    """What is answered to words that are sent with a pause between them."""
    host, port = receiver.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.2)
        return client.makefile("rb").read()


@pytest.mark.slow
@pytest.mark.parametrize("path", [PATH, "/servers"])
def test_a_request_is_heard_out_before_it_is_answered(receiver: Receiver, path: str) -> None:
    heads = f"POST {path} HTTP/1.1\r\nContent-Length: {2 * LARGEST}\r\n\r\n".encode()
    answer = answer_to(receiver, heads, b"x" * LARGEST, b"x" * LARGEST)
    assert answer.startswith(b"HTTP/1.0 400 Bad Request"), answer


def test_a_length_that_is_none_is_refused(receiver: Receiver) -> None:
    answer = answer_to(receiver, f"POST {PATH} HTTP/1.1\r\nContent-Length: -1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 400 Bad Request"), answer


@pytest.mark.slow
def test_a_body_that_does_not_come_is_not_waited_for(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_receiver._Handler, "timeout", 2.0)
    answer = answer_to(receiver, f"POST {PATH} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode())
    assert answer.startswith(b"HTTP/1.0 408 Request Timeout"), answer


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", "/servers"), ("POST", "/")])
def test_there_is_nothing_else(receiver: Receiver, method: str, path: str) -> None:
    assert tell(receiver, {}, method=method, path=path)[0] == 404


def test_a_second_worker_goes_on_without_listening(
    cloud: Cloud, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    second = Receiver(cloud.database, receiver.url.removeprefix("http://"), Clock())
    second.open()
    second.close()
    assert "Nothing listens to Neutron and Cinder" in caplog.text
    assert tell(receiver, {"events": [plugged(cloud)]})[0] == 200


def test_a_client_that_says_nothing_keeps_nobody_waiting(
    cloud: Cloud, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_receiver._Handler, "timeout", 10 * PATIENCE)
    silent = http.client.HTTPConnection(receiver.url.removeprefix("http://"), timeout=PATIENCE)
    silent.connect()
    answers: list[int] = []
    teller = threading.Thread(target=lambda: answers.append(tell(receiver, {"events": [plugged(cloud)]})[0]))
    teller.start()
    teller.join(PATIENCE)
    silent.close()
    assert answers == [200]
