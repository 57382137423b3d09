"""The Neutron driver without a Neutron: logging in, errors, lists, deadlines, the fence, secrets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resizeflow.drivers import connect
from resizeflow.drivers.interface import (
    Connection,
    DriverError,
    Exists,
    Fence,
    Missing,
    Refused,
    Unknown,
    Unreachable,
)
from resizeflow.drivers.network import NetworkAgent, NetworkPort, PortBinding
from tests.openstack_stub import (
    AGENTS,
    EXTENSION,
    NEVER,
    PASSWORD,
    PATIENCE,
    Answer,
    Stub,
    neutron_without_keystone,
    nobody,
    with_keystone,
)

ID = "8831dec1-b04a-41c4-bc8a-f1fe57687bf2"
NETWORK = "11111111-b04a-41c4-bc8a-f1fe57687bf2"
BINDINGS = f"/v2.0/ports/{ID}/bindings"
CREATE = ("create_binding", (ID, "h2", "normal", {"a": 1}), f"POST {BINDINGS}")
ACTIVATE = ("activate_binding", (ID, "h2"), f"PUT {BINDINGS}/h2/activate")
DELETE = ("delete_binding", (ID, "h2"), f"DELETE {BINDINGS}/h2")
TOKEN = "secret-token-1"  # noqa: S105

Way = Callable[..., Connection]
Act = tuple[str, tuple[Any, ...], str]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A Neutron, and a Keystone beside it."""
    with Stub() as stub:
        stub.is_neutron()
        yield stub


@pytest.fixture
def way(tmp_path: Path) -> Way:
    """Makes the way to what a section of a configuration says."""

    def made(**options: str) -> Connection:
        conf = tmp_path / "resizeflow.conf"
        conf.write_text("[neutron]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
        return connect(f"neutron://{conf}")

    return made


@pytest.fixture
def noauth(way: Way, stub: Stub) -> Connection:
    """An open connection to a Neutron without Keystone."""
    connection = way(**neutron_without_keystone(stub.url))
    connection.open(PATIENCE)
    stub.asked.clear()
    return connection


def ask(connection: Connection, method: str, *args: Any, timeout: float = PATIENCE, fence: Fence | None = None) -> Any:
    return connection.call(method, args, timeout=timeout, fence=fence)


def check(connection: Connection) -> None:
    connection.open(PATIENCE)
    ask(connection, "network_service")


def said(code: int, kind: str, message: str) -> Answer:
    """A refusal as Neutron words it."""
    return Answer(code, {"NeutronError": {"type": kind, "message": message, "detail": ""}})


# --- the way in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "lacks auth_type"),
        ({"auth_type": "kerberoast"}, "kerberoast, which is not known: it can be .*password"),
        ({"auth_type": "noauth"}, "lacks endpoint"),
        ({"auth_type": "none"}, "lacks endpoint"),
        ({"auth_type": "password"}, "lacks auth_url"),
        ({**with_keystone("http://h"), "insecure": "perhaps"}, "cannot be used: .*insecure"),
    ],
)
def test_a_configuration_that_cannot_be_used(way: Way, options: dict[str, str], words: str) -> None:
    connection = way(**options)
    with pytest.raises(Refused, match=words) as refused:
        check(connection)
    assert str(refused.value).count("resizeflow.conf") == 1
    assert str(refused.value).endswith(".")
    with pytest.raises(Unreachable, match=words):
        ask(connection, "port", ID)


@pytest.mark.parametrize("path", ["", "/", "/v2.0", "/v2.0/"])
def test_an_endpoint_with_or_without_its_version(way: Way, stub: Stub, path: str) -> None:
    check(way(**neutron_without_keystone(f"{stub.url}{path}")))
    assert stub.requests(f"GET {AGENTS}")


def test_a_neutron_behind_a_path(way: Way, stub: Stub) -> None:
    for what in ("/", EXTENSION, AGENTS):
        stub.answer(f"GET /networking{what}", *stub.answers.pop(f"GET {what}"))
    links = [{"rel": "self", "href": f"{stub.url}/networking/v2.0/"}]
    versions = {"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]}
    stub.answer("GET /networking/", Answer(body=versions))
    stub.answer("GET /networking", Answer(body=versions))
    check(way(**neutron_without_keystone(f"{stub.url}/networking")))


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
    stub.answer(f"GET {EXTENSION}", answer)
    with pytest.raises(Refused, match=rf"{stub.url} .*correct section \[neutron\] of .*conf"):
        check(way(**neutron_without_keystone(stub.url)))


def test_a_neutron_without_the_extension(way: Way, stub: Stub) -> None:
    stub.answer(f"GET {EXTENSION}", Answer(404, "<html>Extension with alias binding-extended does not exist</html>"))
    with pytest.raises(Refused, match="lacks the API extension binding-extended: it binds a port to one host only"):
        check(way(**neutron_without_keystone(stub.url)))


def test_somebody_whom_neutron_does_not_tell_of_its_agents(way: Way, stub: Stub) -> None:
    stub.answer(f"GET {AGENTS}", said(403, "PolicyNotAuthorized", "rule:get_agent is disallowed by policy"))
    with pytest.raises(Refused, match="rule:get_agent is disallowed by policy; grant the roles admin and service"):
        check(way(**neutron_without_keystone(stub.url)))


def test_without_keystone_it_says_that_it_is_a_service(noauth: Connection, stub: Stub) -> None:
    """No project: Neutron would take us for somebody of that project."""
    check(noauth)
    assert stub.asked
    for asked in stub.asked:
        assert asked.headers["X-Roles"] == "admin,service"
        assert asked.headers["X-Project-Id"] is None


def test_with_keystone_it_shows_a_token_twice(way: Way, stub: Stub) -> None:
    with Stub() as keystone:
        keystone.is_keystone(stub.url)
        connection = way(**with_keystone(keystone.url))
        check(connection)
        check(connection)
        assert len(keystone.requests("POST /v3/auth/tokens")) == 1
    for asked in (*stub.requests(f"GET {EXTENSION}"), *stub.requests(f"GET {AGENTS}")):
        assert (asked.headers["X-Auth-Token"], asked.headers["X-Service-Token"]) == (TOKEN, TOKEN)
        assert asked.headers["X-Roles"] is None


def test_a_user_for_whom_neutron_would_not_do_it(way: Way, stub: Stub) -> None:
    with Stub() as keystone:
        keystone.is_keystone(stub.url, "admin")
        with pytest.raises(Refused, match=r"no role service, .*binds no port to a second host: grant it"):
            check(way(**with_keystone(keystone.url)))


def test_a_catalog_without_neutron(way: Way, stub: Stub) -> None:
    with Stub() as keystone:
        keystone.is_keystone(stub.url)
        with pytest.raises(Refused, match="has no such Neutron in its catalog: correct region_name"):
            check(way(**with_keystone(keystone.url), region_name="two"))
        check(way(**with_keystone(keystone.url), region_name="two", endpoint_override=stub.url))


def test_a_neutron_that_is_away(way: Way) -> None:
    with pytest.raises(Unreachable, match="Connection refused"):
        way(**neutron_without_keystone(nobody())).open(PATIENCE)


def test_a_way_that_was_lost_is_found_again(noauth: Connection, stub: Stub) -> None:
    stub.answer(DELETE[2], Answer(None), Answer(204))
    with pytest.raises(Unknown):
        ask(noauth, DELETE[0], *DELETE[1])
    with pytest.raises(Unreachable):
        ask(noauth, DELETE[0], *DELETE[1])
    noauth.open(PATIENCE)
    ask(noauth, DELETE[0], *DELETE[1])


# --- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [CREATE, ACTIVATE, DELETE])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (said(400, "HTTPBadRequest", "Invalid input for host."), Refused),
        (said(403, "PolicyNotAuthorized", "rule:create_port_binding is disallowed by policy"), Refused),
        (said(404, "PortBindingNotFound", "Binding for port p for host h2 could not be found."), Missing),
        (said(412, "RevisionNumberConstraintFailed", "Constrained to 3, but current revision is 4"), Refused),
        (said(401, "Unauthorized", "The request you have made requires authentication."), Unreachable),
        (said(500, "PortBindingError", "Binding for port p on host h2 could not be created or updated."), Unknown),
        (Answer(502, "<html>Bad Gateway</html>"), Unknown),
        (said(503, "ServiceUnavailable", "The service is unavailable"), Unknown),
        (Answer(504, ""), Unknown),
        (Answer(500, ["a", "list"]), Unknown),
    ],
)
def test_an_answer_decides(noauth: Connection, stub: Stub, act: Act, answer: Answer, error: type[DriverError]) -> None:
    method, args, request = act
    stub.answer(request, answer)
    with pytest.raises(DriverError) as raised:
        ask(noauth, method, *args)
    assert type(raised.value) is error
    assert len(stub.requests(request)) == 1, "retried"
    assert f"Neutron answered {method} with {answer.status}" in str(raised.value)
    if isinstance(answer.body, dict):
        assert answer.body["NeutronError"]["message"].rstrip(".") in str(raised.value)


@pytest.mark.parametrize(("act", "error"), [(CREATE, Exists), (ACTIVATE, Exists), (DELETE, Refused)])
def test_a_conflict_is_what_is_there_already(
    noauth: Connection, stub: Stub, act: Act, error: type[DriverError]
) -> None:
    method, args, request = act
    stub.answer(request, said(409, "PortBindingAlreadyExists", "Binding for port p on host h2 already exists."))
    with pytest.raises(error, match="on host h2 already exists") as raised:
        ask(noauth, method, *args)
    assert type(raised.value) is error


def test_each_act_is_one_request(noauth: Connection, stub: Stub) -> None:
    stub.answer(CREATE[2], Answer(201, {"binding": {"host": "h2"}}))
    stub.answer(ACTIVATE[2], Answer(200, {"host": "h2", "status": "ACTIVE"}))
    stub.answer(DELETE[2], Answer(204))
    for method, args, _ in (CREATE, ACTIVATE, DELETE):
        ask(noauth, method, *args)
    assert [asked.what for asked in stub.asked] == [CREATE[2], ACTIVATE[2], DELETE[2]]
    assert stub.asked[0].body == {"binding": {"host": "h2", "vnic_type": "normal", "profile": {"a": 1}}}


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("port", f"GET /v2.0/ports/{ID}"),
        ("ports", "GET /v2.0/ports"),
        ("bindings", f"GET {BINDINGS}"),
        ("network_agents", f"GET {AGENTS}"),
    ],
)
def test_a_look_that_fails_at_the_other_end_is_asked_again_by_others(
    noauth: Connection, stub: Stub, method: str, what: str
) -> None:
    stub.answer(what, Answer(503, "<html>later</html>"))
    with pytest.raises(Unknown):
        ask(noauth, method, *() if method == "network_agents" else (ID,))
    assert len(stub.requests(what)) == 1


def test_an_answer_that_makes_no_sense_is_none(noauth: Connection, stub: Stub) -> None:
    stub.answer(f"GET {BINDINGS}", Answer(200, {"surprise": PASSWORD}))
    with pytest.raises(Unknown) as raised:
        ask(noauth, "bindings", ID)
    assert PASSWORD not in str(raised.value)


def test_what_a_port_is(noauth: Connection, stub: Stub) -> None:
    stub.answer(f"GET /v2.0/ports/{ID}", Answer(body={"port": row(ID)}))
    stub.answer(f"GET /v2.0/networks/{NETWORK}", Answer(body={"network": {"id": NETWORK, "mtu": 1442}}))
    assert ask(noauth, "port", ID) == NetworkPort(ID, "fa:16:3e:00:00:01", "m", "DOWN", 1442)
    assert ask(noauth, "port", NETWORK) is None


def row(port_id: str) -> dict[str, Any]:
    return {
        "id": port_id, "mac_address": "fa:16:3e:00:00:01", "device_id": "m", "status": "DOWN", "network_id": NETWORK,
    }  # fmt: skip


def test_what_a_binding_is(noauth: Connection, stub: Stub) -> None:
    """One to no host is none: so is that of a port which was unbound."""
    common = {"vnic_type": "normal", "vif_type": "ovs", "profile": {}, "status": "INACTIVE"}
    rows = [
        {**common, "host": "h2", "vif_type": "unbound", "vif_details": {}},
        {**common, "host": ""},
        {**common, "host": "h1", "status": "ACTIVE", "profile": {"a": 1},
         "vif_details": {"bridge_name": "br-int", "ovs_hybrid_plug": True}},
    ]  # fmt: skip
    stub.answer(f"GET {BINDINGS}", Answer(body={"bindings": rows}))
    assert ask(noauth, "bindings", ID) == (
        PortBinding("h1", True, "ovs", "normal", "br-int", True, {"a": 1}),
        PortBinding("h2", False, "unbound"),
    )
    assert ask(noauth, "bindings", NETWORK) == ()


def test_long_lists_are_read_to_their_ends(noauth: Connection, stub: Stub) -> None:
    """Neutron ends a list after `pagination_max_limit`, and says where it goes on."""

    def pages(path: str, key: str, *rows: dict[str, Any]) -> None:
        nexts = [f"{stub.url}{path}?limit=1&marker={number}" for number, _ in enumerate(rows[1:])]
        links = [*([{"rel": "next", "href": href}] for href in nexts), []]
        stub.answer(
            f"GET {path}", *(Answer(body={key: [a], f"{key}_links": b}) for a, b in zip(rows, links, strict=True))
        )

    pages("/v2.0/ports", "ports", row("b"), row("c"), row("a"))
    stub.answer(f"GET /v2.0/networks/{NETWORK}", Answer(body={"network": {"id": NETWORK, "mtu": 1442}}))
    assert [each.id for each in ask(noauth, "ports", "m")] == ["a", "b", "c"]
    assert stub.requests("GET /v2.0/ports")[0].query == "device_id=m"
    assert len(stub.requests(f"GET /v2.0/networks/{NETWORK}")) == 1
    agents = [{"id": host, "host": host, "agent_type": "OVS", "alive": host == "h1"} for host in ("h2", "h1", "h3")]
    pages(AGENTS, "agents", *agents)
    assert ask(noauth, "network_agents") == tuple(NetworkAgent(h, "OVS", h == "h1") for h in ("h1", "h2", "h3"))
    common = {"vnic_type": "normal", "vif_type": "ovs", "status": "INACTIVE"}
    pages(BINDINGS, "bindings", *({**common, "host": host} for host in ("h2", "h1")))
    assert [each.host for each in ask(noauth, "bindings", ID)] == ["h1", "h2"]


def test_ports_that_go_while_they_are_listed_are_listed_again_by_others(noauth: Connection, stub: Stub) -> None:
    links = [{"rel": "next", "href": f"{stub.url}/v2.0/ports?limit=1&marker=a"}]
    gone = said(404, "PortNotFound", "Port a could not be found.")
    stub.answer("GET /v2.0/ports", Answer(body={"ports": [row("a")], "ports_links": links}), gone)
    with pytest.raises(Unknown, match="deleted while they were listed"):
        ask(noauth, "ports", "m")


# --- deadlines and the fence -----------------------------------------------------------------------------


def fence(seconds: float) -> Fence:
    return Fence(time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, "j-1", 7)


@pytest.mark.slow
@pytest.mark.parametrize("act", [CREATE, ACTIVATE, DELETE])
def test_the_deadline_ends_the_wait(noauth: Connection, stub: Stub, act: Act) -> None:
    method, args, request = act
    stub.answer(request, Answer(due=NEVER))
    with pytest.raises(Unknown, match=f"Neutron: no answer to {method}"):
        ask(noauth, method, *args, timeout=1)


@pytest.mark.parametrize("act", [CREATE, ACTIVATE, DELETE])
def test_nothing_is_sent_after_the_fence(noauth: Connection, stub: Stub, act: Act) -> None:
    method, args, request = act
    with pytest.raises(Refused, match="Neutron: too late, epoch 7 of job j-1"):
        ask(noauth, method, *args, fence=fence(-0.1))
    assert stub.requests(request) == []


def test_the_fence_counts_when_the_request_is_sent(way: Way, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the call begins: here a token has to be renewed first, and that takes longer than the lease."""
    with Stub() as keystone:
        keystone.is_keystone(stub.url)
        connection = way(**with_keystone(keystone.url))
        connection.open(PATIENCE)
        method, args, request = ACTIVATE
        stub.answer(request, Answer(401), Answer(200, {}))
        last = fence(PATIENCE)
        monkeypatch.setattr(time, "clock_gettime", keystone.slow_clock())
        with pytest.raises(Refused, match="too late, epoch 7 of job j-1"):
            ask(connection, method, *args, fence=last)
    assert len(stub.requests(request)) == 1


# --- secrets ---------------------------------------------------------------------------------------------


def test_no_secret_is_logged_or_shown(way: Way, stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Stub() as keystone:
        keystone.is_keystone(stub.url)
        connection = way(**with_keystone(keystone.url))
        check(connection)
        shown = [repr(connection)]
        for answer in (Answer(None), said(500, "PortBindingError", "no")):
            connection.open(PATIENCE)
            stub.answer(CREATE[2], answer)
            with pytest.raises(DriverError) as raised:
                ask(connection, CREATE[0], *CREATE[1], fence=fence(5))
            shown.append(f"{raised.value!r} {raised.value.__cause__!r}")
    shown.append(caplog.text)
    for text in shown:
        assert all(secret not in text for secret in (PASSWORD, TOKEN))


def test_a_url_is_shown_without_its_user(way: Way) -> None:
    url = nobody().replace("http://", f"http://admin:{PASSWORD}@")
    for connection in (way(**neutron_without_keystone(url)), way(**with_keystone(url))):
        with pytest.raises(Unreachable) as raised:
            connection.open(PATIENCE)
        assert PASSWORD not in str(raised.value)
