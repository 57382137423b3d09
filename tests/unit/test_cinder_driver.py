"""The Cinder driver without a Cinder: logging in, errors, deadlines, the fence, secrets, and how Ceph is asked."""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resizeflow.drivers import connect
from resizeflow.drivers.interface import Connection, DriverError, Fence, Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.openstack.trip import Trip
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.volume import SecretUse, ServiceFacts, VolumeConnection
from tests.contract.contract_sites import until
from tests.openstack_stub import (
    NEVER,
    PASSWORD,
    PATIENCE,
    PROJECT,
    VERSIONS,
    Answer,
    Stub,
    nobody,
    with_keystone,
    without_keystone,
)

ID = "8831dec1-b04a-41c4-bc8a-f1fe57687bf2"
VOLUME = f"GET /v3/{PROJECT}/volumes/{ID}"
SHOW = f"GET /v3/{PROJECT}/attachments/{ID}"
LIST = f"GET /v3/{PROJECT}/attachments/detail"
DELETE = f"DELETE /v3/{PROJECT}/attachments/{ID}"
CHAP = "planted-chap-password"
TOKEN = "secret-token-1"  # noqa: S105

Way = Callable[..., Connection]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A Cinder, and a Keystone beside it."""
    with Stub() as stub:
        stub.is_cinder()
        yield stub


@pytest.fixture
def way(tmp_path: Path) -> Way:
    """Makes the way to what a section of a configuration says."""

    def made(**options: str) -> Connection:
        conf = tmp_path / "resizeflow.conf"
        conf.write_text("[cinder]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
        return connect(f"cinder://{conf}")

    return made


@pytest.fixture
def noauth(way: Way, stub: Stub) -> Connection:
    """An open connection to a Cinder without Keystone."""
    connection = way(**without_keystone(stub.url))
    connection.open(PATIENCE)
    return connection


def ask(connection: Connection, method: str, *args: Any, timeout: float = PATIENCE, fence: Fence | None = None) -> Any:
    return connection.call(method, args, timeout=timeout, fence=fence)


def service(connection: Connection) -> Any:
    connection.open(PATIENCE)
    return ask(connection, "service")


# --- the way in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "lacks auth_type"),
        ({"auth_type": "kerberoast"}, "kerberoast, which is not known: it can be .*password"),
        ({"auth_type": "noauth"}, "lacks user_id, endpoint"),
        ({"auth_type": "password"}, "lacks auth_url"),
        ({**with_keystone("http://h"), "insecure": "perhaps"}, "cannot be used: .*insecure"),
        ({**with_keystone("http://h"), "valid_interfaces": "side"}, "cannot be used: 'side' is not a valid value"),
    ],
)
def test_a_configuration_that_cannot_be_used(way: Way, options: dict[str, str], words: str) -> None:
    connection = way(**options)
    with pytest.raises(Refused, match=words) as refused:
        service(connection)
    assert str(refused.value).count("resizeflow.conf") == 1
    assert str(refused.value).endswith(".")
    with pytest.raises(Unreachable, match=words):
        ask(connection, "cinder_volume", ID)


def test_a_configuration_that_was_corrected_is_used(way: Way, stub: Stub) -> None:
    connection = way(auth_type="noauth")
    with pytest.raises(Refused):
        service(connection)
    way(**without_keystone(stub.url))
    assert service(connection) == ServiceFacts(newest="3.71", oldest="3.0")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, "<html>nothing here</html>"),
        Answer(200, "<html>it works</html>"),
        Answer(200, {"version": {"id": "v3.14", "status": "stable"}}),
        Answer(200, ["something", "else"]),
        Answer(403, {"forbidden": {"message": "no", "code": 403}}),
    ],
)
def test_something_else_at_the_endpoint(way: Way, stub: Stub, answer: Answer) -> None:
    stub.answer("GET /v3/", answer)
    with pytest.raises(Refused, match=rf"Cinder at {stub.url}/v3/{PROJECT} .*correct section \[cinder\] of .*conf"):
        service(way(**without_keystone(stub.url)))


def test_an_endpoint_without_a_version(way: Way, stub: Stub) -> None:
    """In a catalog it is enough; keystoneauth asks for the rest."""
    with pytest.raises(Refused, match=rf"Cinder at {stub.url}/{PROJECT} cannot be used: Not Found"):
        service(way(**{**without_keystone(stub.url), "endpoint": stub.url}))
    stub.answer("GET /v3/attachments", Answer(body={"attachments": []}))
    with Stub() as keystone:
        for url in (nobody(), stub.url):
            keystone.is_keystone(url)
            connection = way(**with_keystone(keystone.url))
            if url == stub.url:
                assert service(connection).newest == "3.71"
            else:
                with pytest.raises(Unreachable, match=f"Cinder at {url}: Connection refused"):
                    connection.open(PATIENCE)


def test_a_project_that_the_endpoint_does_not_have(way: Way, stub: Stub) -> None:
    with pytest.raises(Refused, match="endpoint is wrong, or its project"):
        service(way(**{**without_keystone(stub.url), "project_id": "demo"}))


@pytest.mark.parametrize(
    ("oldest", "newest", "words"),
    [
        ("3.0", "3.43", r"3.0 to 3.43, resizeflow needs 3.44: upgrade Cinder"),
        ("3.99", "3.120", r"3.99 to 3.120, cinderclient knows 3.\d+: upgrade python-cinderclient"),
    ],
)
def test_microversions_that_are_not_spoken(way: Way, stub: Stub, oldest: str, newest: str, words: str) -> None:
    stub.answer("GET /v3/", Answer(body={"versions": [{"id": "v3.0", "version": newest, "min_version": oldest}]}))
    with pytest.raises(Refused, match=words):
        service(way(**without_keystone(stub.url)))


def test_without_keystone_it_says_that_it_is_a_service(noauth: Connection, stub: Stub) -> None:
    ask(noauth, "service")
    for asked in stub.asked:
        assert asked.headers["X-Auth-Token"] == f"admin:{PROJECT}"
        assert asked.headers["X-Service-Roles"] == "service"
    assert stub.asked[-1].headers["OpenStack-API-Version"] == "volume 3.44"


def test_with_keystone_it_shows_a_token_twice(way: Way, stub: Stub) -> None:
    """The second is the service's: without it Cinder does not delete connected attachments."""
    with Stub() as keystone:
        keystone.is_keystone(f"{stub.url}/v3")
        connection = way(**with_keystone(keystone.url))
        assert service(connection).newest == "3.71"
        connection.open(PATIENCE)
        ask(connection, "service")
        assert len(keystone.requests("POST /v3/auth/tokens")) == 1
    for asked in stub.asked:
        assert (asked.headers["X-Auth-Token"], asked.headers["X-Service-Token"]) == (TOKEN, TOKEN)
        assert asked.headers["X-Service-Roles"] is None


def test_a_user_for_whom_cinder_would_not_do_it(way: Way, stub: Stub) -> None:
    with Stub() as keystone:
        keystone.is_keystone(f"{stub.url}/v3", "admin")
        with pytest.raises(Refused, match=r"no role service, .*: grant it"):
            service(way(**with_keystone(keystone.url)))


def test_a_token_that_ended_is_renewed(way: Way, stub: Stub) -> None:
    with Stub() as keystone:
        keystone.is_keystone(f"{stub.url}/v3")
        connection = way(**with_keystone(keystone.url))
        connection.open(PATIENCE)
        keystone.answer("POST /v3/auth/tokens", keystone.token("secret-token-2", f"{stub.url}/v3"))
        stub.answer(SHOW, Answer(401), Answer(404))
        assert ask(connection, "attachment", ID) is None
    assert [asked.headers["X-Auth-Token"] for asked in stub.requests(SHOW)] == [TOKEN, "secret-token-2"]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (
            Answer(401, {"error": {"code": 401, "message": "no"}}),
            Refused,
            "does not accept the login: correct the cred",
        ),
        (Answer(404, "<html>nothing here</html>"), Refused, "cannot be used: .*correct section"),
        (Answer(503, "<html>later</html>"), Unreachable, "503"),
        (Answer(None), Unreachable, "closed connection without response"),
        (Answer(due=NEVER), Unreachable, "no way in within 0.5 s|timed out"),
    ],
)
def test_a_keystone_that_gives_no_token(way: Way, answer: Answer, error: type[DriverError], words: str) -> None:
    with Stub() as keystone:
        keystone.is_keystone("http://127.0.0.1/v3")
        keystone.answer("POST /v3/auth/tokens", answer)
        connection = way(**with_keystone(keystone.url))
        with pytest.raises(error, match=words) as raised:
            connection.open(0.5 if answer.due else PATIENCE)
            ask(connection, "service")
        assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("path", ["/v3", ""])
def test_a_keystone_that_is_away(way: Way, path: str) -> None:
    url = nobody()
    with pytest.raises(Unreachable, match=f"Keystone at {url}.*Connection refused"):
        way(**{**with_keystone(url), "auth_url": f"{url}{path}"}).open(PATIENCE)


def test_a_catalog_without_cinder(way: Way, stub: Stub) -> None:
    with Stub() as keystone:
        keystone.is_keystone(f"{stub.url}/v3")
        for options in ({"region_name": "two"}, {"valid_interfaces": "internal"}, {"service_type": "share"}):
            with pytest.raises(Refused, match="has no such Cinder in its catalog: correct region_name"):
                service(way(**with_keystone(keystone.url), **options))
        assert service(way(**with_keystone(keystone.url), endpoint_override=f"{stub.url}/v3/%(project_id)s"))


def test_a_cinder_that_is_away(way: Way) -> None:
    with pytest.raises(Unreachable, match="Connection refused"):
        way(**without_keystone(nobody())).open(PATIENCE)


def test_a_certificate_is_trusted_if_it_is_said(way: Way, tmp_path: Path) -> None:
    pem = tmp_path / "cinder.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {pem} -out {pem}.crt"
    command += " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True)
    pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
    with Stub(str(pem)) as stub:
        stub.is_cinder()
        with pytest.raises(Refused, match="certificate that is not trusted: give cafile in"):
            service(way(**without_keystone(stub.url)))
        assert service(way(**without_keystone(stub.url), cafile=f"{pem}.crt")).newest == "3.71"
        with pytest.raises(Refused, match=r"cannot be used: .*/missing\.crt"):
            service(way(**without_keystone(stub.url), cafile=str(tmp_path / "missing.crt")))


# --- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (400, {"badRequest": {"message": "Invalid volume: it is attaching.", "code": 400}}, Refused),
        (403, {"forbidden": {"message": "Policy doesn't allow it.", "code": 403}}, Refused),
        (404, {"itemNotFound": {"message": "Volume attachment could not be found.", "code": 404}}, Missing),
        (406, {"computeFault": {"message": "Version 3.99 is not supported.", "code": 406}}, Refused),
        (409, {"conflictingRequest": {"message": "duplicate connectors", "code": 409}}, Refused),
        (413, {"overLimit": {"message": "VolumeLimitExceeded", "code": 413, "retryAfter": "0"}}, Refused),
        (418, {"message": "I'm a teapot"}, Refused),
        (401, {"error": {"message": "The request requires authentication.", "code": 401}}, Unreachable),
        (500, {"computeFault": {"message": "The server has either erred", "code": 500}}, Unknown),
        (501, {"notImplemented": {"message": "not now", "code": 501}}, Unknown),
        (502, "<html>Bad Gateway</html>", Unknown),
        (503, {"serviceUnavailable": {"message": "later", "code": 503}}, Unknown),
        (504, "", Unknown),
        (500, {"error": "only words"}, Unknown),
        (500, ["a", "list"], Unknown),
    ],
)
def test_an_answer_decides(noauth: Connection, stub: Stub, code: int, body: Any, error: type[DriverError]) -> None:
    stub.answer(DELETE, Answer(code, body))
    with pytest.raises(DriverError) as raised:
        ask(noauth, "delete_attachment", ID)
    assert type(raised.value) is error
    assert len(stub.requests(DELETE)) == 1, "retried"
    if isinstance(body, dict) and "error" not in body:
        (words,) = (each if isinstance(each, str) else each["message"] for each in body.values())
        assert words.rstrip(".") in str(raised.value)


@pytest.mark.parametrize(
    ("method", "what"), [("cinder_volume", VOLUME), ("attachment", SHOW), ("attachments", LIST), ("connection", SHOW)]
)
def test_a_look_that_fails_at_the_other_end_is_asked_again_by_others(
    noauth: Connection, stub: Stub, method: str, what: str
) -> None:
    stub.answer(what, Answer(503, "<html>later</html>"))
    with pytest.raises(Unknown):
        ask(noauth, method, ID)
    assert len(stub.requests(what)) == 1


def test_an_answer_that_makes_no_sense_is_none(noauth: Connection, stub: Stub) -> None:
    stub.answer(SHOW, Answer(200, {"attachment": {"id": ID, "surprise": CHAP}}))
    with pytest.raises(Unknown) as raised:
        ask(noauth, "attachment", ID)
    assert CHAP not in str(raised.value)


def test_a_long_list_is_read_to_its_end(noauth: Connection, stub: Stub) -> None:
    """Cinder ends a list after `osapi_max_limit`, without a word."""

    def page(*ids: str) -> Answer:
        row = {"volume_id": "v", "instance": "m", "status": "attaching", "connection_info": {}}
        return Answer(body={"attachments": [{"id": each, **row} for each in ids]})

    stub.answer(LIST, page("d", "b"), page("c"), page())
    found = ask(noauth, "attachments", "m", "v")
    assert [each.id for each in found] == ["b", "c", "d"]
    assert all(each.half for each in found)
    queries = [asked.query for asked in stub.requests(LIST)]
    assert queries[0] == "all_tenants=1&instance_id=m&volume_id=v"
    assert ["marker=b" in query for query in queries] == [False, True, False]
    stub.answer(LIST, page("d", "b"), Answer(404, {"itemNotFound": {"message": "no marker", "code": 404}}))
    with pytest.raises(Unknown, match="deleted while they were listed"):
        ask(noauth, "attachments", "m")


# --- deadlines and the fence -----------------------------------------------------------------------------


def fence(seconds: float) -> Fence:
    return Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, "j-1", 7)


def lost(connection: Connection) -> bool:
    try:
        ask(connection, "cinder_volume", ID)
    except Unreachable as error:
        return "not connected" in str(error)
    return False


@pytest.mark.slow
def test_the_deadline_ends_the_wait(noauth: Connection, stub: Stub) -> None:
    stub.answer(DELETE, Answer(due=NEVER))
    with pytest.raises(Unknown, match="no answer to delete_attachment"):
        ask(noauth, "delete_attachment", ID, timeout=1)
    assert lost(noauth)
    until(lambda: not any(isinstance(thread, Trip) for thread in threading.enumerate()), PATIENCE / 2)


def test_a_connection_that_breaks_leaves_it_unknown(noauth: Connection, stub: Stub) -> None:
    stub.answer(DELETE, Answer(None))
    with pytest.raises(Unknown, match="closed connection without response"):
        ask(noauth, "delete_attachment", ID)
    assert len(stub.requests(DELETE)) == 1
    assert lost(noauth)


def test_calls_go_side_by_side(noauth: Connection, stub: Stub) -> None:
    due = threading.Event()
    stub.answer(SHOW, Answer(404, due=due))
    slow = threading.Thread(target=ask, args=(noauth, "attachment", ID))
    slow.start()
    until(lambda: stub.requests(SHOW))
    assert ask(noauth, "cinder_volume", ID) is None
    assert slow.is_alive()
    due.set()
    slow.join()


def test_the_fence_counts_when_the_request_is_sent(way: Way, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the call begins: here a token has to be renewed first, and that takes longer than the lease."""
    with Stub() as keystone:
        keystone.is_keystone(f"{stub.url}/v3")
        connection = way(**with_keystone(keystone.url))
        connection.open(PATIENCE)
        stub.answer(DELETE, Answer(401), Answer(200))
        last = fence(PATIENCE)
        monkeypatch.setattr(time, "clock_gettime", keystone.slow_clock())
        with pytest.raises(Refused, match="too late, epoch 7 of job j-1"):
            ask(connection, "delete_attachment", ID, fence=last)
    assert len(stub.requests(DELETE)) == 1


def test_the_fence_counts_at_a_proxy_too(way: Way, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", stub.url)
    there = "http://cinder.invalid"
    for what in ("GET /v3/", f"GET /v3/{PROJECT}/attachments"):
        stub.answer(what.replace("/", f"{there}/", 1), *stub.answers[what])
    connection = way(**without_keystone(there))
    assert service(connection).newest == "3.71"
    asked = len(stub.asked)
    with pytest.raises(Refused, match="too late, epoch 7 of job j-1"):
        ask(connection, "delete_attachment", ID, fence=fence(-0.1))
    assert len(stub.asked) == asked


def test_what_is_left_behind_before_it_was_sent_is_never_sent(
    way: Way, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a name can take longer to find out than the call may last: no time-out of a socket ends that."""
    connection = way(**without_keystone(stub.url.replace("127.0.0.1", "localhost")))
    stub.answer("GET /v3/", Answer(body=VERSIONS, headers={"Connection": "close"}))
    connection.open(PATIENCE)
    resolve, resolved = socket.getaddrinfo, threading.Event()

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.6)
        resolved.set()
        return resolve(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    stub.answer(DELETE, Answer(200))
    with pytest.raises(Unreachable):
        ask(connection, "delete_attachment", ID, timeout=0.3)
    assert resolved.wait(5)
    time.sleep(0.3)
    assert stub.requests(DELETE) == []


# --- secrets ---------------------------------------------------------------------------------------------


def test_no_secret_is_logged_or_shown(way: Way, stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    info = {
        "driver_volume_type": "iscsi",
        "target_portal": "198.51.100.3:3260",
        "target_iqn": "iqn.x",
        "target_lun": 1,
        "auth_username": "u",
        "auth_password": CHAP,
    }
    row = {"id": ID, "volume_id": "v", "instance": "m", "status": "attached", "connection_info": info}
    stub.answer(SHOW, Answer(body={"attachment": row}))
    stub.answer(LIST, Answer(body={"attachments": [row]}), Answer(body={"attachments": []}))
    with Stub() as keystone:
        keystone.is_keystone(f"{stub.url}/v3")
        connection = way(**with_keystone(keystone.url))
        connection.open(PATIENCE)
        opening = ask(connection, "connection", ID, fence=fence(5))
        shown = [repr(connection), repr(opening), repr(ask(connection, "attachments", "m", "v"))]
        assert opening.password == CHAP
        stub.answer(SHOW, Answer(200, {"attachment": {**row, "connection_info": {**info, "target_portal": 1}}}))
        for answer in (
            Answer(200, {"attachment": {**row, "connection_info": {**info, "target_portal": 1}}}),
            Answer(None),
        ):
            stub.answer(SHOW, answer)
            with pytest.raises(DriverError) as raised:
                ask(connection, "connection", ID)
            shown.append(f"{raised.value!r} {raised.value.__cause__!r}")
    shown.append(caplog.text)
    for text in shown:
        assert all(secret not in text for secret in (CHAP, PASSWORD, TOKEN))


def test_a_url_is_shown_without_its_user(way: Way) -> None:
    url = nobody().replace("http://", f"http://admin:{PASSWORD}@")
    for connection in (way(**without_keystone(url)), way(**with_keystone(url))):
        with pytest.raises(Unreachable) as raised:
            connection.open(PATIENCE)
        assert PASSWORD not in str(raised.value)


# --- who has an image open -------------------------------------------------------------------------------

IMAGE = VolumeConnection(
    kind="rbd",
    name=f"volumes/volume-{ID}",
    hosts=(("198.51.100.3", 3300), ("2001:db8::3", 6789)),
    user="cinder",
    secret=SecretUse(ID, "ceph"),
)
KEY = Secret(b"planted-ceph-key")
ENCODED = "cGxhbnRlZC1jZXBoLWtleQ=="
SEEN = '{"watchers": [{"address": "198.51.100.11:0/1", "client": 1}, {"address": "198.51.100.12:0/2", "client": 2}]}'


@pytest.fixture
def rbd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts an `rbd` of our own before all others; it notes how it was called."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CEPH_ARGS", "--id somebody-else")

    def made(script: str) -> Path:
        program, notes = tmp_path / "rbd", tmp_path / "notes"
        note = f'echo "$@" > {notes}.arguments; env > {notes}.environment\n'
        read = f'for word in "$@"; do case $word in /dev/fd/*) cat $word > {notes}.key;; esac; done\n'
        program.write_text(f"#!/bin/sh\n{note}{read}{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return notes

    return made


def test_ceph_is_asked_without_any_file(noauth: Connection, rbd: Callable[[str], Path]) -> None:
    notes = rbd(f"echo '{SEEN}'")
    assert ask(noauth, "watchers", IMAGE, KEY) == ("198.51.100.11:0/1", "198.51.100.12:0/2")
    arguments = Path(f"{notes}.arguments").read_text()
    assert f"status {IMAGE.name} --format json --conf /dev/null" in arguments
    assert "--mon-host 198.51.100.3:3300,[2001:db8::3]:6789" in arguments
    assert "--id cinder" in arguments
    assert Path(f"{notes}.key").read_text() == ENCODED
    environment = Path(f"{notes}.environment").read_text()
    assert "CEPH_ARGS" not in environment
    assert all(ENCODED not in text and "planted" not in text for text in (arguments, environment))


def test_a_ceph_that_asks_nobody_who_it_is(noauth: Connection, rbd: Callable[[str], Path]) -> None:
    notes = rbd(f"echo '{SEEN}'")
    assert ask(noauth, "watchers", VolumeConnection("rbd", IMAGE.name, IMAGE.hosts), None)
    arguments = Path(f"{notes}.arguments").read_text()
    assert "--auth-supported none" in arguments
    assert "--keyfile" not in arguments


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("echo 'rbd: error opening image x: (2) No such file or directory' >&2; exit 2", Missing, "No such file"),
        ('echo "rbd: couldn\'t connect to the cluster!" >&2; exit 110', Unknown, "couldn't connect"),
        ('echo "rbd: couldn\'t connect to the cluster!" >&2; exit 13', Refused, "does not let client.cinder in"),
        ("echo 'monclient(hunting): handle_auth_bad_method' >&2; exit 110", Refused, "does not let client.cinder in"),
        (f"echo \"auth: failed to decode key '{ENCODED}'\" >&2; exit 22", Refused, "does not let client.cinder in"),
        (f"echo \"auth: failed to decode key '{ENCODED}'\" >&2; exit 5", Unknown, "no answer"),
        ("exec sleep 600", DriverError, "no answer"),
    ],
)
def test_ceph_does_not_say(
    noauth: Connection, rbd: Callable[[str], Path], script: str, error: type[DriverError], words: str
) -> None:
    rbd(script)
    with pytest.raises(error, match=words) as raised:
        ask(noauth, "watchers", IMAGE, KEY, timeout=1 if "sleep" in script else PATIENCE)
    assert ENCODED not in str(raised.value)


def test_without_the_command_it_says_what_to_install(
    noauth: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="install ceph-common on the worker's machine"):
        ask(noauth, "watchers", IMAGE, KEY)


def test_only_ceph_knows_who_has_a_volume_open(noauth: Connection) -> None:
    with pytest.raises(Refused, match="connected by nfs"):
        ask(noauth, "watchers", VolumeConnection("nfs", "/export/x", (("h", None),)), None)
    with pytest.raises(Refused, match="its key is lacking"):
        ask(noauth, "watchers", IMAGE, None)
