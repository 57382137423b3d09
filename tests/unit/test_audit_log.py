"""`resizeflow audit log`: what is found by which filter, page by page, and that it is found without reading all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lab.postgresql import PostgreSQL
from resizeflow.audit import search as searching
from resizeflow.audit.moments import moment
from resizeflow.audit.search import PAGE, Filters, Place, horizon, look, place_of, search
from resizeflow.chaos.cloud import Cloud
from resizeflow.chaos.runner import work_folder
from resizeflow.errors import UsageError
from resizeflow.persistence.chain import COVERED, GENESIS
from resizeflow.persistence.models import COMMON_KINDS, FLEET, Event
from resizeflow.states import JobState, Outcome
from tests.conftest import TEMPLATE
from tests.console import Console

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
MACHINES, EACH = 40, 50


@pytest.fixture
def cloud(memory_path: Path, connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=connection).build(running=False)


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def full(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Lines of many migrations, two each minute; they need no chain here. Nobody changes them."""
    folder, url = work_folder(), None
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql")
        server.create_database("search", TEMPLATE)
        url = server.url("search")
    cloud = Cloud(folder, connection=url).build(running=False)
    fill(cloud)
    yield cloud
    cloud.release()
    if url is not None:
        server.drop_database("search")
    shutil.rmtree(folder)


def fill(cloud: Cloud) -> None:
    rows = []
    for machine in range(MACHINES):
        for seq in range(1, EACH + 1):
            line: dict[str, Any] = {
                **dict.fromkeys(COVERED),
                "migration_id": f"m{machine}",
                "seq": seq,
                "at": NOW - timedelta(minutes=machine // 2 * EACH + EACH - seq),
                "instance": f"vm{machine}",
                "instance_id": f"00000000-0000-4000-8000-{machine:012d}",
                "project_id": f"p{machine % 20}",
                "host": f"h{seq}",
                "asked_by": f"user{machine % 20}",
                "epoch": 1,
                "kind": COMMON_KINDS[seq % len(COMMON_KINDS)] if seq > 1 else "pivot",
                "text": f"word{seq} of vm{machine}",
                "outcome": Outcome.FAILED if (seq, machine % 10) == (2, 0) else Outcome.OK,
                "error": "Connection TIMED out" if (seq, machine) == (2, 10) else None,
                "data": {},
                "chain": GENESIS,
            }
            rows.append(line)
    with cloud.database.write() as tx:
        tx.session.execute(sa.delete(Event))
        tx.session.execute(sa.insert(Event), rows)
    if not cloud.database.sqlite:
        with cloud.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE events"))


def found(cloud: Cloud, limit: int = 5000, **filters: Any) -> list[Event]:
    with cloud.database.read() as tx:
        return list(search(tx, Filters(**filters), limit))


FILTERS: dict[str, tuple[dict[str, Any], int]] = {
    "instance": ({"instance": "vm3"}, EACH),
    "UUID": ({"instance": "00000000-0000-4000-8000-000000000003"}, 0),
    "host": ({"host": "h7"}, MACHINES),
    "project": ({"project": "p2"}, EACH * 2),
    "user": ({"user": "user6"}, EACH * 2),
    "since": ({"since": NOW - timedelta(minutes=9)}, 20),
    "until": ({"until": NOW - timedelta(minutes=MACHINES // 2 * EACH - 11)}, 20),
    "outcome": ({"outcome": Outcome.FAILED}, 4),
    "no such outcome": ({"outcome": Outcome.UNKNOWN}, 0),
    "kind": ({"kind": "pivot"}, MACHINES),
    "no such kind": ({"kind": "nothing"}, 0),
    "text": ({"text": "WORD7 of vm3"}, 11),
    "error": ({"text": "timed out"}, 1),
    "no wildcards": ({"text": "word_ of"}, 0),
    "migration": ({"migration": "m3"}, EACH),
    "several": ({"project": "p0", "outcome": Outcome.FAILED, "since": NOW - timedelta(minutes=EACH * 15)}, 2),
}


@pytest.mark.parametrize("case", FILTERS)
def test_a_filter_finds_what_fits_the_latest_first(full: Cloud, case: str) -> None:
    filters, count = FILTERS[case]
    lines = found(full, **filters)
    assert len(lines) == count
    assert [line.at for line in lines] == sorted((line.at for line in lines), reverse=True)


def test_pages_are_all_there_is_and_nothing_twice(full: Cloud) -> None:
    whole = [place_of(line) for line in found(full)]
    paged, before = [], None
    while True:
        with full.database.read() as tx:
            page = search(tx, Filters(), 77, before=before)
        if not page:
            break
        paged += [place_of(line) for line in page]
        before = paged[-1]
    assert paged == whole
    assert len(set(whole)) == MACHINES * EACH


@pytest.mark.parametrize("at_once", [77, 300, MACHINES * EACH + 1])
def test_words_are_looked_for_in_so_many_lines_at_a_time(
    full: Cloud, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "LOOKED_AT", at_once)
    wanted, pages, before = Filters(text="word7 "), 0, None
    lines: list[Event] = []
    while True:
        with full.database.read() as tx:
            page = look(tx, wanted, before=before)
        pages += 1
        lines += page.lines
        assert page.older is None or page.back_to is not None
        if page.older is None:
            break
        before = Place.parse(str(page.older))
    with full.database.read() as tx:
        assert [place_of(line) for line in lines] == [place_of(line) for line in search(tx, wanted, 5000)]
    assert len(lines) == MACHINES
    assert pages >= MACHINES * EACH // at_once


def test_a_page_of_words_ends_where_it_is_full(full: Cloud) -> None:
    with full.database.read() as tx:
        first = look(tx, Filters(text="of vm"))
        second = look(tx, Filters(text="of vm"), before=first.older)
        whole = search(tx, Filters(), 2 * PAGE)
    assert [place_of(line) for line in (*first.lines, *second.lines)] == [place_of(line) for line in whole]


def test_where_words_end_is_found_without_a_look_at_a_line(full: Cloud) -> None:
    with full.database.read() as tx:
        latest = search(tx, Filters(), 101)
        assert horizon(tx, Filters(text="nowhere"), 100) == latest[-1].at
        assert horizon(tx, Filters(text="nowhere"), MACHINES * EACH) is None
        assert horizon(tx, Filters(instance="vm3"), EACH - 1) == found(full, instance="vm3")[-1].at


def test_a_machine_is_found_by_its_uuid(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h1")
    assert cloud.run(job) is JobState.DONE
    lines = found(cloud, instance=cloud.uuid)
    assert {line.migration_id for line in lines} >= {job.migration_id}
    assert [line.seq for line in lines] == [line.seq for line in found(cloud, instance="web")]


def plan_of(cloud: Cloud, filters: Filters) -> str:
    """What the database would do to answer."""
    said: list[tuple[str, Any]] = []

    def executed(_c: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        said.append((statement, parameters))

    with cloud.database.read() as tx:
        sa.event.listen(cloud.database.engine, "before_cursor_execute", executed)
        search(tx, filters, 100)
        sa.event.remove(cloud.database.engine, "before_cursor_execute", executed)
        statement, parameters = said[-1]
        explain = "EXPLAIN QUERY PLAN " if cloud.database.sqlite else "EXPLAIN "
        rows = tx.connection.exec_driver_sql(explain + statement, parameters).all()
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize("case", [name for name in FILTERS if FILTERS[name][0].keys() != {"text"}])
@pytest.mark.parametrize("paged", [False, True])
def test_no_filter_but_text_reads_the_whole_table(full: Cloud, case: str, paged: bool) -> None:
    filters = Filters(**FILTERS[case][0])
    if paged and filters.until is None:
        filters = replace(filters, until=NOW)
    plan = plan_of(full, filters)
    if full.database.sqlite:
        assert re.search(r"SEARCH events USING (COVERING )?INDEX", plan), plan
    else:
        assert "Seq Scan" not in plan, plan
        assert "Index Cond" in plan, plan


def test_the_latest_lines_of_all_are_found_by_their_time(full: Cloud) -> None:
    assert "ix_events_at" in plan_of(full, Filters())


# --- what is typed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(days=7)),
        ("2026-11-01T10:00+00:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1).astimezone()),
    ],
)
def test_a_time_is_iso_8601_or_so_long_ago(text: str, meant: datetime) -> None:
    assert moment(text, NOW) == meant


@pytest.mark.parametrize("text", ["yesterday", "2x", "", "9999999999w", "2026-13-01"])
def test_what_is_no_time_is_said_so(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        moment(text, NOW)


@pytest.mark.slow
def test_the_latest_line_is_the_last_on_the_screen(cloud: Cloud, console: Console) -> None:
    job = cloud.service.resize("web", "big", host="h1")
    assert cloud.run(job) is JobState.DONE
    rows = console.ask("audit", "log", "--migration", job.migration_id[:8], "--kind", "task", "--limit", "5")
    with cloud.database.read() as tx:
        tasks = [event.seq for event in tx.events.of(job.migration_id) if event.kind == "task"]
    assert [row["seq"] for row in rows] == tasks[-5:]
    shown = console.type("audit", "log", "--migration", job.migration_id[:8], "--kind", "task", "--limit", "5")
    assert shown.out.index(rows[0]["text"]) < shown.out.index(rows[-1]["text"])
    assert "The latest 5 lines" in shown.out
    assert console.ask("audit", "log", "--migration", FLEET)
    assert "No line fits." in console.type("audit", "log", "--instance", "nobody").out
    console.type("audit", "log", "--since", "yesterday").refused(2, "is not a time")
    console.type("audit", "log", "--limit", "0").refused(2, "--limit")
    console.type("audit", "log", "--kind", "tsk").refused(2, "no line of kind 'tsk'", "task, ")
    console.type("audit", "log", "--migration", "nothing").refused(2, "no migration")


def test_an_error_is_shown_with_what_to_do(cloud: Cloud, console: Console) -> None:
    with cloud.database.write() as tx:
        tx.events.add(FLEET, "failure", "it failed", error="h1 is away", next_action="start h1", outcome=Outcome.FAILED)
    out = console.type("audit", "log", "--outcome", "failed").out
    assert "h1 is away" in out
    assert "To do: start h1" in out
    (row,) = console.ask("audit", "log", "--outcome", "failed")
    assert (row["text"], row["error"], row["next_action"]) == ("it failed", "h1 is away", "start h1")
