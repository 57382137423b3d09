"""The crash laboratory itself: it finds what is wrong, names it, and runs it again by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from resizeflow.chaos.case import Case, sample
from resizeflow.chaos.child import KILLED, Child, Overdue
from resizeflow.chaos.hunt import hunt
from resizeflow.chaos.kinds import KINDS
from resizeflow.chaos.laboratory import Laboratory
from resizeflow.chaos.mutants import MUTANTS
from resizeflow.chaos.plan import FIRST, Extent, first_words, run_from
from resizeflow.chaos.report import Report
from resizeflow.chaos.runner import Piece, Runner
from resizeflow.chaos.scenarios import SCENARIOS
from resizeflow.chaos.soak import Soak
from resizeflow.errors import UsageError
from tests.console import Console


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory("small", tmp_path_factory.mktemp("chaos") / "small")


# --- cases by name ---------------------------------------------------------------------------------------


def test_a_case_is_its_name() -> None:
    name = "small/fail@DefineDestination.define#1.checked/kill@TransferDisks.revert.REVERTED.before/resume"
    assert Case.parse(name).name == name
    assert Case.parse("small").then("rollback") == Case("small", ("rollback",))


@pytest.mark.parametrize("name", ["nothing", "small/kil@X", "small/kill", "small/kill@", "small/rollback@h1"])
def test_a_name_that_is_none_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(UsageError, match=r"there are resize|is none of"):
        Case.parse(name)


def test_a_sample_is_the_same_for_the_same_seed_and_in_order() -> None:
    points = [f"p{number}" for number in range(100)]
    chosen = sample(1, Case("small"), points, 10)
    assert chosen == sample(1, Case("small"), points, 10) != sample(2, Case("small"), points, 10)
    assert chosen == sorted(chosen, key=points.index)
    assert sample(1, Case("small"), points, None) == points


# --- what is discovered ----------------------------------------------------------------------------------


def test_the_points_are_discovered(laboratory: Laboratory) -> None:
    """Every effect of the flow has a point before, between check and call, and after; every commit two."""
    acts = {point.rpartition(".")[0] for point in laboratory.points if point.endswith(".checked")}
    methods = {act.rpartition(".")[2].partition("#")[0] for act in acts}
    assert {effect.method for effect in laboratory.effects if effect.caused == "call"} <= methods
    for act in acts:
        assert f"{act}.before" in laboratory.points
    for task in ("OpenMigration", "TransferDisks", "FinishResize"):
        for state in ("RUNNING", "SUCCESS"):
            assert {f"{task}.{state}.before", f"{task}.{state}.after"} <= set(laboratory.points)


def test_every_kind_has_cases(laboratory: Laboratory) -> None:
    assert set(KINDS) == set(FIRST)
    for kind in KINDS:
        words = first_words(kind, laboratory)
        assert words, kind
        assert len(set(words)) == len(words), kind


def test_a_failure_late_in_the_flow_turns_it_back_and_the_way_back_has_points_of_its_own(
    laboratory: Laboratory,
) -> None:
    assert laboratory.way_back.wrong == []
    assert any(".revert." in words[-1] for words in first_words("rollbacks", laboratory))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_some_cases_of_each_kind(laboratory: Laboratory, kind: str) -> None:
    words = first_words(kind, laboratory)
    chosen = words[:: max(len(words) // 3, 1)]
    results = [result for word in chosen for result in run_from(kind, laboratory, word, Extent(pairs=2))]
    assert len(results) >= 3
    assert [(result.case.name, result.wrong) for result in results if result.wrong] == []


def test_a_stopped_worker_leaves_what_a_killed_one_leaves(laboratory: Laboratory) -> None:
    """One run is copied at many points, where each would have been killed in a run of its own."""
    # While a copy is under way, what there is depends on the time, too.
    of_itself = (".running", ".progress#", ".segments#")
    kills = [words for words in first_words("kills", laboratory) if not any(word in words[0] for word in of_itself)][
        5::25
    ]
    killed = []
    for (word,) in kills:
        laboratory.fresh()
        assert laboratory._child([f"{word.removeprefix('kill@')}=kill"]).wait(60) == KILLED
        killed.append(_left(laboratory))
    laboratory.go_ahead([*kills, ("kill@NoSuchTask.before",)])
    for (word,), left in zip(kills, killed, strict=True):
        assert laboratory._restore((word, "resume")) == 1
        assert _left(laboratory) == left, word
    assert laboratory._restore(("kill@NoSuchTask.before", "resume")) == 0


def _left(laboratory: Laboratory) -> tuple[object, ...]:
    """The cloud, what was done to it, the job, and the log."""
    cloud, job = laboratory.cloud, laboratory.job
    with cloud.database.read() as tx:
        told = [
            (event.seq, event.epoch, event.task, event.kind, event.transition)
            for event in tx.events.of(job.migration_id)
        ]
    effects = [(effect.host, effect.method, effect.subject, effect.epoch) for effect in cloud.world.effects()]
    row = cloud.job(job)
    return cloud.state(job), effects, (row.state, row.epoch, row.attempts, row.direction, row.pivot_at is None), told


# --- what is wrong is seen -------------------------------------------------------------------------------


def test_a_world_that_was_tampered_with_is_not_as_before(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("small", ("kill@TransferDisks.SUCCESS.after", "rollback"))
    assert laboratory.run(case).wrong == []
    turn_back = laboratory._turn_back

    def tamper() -> None:
        turn_back()
        laboratory.cloud.world.create_guest("h2", "other", 1, 256, {"vda": 1}, running=False)

    monkeypatch.setattr(laboratory, "_turn_back", tamper)
    result = laboratory.run(case)
    assert any("not as before: world/hosts/h2/domains" in sentence for sentence in result.wrong)
    assert "rollback was asked for" in result.story


def test_a_point_that_is_never_passed_is_told(laboratory: Laboratory) -> None:
    result = laboratory.run(Case("small", ("kill@NoSuchTask.before", "resume")))
    assert (result.happened, result.wrong) == (False, [])


QUICK = {"reservation-forgotten", "no-epoch-check", "undo-trusts-its-result"}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", sorted(QUICK))
def test_a_seeded_fault_is_caught(mutant: str) -> None:
    """Some that take few cases; `scripts/certify mutants` lets the enumeration loose on all."""
    (catch,) = hunt([mutant], 1)
    assert catch.by is not None
    assert catch.by.wrong


def test_there_are_mutants_and_each_says_what_it_is() -> None:
    assert len(MUTANTS) >= 12
    for name, mutant in MUTANTS.items():
        assert mutant.explained.endswith("."), name
        assert all(scenario in SCENARIOS and kind in KINDS for scenario, kind in mutant.where), name


def test_a_child_that_hangs_is_ended() -> None:
    def hang() -> None:
        while True:
            pass

    with pytest.raises(Overdue):
        Child(hang).wait(0.2)
    with pytest.raises(Overdue):
        Child(hang).stops(0.2)


# --- many ------------------------------------------------------------------------------------------------


@pytest.fixture
def pieces() -> Iterator[list[Piece]]:
    extent = Extent(points=2, seed=7)
    with Runner(2) as runner:
        planned = runner.plan(["small", "confirm"], ["kills"], extent)
        yield sorted(runner.run(planned, extent), key=lambda piece: list(SCENARIOS).index(piece.scenario))


@pytest.mark.slow
def test_a_report_counts_and_writes_junit(pieces: list[Piece], tmp_path: Path) -> None:
    report = Report(pieces)
    for piece in pieces:
        report.add(piece)
    assert [(line.scenario, line.points, line.cases, line.violations) for line in report.lines] == [
        ("confirm", 2, 4, 0),
        ("small", 2, 4, 0),
    ]
    report.lines[0].results[0].wrong.append("something <wrong>")
    report.write_junit(tmp_path / "chaos.xml")
    suites = etree.parse(tmp_path / "chaos.xml").getroot()
    assert [suite.get("tests") for suite in suites] == ["4", "4"]
    (failure,) = suites.iter("failure")
    assert failure.get("message") == "something <wrong>"
    parent = failure.getparent()
    assert parent is not None
    assert Case.parse(parent.get("name") or "") == report.lines[0].results[0].case


@pytest.mark.slow
def test_a_soak_of_a_few_seconds(memory_path: Path) -> None:
    outcome = Soak(memory_path, seed=3).run(5)
    assert outcome.wrong == []
    assert outcome.counts["jobs done"] > 0


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def console(tmp_path: Path) -> Console:
    """It needs no configuration."""
    config = tmp_path / "resizeflow.conf"
    config.touch()
    return Console(config)


@pytest.mark.slow
def test_the_command_runs_one_case_and_says_what_came_of_it(console: Console) -> None:
    (row,) = console.ask("chaos", "--case", "small/kill@FinishResize.SUCCESS.before/resume")
    assert (row["happened"], row["violations"]) == (True, 0)


@pytest.mark.parametrize("words", [("--scenario", "nothing"), ("--case", "small/kil@X")])
def test_the_command_refuses_what_it_does_not_know(console: Console, words: tuple[str, ...]) -> None:
    console.type("chaos", *words).refused(2, "there are resize" if "nothing" in words else "is none of")
