"""The dashboard in a real browser: it says what the database says, by itself, whatever things are called."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from resizeflow.audit.progress import percent, size
from resizeflow.chaos.child import KILLED
from resizeflow.persistence.models import Host, Job, Migration
from resizeflow.states import JobState
from tests.browser import served
from tests.console import Console
from tests.forger import picture
from tests.pages.conftest import HOSTILE, Past, WatchedMaker

PHONE = {"width": 360, "height": 640}


def addresses(past: Past) -> list[str]:
    """One of each kind of page, and those of what has a hostile name."""
    jobs = [past.finished, past.moving, *past.hostile]
    with past.database.read() as tx:
        instances = [tx.migrations.get(job.migration_id).instance_id for job in jobs]
    pages = [f"/migrations/{job.migration_id}" for job in jobs] + [f"/instances/{instance}" for instance in instances]
    return ["/", "/history", *(f"/history?text={quote(name)}" for name in HOSTILE), *pages, "/nowhere"]


def test_what_is_seen_of_the_fleet_is_what_the_database_says(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch()
    seen.page.goto(address)
    with past.database.read() as tx:
        moving, queued, finished = (
            tx.migrations.get(job.migration_id) for job in (past.moving, past.queued, past.finished)
        )
        owner = tx.jobs.get(past.moving.job_id).owner
        hosts, workers = tx.hosts.list(), tx.workers.up()
    rows = {row[0]: row for row in seen.rows("in-flight")}
    assert rows.keys() == {"moving", "queued"}
    assert rows["moving"][1:4] == [
        f"{moving.id[:8]} resize",
        "h1 → h2, adopted-1-128-1-0 → big",
        "TransferDisks 9 of 16",
    ]
    share, copied = percent(moving.bytes_done / moving.bytes_total), size(moving.bytes_done)
    assert f"{share} {copied} of" in rows["moving"][4]
    assert str(owner) in rows["moving"][5]
    assert (rows["queued"][1], rows["queued"][3]) == (f"{queued.id[:8]} migration", "waits")
    assert [(row[0], row[1], row[4]) for row in seen.rows("undecided")] == [
        ("web", finished.id[:8], "keep it with resizeflow confirm web, or go back with resizeflow revert web")
    ]
    assert [row[:1] + row[2:] for row in seen.rows("hosts")] == [
        [
            host.name,
            {"h1": "2 of 2", "h2": "1 of 2"}[host.name],
            f"{host.used_vcpus} of {int(host.vcpus * host.cpu_ratio)}",
            f"{host.used_memory_mb} of {host.memory_mb - host.reserved_memory_mb} MiB",
            f"{host.used_disk_gb} of {host.disk_gb} GiB",
        ]
        for host in hosts
    ]
    assert {row[0] for row in seen.rows("workers")} == {worker.name for worker in workers}
    assert seen.page.locator("#attention").inner_text().splitlines()[-1] == "Nothing."


def test_what_needs_a_person_is_first_with_the_command(past: Past, address: str, watch: WatchedMaker) -> None:
    reason = "DefineDestination failed after the point of no return: <pool> is gone"
    stopped = sa.update(Job).where(Job.id == past.queued.job_id)
    hidden = sa.update(Host).where(Host.name == "h2")
    with past.database.write() as tx:
        tx.session.execute(stopped.values(state=JobState.NEEDS_ATTENTION, reason=reason))
        tx.session.execute(hidden.values(enabled=False, disabled_reason="a disk is <b>replaced</b>"))
    try:
        seen = watch()
        seen.page.goto(address)
        alarm = seen.page.locator("#attention .alarm").inner_text()
        assert f"migration {past.queued.migration_id[:8]}: {reason}" in alarm
        assert f"resizeflow migration resume {past.queued.migration_id[:8]}" in alarm
        assert seen.rows("hosts")[1][1] == "disabled: a disk is <b>replaced</b>"
        seen.photograph("dashboard-alarm")
        seen.page.get_by_role("link", name="queued").first.click()
        seen.page.wait_for_url("**/instances/*")
        assert seen.rows("found")[0][5] == "needs attention"
    finally:
        with past.database.write() as tx:
            tx.session.execute(stopped.values(state=JobState.QUEUED, reason=None))
            tx.session.execute(hidden.values(enabled=True, disabled_reason=None))


@pytest.fixture
def as_before(past: Past) -> Iterator[None]:
    """Others look at the same past."""
    put_back = picture(past.database)
    yield
    put_back()


@pytest.mark.slow
@pytest.mark.usefixtures("as_before")
def test_it_goes_on_by_itself_and_keeps_the_focus(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch()
    page = seen.page
    page.goto(address)
    page.evaluate("window.mine = true")
    row = page.locator("#in-flight tr", has_text="moving")
    link = row.get_by_role("link", name="moving")
    link.focus()
    with past.database.read() as tx:
        total = tx.migrations.get(past.moving.migration_id).bytes_total
    with past.database.write() as tx:
        there = sa.update(Migration).where(Migration.id == past.moving.migration_id)
        tx.session.execute(there.values(bytes_done=total * 3 // 4))
    expect(row).to_contain_text("75 %")
    expect(link).to_be_focused()
    past.expire(past.moving)
    assert past.run_in_child(past.moving, "DefineDestination.RUNNING.after") == KILLED
    expect(row).to_contain_text("DefineDestination")
    expect(page.locator("#live-status")).to_have_text("live")
    assert page.evaluate("window.mine") is True
    seen.check_quiet(address)


def test_a_machine_s_whole_story(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch(java_script_enabled=False)
    seen.page.goto(f"{address}/instances/{past.uuid}")
    assert seen.page.locator("h1").inner_text() == "web"
    assert "on h2 with flavor big" in seen.page.locator("#machine").inner_text()
    assert [row[2] for row in seen.rows("found")] == [f"{past.finished.migration_id[:8]} resize"]
    assert seen.page.locator("noscript meta[http-equiv=refresh], meta[http-equiv=refresh]").count() == 1


@pytest.mark.slow
def test_history_is_searched(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch()
    seen.page.goto(f"{address}/history")
    with past.database.read() as tx:
        known = tx.migrations.list()
    assert [row[2][:8] for row in seen.rows("found")] == [migration.id[:8] for migration in known]
    seen.page.get_by_label("outcome").select_option("rolled back")
    seen.page.get_by_label("machine", exact=True).fill("undone")
    seen.page.get_by_role("button", name="Search").last.click()
    seen.page.wait_for_url("**/history?*outcome=rolled*")
    assert [row[1] for row in seen.rows("found")] == ["undone"]
    assert "failpoint" in seen.rows("found")[0][6]
    assert seen.page.get_by_label("machine", exact=True).input_value() == "undone"


@pytest.mark.slow
def test_with_the_keyboard_alone(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch()
    page = seen.page
    page.goto(address)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#in-flight a").first).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("undone")
    page.keyboard.press("Enter")
    page.wait_for_url("**/history?text=undone")
    link = page.locator("#found").get_by_role("link", name=past.undone.migration_id[:8])
    for _ in range(40):
        if link.evaluate("link => link === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/migrations/{past.undone.migration_id}")
    expect(page.locator("#outcome")).to_contain_text("Rolled back: undone is on h1")


@pytest.mark.slow
def test_hostile_names_are_only_names(past: Past, address: str, watch: WatchedMaker) -> None:
    seen = watch(viewport=PHONE)
    with past.all_hostile():
        for place in addresses(past)[:-1]:
            seen.page.goto(address + place)
            seen.check_fits()
        for job, name in zip(past.hostile, HOSTILE, strict=True):
            seen.page.goto(f"{address}/migrations/{job.migration_id}")
            title = seen.page.locator("h1").text_content() or ""
            assert title == f"resize of {name}, adopted-1-128-1-0 to {HOSTILE[2]}, h1 to {HOSTILE[0]}"
            assert seen.page.locator("script").count() == 1
        seen.page.goto(address)
        assert HOSTILE[3] in (seen.page.locator("#in-flight").text_content() or "")
    seen.check_quiet(address, "data:,")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(past: Past, address: str, watch: WatchedMaker, scheme: str) -> None:
    seen = watch(color_scheme=scheme)
    for place in ("/", "/history", f"/migrations/{past.finished.migration_id}", "/nowhere"):
        seen.page.goto(address + place)
        seen.check_readable()
    background = seen.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")


def ask(address: str, method: str, path: str = "/", host: str = "127.0.0.1") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request(method, path, headers={"Host": host})
    return connection.getresponse()


def test_it_is_only_read_and_only_by_browsers_of_this_machine(past: Past, address: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert ask(address, method).status == 405
    assert ask(address, "GET", host="localhost:9000").status == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "resizeflow"):
        assert ask(address, "GET", host=host).status == 400
    for path in (*addresses(past), "/static/live.js"):
        headers = ask(address, "GET", path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "*" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/migrations/ffffffff", 404),
        ("/instances/ffffffff", 404),
        ("/history?older=yesterday", 400),
        ("/history?since=soon", 400),
        ("/history?until=9999-12-31", 400),
        ("/history?outcome=fine", 400),
        ("/static/../dashboard.py", 404),
    ],
)
def test_a_wrong_address_is_answered_in_a_sentence(address: str, path: str, code: int) -> None:
    answer = ask(address, "GET", path)
    text = answer.read().decode()
    assert answer.status == code
    assert 'role="alert"' in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_it_is_ended_by_a_service_manager_as_by_ctrl_c(past: Past) -> None:
    with served(Console(past.folder / "resizeflow.conf"), signal.SIGTERM) as address:
        assert address.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("listen", ["0.0.0.0:8780", "192.0.2.1:8780", "[::]:8780", "example.org:8780"])
def test_it_is_not_served_to_others(past: Past, listen: str) -> None:
    console = Console(past.folder / "resizeflow.conf")
    console.type("dashboard", "--listen", listen).refused(2, "ssh -L 8780:127.0.0.1:8780")


def test_where_it_cannot_be_served(past: Past, address: str) -> None:
    console, taken = Console(past.folder / "resizeflow.conf"), urlsplit(address).netloc
    console.type("dashboard", "--listen", taken).refused(2, "Address already in use", "another port")
    for wrong in ("8780", "127.0.0.1:", "127.0.0.1:70000", ":"):
        console.type("dashboard", "--listen", wrong).refused(2, "ADDRESS:PORT")
