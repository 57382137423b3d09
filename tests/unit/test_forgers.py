"""Somebody who can write the database and has not the audit key: what he does to the log is found, and named.

He computes whatever can be computed without the key: numbers, plain hashes, the end of the log; or all of it under a
key of his own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_db.exception import DBError

from resizeflow.audit.heads import head_of
from resizeflow.audit.verify import verify
from resizeflow.chaos.cloud import Cloud
from resizeflow.pages.dashboard import application
from resizeflow.persistence import schema
from resizeflow.persistence.chain import COVERED
from resizeflow.persistence.flaws import What
from resizeflow.persistence.models import FLEET, SEALS
from resizeflow.persistence.seals import seal_logs
from resizeflow.states import Outcome
from tests.console import Console
from tests.forger import EVENTS, LOGS, SEAL_ROWS, Forger, picture
from tests.golden import make
from tests.unit.test_golden import SETS, pictures
from tests.with_a_past import DATABASES, with_a_past

CHANGES: dict[str, Any] = dict.fromkeys(COVERED, "forged") | {
    "at": timedelta(microseconds=1),
    "epoch": 7,
    "seconds": 3600.5,
    "outcome": Outcome.REFUSED,
    "data": {"forged": True},
}
del CHANGES["migration_id"], CHANGES["seq"]  # a line that is moved is another case
MODES = ("careless", "plain hashes", "a key of his own")
LINE = 9
"""The line that is forged."""


@dataclass
class Case:
    """A cloud with a closed and sealed migration and an open one, and who forges its log."""

    cloud: Cloud
    closed: str
    open: str

    def forger(self, mode: str) -> Forger:
        key = self.cloud.folder / "his.key"
        key.write_text("f0" * 32)
        key.chmod(0o600)
        return Forger(self.cloud.database, key=key if mode == MODES[2] else None, careful=mode != MODES[0])

    def found(self, **how: Any) -> list[tuple[str, int, What]]:
        """What verify finds: log, line, what."""
        report = verify(self.cloud.database, **how)
        return [(finding.log, finding.flaw.seq, finding.flaw.what) for finding in report.findings]

    def whole(self) -> None:
        report = verify(self.cloud.database)
        assert (report.findings, report.unsealed) == ([], 0)
        assert (report.logs, report.seals > 2, report.lines > 100) == (3, True, True)


@pytest.fixture(scope="module", params=DATABASES)
def made(request: pytest.FixtureRequest) -> Iterator[Case]:
    with with_a_past(request, "forgers") as (cloud, closed, opened):
        seal_logs(cloud.database)
        yield Case(cloud, closed.migration_id, opened.migration_id)


@pytest.fixture
def case(made: Case) -> Iterator[Case]:
    put_back = picture(made.cloud.database)
    made.whole()
    yield made
    put_back()
    made.whole()


# --- lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_changed_field_is_found_whichever_it_is(case: Case, mode: str) -> None:
    for column, value in CHANGES.items():
        put_back = picture(case.cloud.database)
        line = case.forger(mode).lines(case.closed)[LINE - 1]
        forged = line["at"] + value if column == "at" else value
        assert line[column] != forged
        case.forger(mode).change(case.closed, LINE, **{column: forged})
        assert (case.closed, LINE, What.CHANGED) in case.found(), column
        if mode == MODES[0]:
            assert len(case.found()) == 1, column
        put_back()


RUBBISH = [
    ("outcome", "fine"),
    ("data", "[1]"),
    ("data", "nothing"),
    ("at", "yesterday"),
    ("seq", "last"),
    ("text", b"\xff"),
]


@pytest.mark.parametrize(("column", "value"), RUBBISH)
def test_what_the_program_never_writes_is_found_and_named(case: Case, column: str, value: object) -> None:
    """PostgreSQL takes less of it than SQLite."""
    with case.forger("careless").writing() as connection:
        line = {"value": value, "log": case.closed, "seq": LINE}
        try:
            set_it = f"UPDATE events SET {column} = :value WHERE migration_id = :log AND seq = :seq"  # noqa: S608
            connection.execute(sa.text(set_it), line)
        except (DBError, sa.exc.DBAPIError):
            assert not case.cloud.database.sqlite
            return
    last = case.forger("careless").log(case.closed)["seq"]
    strange = {(case.closed, LINE, What.MISSING), (case.closed, last, What.INSERTED)}
    assert set(case.found()) == (strange if column == "seq" else {(case.closed, LINE, What.CHANGED)})
    console = Console(case.cloud.folder / "resizeflow.conf")
    console.type("audit", "verify").refused(3, "not what was written")
    console.type("migration", "history", case.closed).refused(3, "The log was changed")
    console.type("report", case.closed, "--html").refused(3, "not what was written")
    console.type("report", case.closed, "-f", "json").refused(3, "not what was written")
    page = application(case.cloud.database).test_client().get(f"/migrations/{case.closed}")
    assert "The log is not what was written" in page.text


def test_a_signature_that_is_no_signature_is_found(case: Case) -> None:
    """And keeps nobody from writing to that log."""
    forger = case.forger("careless")
    forger.end(forger.log(case.open) | {"signature": "é" * 64})
    last = len(forger.lines(case.open))
    assert case.found() == [(case.open, last, What.CHANGED)]
    with case.cloud.database.write() as tx:
        tx.events.add(case.open, "note", "written later")
    assert case.found() == [(case.open, last + 1, What.CHANGED)]


def test_a_changed_chain_is_found(case: Case) -> None:
    case.forger("careless").change(case.closed, LINE, chain="f" * 64)
    assert case.found() == [(case.closed, LINE, What.CHANGED)]


@pytest.mark.parametrize("mode", MODES)
def test_a_deleted_line_is_found(case: Case, mode: str) -> None:
    case.forger(mode).delete(case.closed, LINE)
    what = What.MISSING if mode == MODES[0] else What.CHANGED
    assert (case.closed, LINE, what) in case.found()


def test_a_gap_that_was_closed_is_named(case: Case) -> None:
    forger = case.forger("careless")
    lines = forger.lines(case.closed)
    del lines[LINE - 1]
    forger.write(case.closed, [{**line, "seq": number} for number, line in enumerate(lines, 1)])
    assert case.found() == [(case.closed, LINE, What.MISSING)]


@pytest.mark.parametrize(("other", "with_chains"), list(itertools.product((LINE + 1, LINE + 20), (False, True))))
def test_two_swapped_lines_are_found_and_named(case: Case, other: int, with_chains: bool) -> None:
    case.forger("careless").swap(case.closed, LINE, other, with_chains=with_chains)
    assert case.found() == [(case.closed, LINE, What.SWAPPED)]


@pytest.mark.parametrize("mode", MODES[1:])
def test_two_lines_swapped_with_care_are_found(case: Case, mode: str) -> None:
    case.forger(mode).swap(case.closed, LINE, LINE + 5, with_chains=True)
    assert (case.closed, LINE, What.CHANGED) in case.found()


def test_an_inserted_line_is_named(case: Case) -> None:
    case.forger("careless").insert(case.closed, LINE, "forged")
    assert case.found() == [(case.closed, LINE, What.INSERTED)]


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_line_inserted_with_care_is_found(case: Case, mode: str) -> None:
    case.forger(mode).insert(case.closed, LINE, "forged")
    assert (case.closed, LINE, What.CHANGED) in case.found()


@pytest.mark.parametrize("mode", MODES)
def test_a_line_added_to_the_end_is_found(case: Case, mode: str) -> None:
    last = len(case.forger(mode).lines(case.open))
    case.forger(mode).insert(case.open, last + 1, "forged")
    what = What.INSERTED if mode == MODES[0] else What.CHANGED
    assert (case.open, last + 1, what) in case.found()


def test_a_line_that_was_moved_to_another_log_is_found(case: Case) -> None:
    forger = case.forger("careless")
    last, there = len(forger.lines(case.closed)), len(forger.lines(case.open))
    of_it = sa.update(EVENTS).where(EVENTS.c.migration_id == case.closed, EVENTS.c.seq == last)
    with forger.writing() as connection:
        connection.execute(of_it.values(migration_id=case.open, seq=there + 1))
    assert set(case.found()) == {(case.closed, last, What.CUT_OFF), (case.open, there + 1, What.INSERTED)}


def test_lines_that_are_of_no_log_are_found(case: Case) -> None:
    forger = case.forger("careless")
    with forger.writing() as connection:
        connection.execute(sa.insert(EVENTS), [{**line, "migration_id": "none"} for line in forger.lines(case.open)])
    assert case.found() == [("none", 1, What.MISSING)]


# --- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log", "mode"), list(itertools.product(("open", "closed", FLEET), MODES)))
def test_a_cut_tail_is_found(case: Case, log: str, mode: str) -> None:
    log_id = getattr(case, log, FLEET)
    last = len(case.forger(mode).lines(log_id))
    case.forger(mode).cut(log_id, last - 2)
    found = case.found()
    if mode == MODES[0]:
        assert found == [(log_id, last - 1, What.CUT_OFF)]
        return
    assert (log_id, last - 2, What.CHANGED) in found, "its end is not signed"
    if log != "open":
        assert (log_id, last - 1, What.CUT_OFF) in found, "it was sealed with more lines"


@pytest.mark.parametrize("mode", MODES)
def test_cut_seals_are_found(case: Case, mode: str) -> None:
    last = len(case.forger(mode).seals())
    case.forger(mode).cut_seals(last - 1)
    found = case.found()
    if mode == MODES[0]:
        assert (SEALS, last, What.CUT_OFF) in found
    else:
        assert (SEALS, last - 1, What.CHANGED) in found


@pytest.mark.parametrize("seal_anew", [False, True])
def test_removed_seals_are_found_also_if_new_ones_are_made(case: Case, seal_anew: bool) -> None:
    """Without any seal nothing would say that a migration is missing that was removed altogether."""
    forger = case.forger("careless")
    last = forger.log(case.open)["last_seal"]
    with forger.writing() as connection:
        connection.execute(sa.delete(SEAL_ROWS))
        connection.execute(sa.delete(LOGS).where(LOGS.c.id.in_([SEALS, case.closed])))
        connection.execute(sa.delete(EVENTS).where(EVENTS.c.migration_id == case.closed))
        connection.execute(sa.update(LOGS).values(sealed=False))
    if seal_anew:
        with case.cloud.database.write() as tx:
            for number in range(last):
                tx.events.add(f"another {number}", "note", "a line of a log that is new")
        assert seal_logs(case.cloud.database) == last, "new logs are sealed, and only they"
    gone = {found.log for found in verify(case.cloud.database).findings if "that seal is gone" in found.flaw.found}
    assert gone == {case.open, FLEET}


def test_a_cut_that_the_program_goes_on_from_is_found(case: Case) -> None:
    """It does not sign what he left: he need not only wait for the next line."""
    forger = case.forger("plain hashes")
    last = len(forger.lines(case.open))
    forger.cut(case.open, last - 4)
    with case.cloud.database.write() as tx:
        tx.events.add(case.open, "note", "written later")
    seal_logs(case.cloud.database)
    assert (case.open, last - 3, What.CHANGED) in case.found()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("which", ["open", "closed"])
def test_a_migration_that_was_removed_altogether_is_found(case: Case, which: str, mode: str) -> None:
    first = next(seal["number"] for seal in case.forger(mode).seals() if seal["migration_id"] == getattr(case, which))
    case.forger(mode).remove(getattr(case, which))
    assert (SEALS, first) in [(log, seq) for log, seq, _what in case.found()]


@pytest.mark.parametrize("which", ["open", "closed"])
def test_a_log_that_was_removed_is_found(case: Case, which: str) -> None:
    log_id = getattr(case, which)
    with case.forger("careless").writing() as connection:
        connection.execute(sa.text("DELETE FROM events WHERE migration_id = :id"), {"id": log_id})
        connection.execute(sa.text("DELETE FROM event_logs WHERE id = :id"), {"id": log_id})
    assert case.found() == [(log_id, 1, What.MISSING)]
    Console(case.cloud.folder / "resizeflow.conf").type("doctor").refused(3, "breach")


@pytest.mark.parametrize("later", [1, 200])
def test_a_log_that_was_removed_and_begun_anew_by_the_program_is_found(case: Case, later: int) -> None:
    """What is written then is genuine: but it was sealed with other lines."""
    with case.forger("careless").writing() as connection:
        connection.execute(sa.text("DELETE FROM events WHERE migration_id = :id"), {"id": case.open})
        connection.execute(sa.text("DELETE FROM event_logs WHERE id = :id"), {"id": case.open})
    with case.cloud.database.write() as tx:
        for _ in range(later):
            tx.events.add(case.open, "note", "written later")
    ((log, _seq, what),) = case.found()
    assert (log, what) == (case.open, What.CUT_OFF if later == 1 else What.CHANGED)


def test_a_log_that_is_only_said_to_be_sealed_is_found(case: Case) -> None:
    """So that no worker seals it."""
    with case.cloud.database.write() as tx:
        tx.events.add(case.closed, "debt", "settled after all")
    forger = case.forger("careless")
    forger.end(forger.log(case.closed) | {"sealed": True})
    seal_logs(case.cloud.database)
    assert case.found() == [(case.closed, len(forger.lines(case.closed)), What.MISSING)]


def test_an_old_signed_end_of_a_closed_log_is_found_by_its_seal(case: Case) -> None:
    """The end is genuine, but of yesterday."""
    forger = case.forger("careless")
    old, number = forger.log(case.open), len(forger.lines(case.open))
    with case.cloud.database.write() as tx:
        tx.events.add(case.open, "note", "what he does not want to be known")
    with case.cloud.database.write() as tx:
        tx.migrations.get(case.open).status = type(tx.migrations.get(case.open).status).CONFIRMED
    seal_logs(case.cloud.database)
    forger.cut(case.open, number)
    forger.end({**old, "sealed": True})
    assert (case.open, number + 1, What.CUT_OFF) in case.found()


def test_an_older_database_put_back_whole_is_found_by_a_head_that_was_kept_elsewhere(case: Case) -> None:
    """Every line, end and seal of it is genuine: without the head nobody could tell."""
    put_back = picture(case.cloud.database)
    with case.cloud.database.write() as tx:
        tx.events.command("what he does not want to be known")
    seal_logs(case.cloud.database)
    with case.cloud.database.read() as tx:
        head = head_of(tx)
    assert case.found(heads=[head]) == []
    put_back()
    assert case.found() == []
    assert case.found(heads=[head]) == [(SEALS, head.number, What.CUT_OFF)]
    with case.cloud.database.write() as tx:
        tx.events.command("another history")
    seal_logs(case.cloud.database)
    assert case.found() == []
    assert case.found(heads=[head]) == [(SEALS, head.number, What.CHANGED)]


def test_a_forged_head_is_refused(case: Case) -> None:
    console = Console(case.cloud.folder / "resizeflow.conf")
    kept = case.cloud.folder / "heads"
    assert console.type("audit", "head", "--output", str(kept)).code == 0
    assert console.type("audit", "verify", "--head", str(kept)).code == 0
    kept.write_text(kept.read_text().replace('"number": ', '"number": 1'))
    console.type("audit", "verify", "--head", str(kept)).refused(2, "signature", "false")
    kept.write_text("nothing")
    console.type("audit", "verify", "--head", str(kept)).refused(2, "is not what `resizeflow audit head` wrote")
    kept.unlink()


def test_what_is_pruned_cannot_be_claimed(case: Case) -> None:
    forger = case.forger("plain hashes")
    lines = forger.lines(case.closed)
    with forger.writing() as connection:
        connection.execute(sa.text("DELETE FROM events WHERE migration_id = :id AND seq <= 9"), {"id": case.closed})
    forger.end(forger.log(case.closed) | {"pruned_seq": 9, "pruned_chain": lines[8]["chain"]})
    assert case.found() == [(case.closed, len(lines), What.CHANGED)]


def test_all_of_it_under_a_key_of_his_own_is_found(case: Case) -> None:
    forger = case.forger("a key of his own")
    for log_id in (case.closed, case.open, FLEET):
        forger.write(log_id, forger.lines(log_id))
    forger.write_seals(forger.seals())
    assert {log for log, _seq, _what in case.found()} == {case.closed, case.open, FLEET, SEALS}
    forger.claim_key()
    assert case.found() == [("all", 0, What.CHANGED)]


def test_verify_names_what_was_done_and_ends_with_3(case: Case) -> None:
    console = Console(case.cloud.folder / "resizeflow.conf")
    case.forger("careless").change(case.closed, LINE, text="forged")
    answer = console.type("audit", "verify", "-f", "json")
    answer.refused(3, "1 flaw")
    assert answer.json["verified"] is False
    (row,) = answer.json["findings"]
    assert (row["log"], row["instance"], row["line"], row["what"]) == (case.closed, "web", LINE, "changed")
    console.type("audit", "verify", "--migration", case.closed[:8]).refused(3, "1 flaw")
    assert console.type("audit", "verify", "--migration", case.open[:8]).code == 0


# --- lines from before schema 0006 -----------------------------------------------------------------------


@pytest.fixture
def old(memory_path: Path) -> tuple[Cloud, str]:
    """A database of schema 0005 with a job in flight, upgraded."""
    cases = pictures(SETS[4])
    cloud, job = make.restore(cases[next(name for name in cases if name.startswith("confirm/"))], memory_path)
    schema.upgrade(cloud.database)
    return cloud, job.migration_id


def test_an_upgraded_database_verifies_and_says_how_much_of_it_is_from_before(old: tuple[Cloud, str]) -> None:
    cloud, _ = old
    report = verify(cloud.database)
    assert (report.findings, report.plain) == ([], report.lines - 1)  # The last one tells of the upgrade.
    assert report.lines > 20
    answer = Console(cloud.folder / "resizeflow.conf").type("audit", "verify")
    assert answer.code == 0
    assert f"{report.plain} lines of them are from before schema 0006" in answer.out


def forge_old(cloud: Cloud, log_id: str) -> None:
    """Changes an old line, and computes all plain hashes anew: they are all right."""
    forger = Forger(cloud.database)
    lines = forger.lines(log_id)
    plain = forger.log(log_id)["plain_seq"]
    later = lines[plain:]
    lines[2]["text"] = "forged"
    end = forger.log(log_id)
    forger.write(log_id, lines[:plain], since=3)
    with forger.writing() as connection:
        if later:
            connection.execute(sa.insert(EVENTS), later)
    forger.end(end)


@pytest.mark.parametrize("goes_on", [False, True])
def test_old_lines_changed_after_the_upgrade_are_found(old: tuple[Cloud, str], goes_on: bool) -> None:
    """Which of them it was cannot be told."""
    cloud, log_id = old
    plain = Forger(cloud.database).log(log_id)["plain_seq"]
    if goes_on:
        with cloud.database.write() as tx:
            tx.events.add(log_id, "note", "written under the key")
    forge_old(cloud, log_id)
    (finding,) = verify(cloud.database).findings
    assert (finding.log, finding.flaw.what) == (log_id, What.CHANGED)
    assert finding.flaw.seq == plain + goes_on
    assert "before schema 0006" in finding.flaw.found


def test_a_database_in_which_nothing_was_written_verifies_without_a_key(memory_path: Path) -> None:
    (memory_path / "resizeflow.conf").write_text(f"[DEFAULT]\nstate_path = {memory_path}\n")
    answer = Console(memory_path / "resizeflow.conf").type("audit", "verify")
    assert (answer.code, answer.out.strip()) == (0, "0 logs of 0 lines and 0 seals: all is what was written.")
    assert not (memory_path / "audit.key").exists()
