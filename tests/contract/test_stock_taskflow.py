"""Stock TaskFlow beside ours, in the situations of docs/comparison.md: each test checks both and its row there."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import taskflow.version

from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.connections import Connections
from resizeflow.drivers.simulator import SimulatedConnection
from resizeflow.persistence.models import AtomDetail, FlowDetail
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker
from tests.contract.stock_taskflow import TASKS, LostClaim, Stock, fail, run

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"


class Ours:
    """A resize of `web` from h1 to h2 on the simulator."""

    def __init__(self, folder: Path) -> None:
        self.cloud = Cloud(folder).build()
        self.cloud.world.set_speed(transfer_seconds=0)
        self.before_submit = self.cloud.state()
        self.job = self.cloud.service.resize("web", "big", host="h2")
        self.before: dict[str, Callable[[], object]] = {}
        """By method of the driver: what happens right before its next call, once."""

    def run_once(self) -> None:
        """One worker that takes the job up and leaves it; its lease is not renewed meanwhile."""
        before = self.before

        class Interrupted(SimulatedConnection):
            def call(self, method: str, args: tuple[Any, ...], **how: Any) -> Any:
                before.pop(method, lambda: None)()
                return super().call(method, args, **how)

        cloud = self.cloud
        worker = Worker(
            cloud.database, cloud.settings, connections=Connections(Interrupted), clock=FastClock(), announced=False
        )
        worker.take_and_run(self.job.job_id)
        worker.connections.close()

    def another_runs_it(self) -> None:
        """The lease has ended, another worker takes the job over and runs it to its end."""
        assert self.cloud.run(self.job) is JobState.DONE, self.cloud.story(self.job)

    def another_rolls_it_back(self) -> None:
        self.cloud.service.rollback(self.job.migration_id)
        self.another_runs_it()

    def flow(self) -> str:
        with self.cloud.database.read() as tx:
            return str(tx.session.get_one(FlowDetail, self.job.job_id).state)

    def atom(self, name: str) -> str:
        with self.cloud.database.read() as tx:
            return str(tx.session.scalars(sa.select(AtomDetail.state).where(AtomDetail.name == name)).one())

    def effects(self) -> int:
        return len(self.cloud.world.effects())

    def as_before(self) -> bool:
        return self.cloud.state() == self.before_submit


@pytest.fixture
def stock(tmp_path: Path) -> Stock:
    return Stock(tmp_path)


@pytest.fixture
def ours(memory_path: Path) -> Ours:
    return Ours(memory_path)


def in_page(situation: str, stock: str, ours: str, request: pytest.FixtureRequest) -> None:
    """The page has exactly this row."""
    row = f"| {situation} | {stock} | {ours} | `{request.node.name}` |"
    print(row)
    assert row in PAGE.read_text().splitlines(), f"docs/comparison.md does not have this row:\n{row}"


def zombie_of_stock(stock: Stock, other: Callable[[], object]) -> str:
    """An engine stops in b, before its effect, while another one ends the flow; then it goes on."""
    seen: dict[str, Any] = {}

    def meanwhile() -> None:
        other()
        seen.update(state=stock.state(), effects=len(stock.effects))

    stock.before["do b"] = meanwhile
    run(stock.begin())
    return f"{seen['state']}, then {stock.state()}; more side effects: {len(stock.effects) - seen['effects']}"


def zombie_of_ours(ours: Ours, other: Callable[[], object], caplog: pytest.LogCaptureFixture) -> str:
    """A worker stops in TransferDisks, before its effect, while another one ends the flow; then it goes on."""
    seen: dict[str, Any] = {}

    def meanwhile() -> None:
        other()
        seen.update(
            state=ours.flow(), effects=ours.effects(), cloud=ours.cloud.state(), story=ours.cloud.story(ours.job)
        )

    ours.before["volume"] = meanwhile
    with caplog.at_level(logging.INFO):
        ours.run_once()
    assert f"Job {ours.job.job_id}: another worker has taken this job over" in caplog.messages
    assert (ours.cloud.state(), ours.cloud.story(ours.job)) == (seen["cloud"], seen["story"])
    return f"{seen['state']}, then {ours.flow()}; more side effects: {ours.effects() - seen['effects']}, LeaseLost"


@pytest.mark.slow
def test_zombie_after_success(
    stock: Stock, ours: Ours, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    of_stock = zombie_of_stock(stock, lambda: run(stock.take_over()))
    assert of_stock == "SUCCESS, then SUCCESS; more side effects: 3"
    of_ours = zombie_of_ours(ours, ours.another_runs_it, caplog)
    assert of_ours == "SUCCESS, then SUCCESS; more side effects: 0, LeaseLost"
    in_page("zombie, the other finished the flow", of_stock, of_ours, request)


@pytest.mark.slow
def test_zombie_after_rollback(
    stock: Stock, ours: Ours, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    def other_fails_and_undoes_all() -> None:
        stock.before["do d"] = fail
        run(stock.take_over())
        assert stock.standing() == []

    of_stock = zombie_of_stock(stock, other_fails_and_undoes_all)
    assert of_stock == "REVERTED, then SUCCESS; more side effects: 3"
    assert stock.standing() == ["b", "c", "d"]
    of_ours = zombie_of_ours(ours, ours.another_rolls_it_back, caplog)
    assert of_ours == "REVERTED, then REVERTED; more side effects: 0, LeaseLost"
    assert ours.as_before()
    in_page("zombie, the other undid the flow", of_stock, of_ours, request)


def test_zombie_that_checks_its_claim(
    stock: Stock, ours: Ours, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """TaskFlow's own remedy, a listener that suspends an engine whose claim is lost, looks only after an effect."""
    claim = LostClaim()
    seen: dict[str, Any] = {}

    def meanwhile() -> None:
        claim.lost = True
        run(stock.take_over())
        seen.update(state=stock.state(), effects=len(stock.effects))

    stock.before["do b"] = meanwhile
    engine = stock.begin()
    with claim.watch(engine):
        run(engine)
    of_stock = f"{seen['state']}, then {stock.state()}; more side effects: {len(stock.effects) - seen['effects']}"
    assert of_stock == "SUCCESS, then SUSPENDED; more side effects: 1"
    of_ours = zombie_of_ours(ours, ours.another_runs_it, caplog)
    in_page("the same with TaskFlow's `CheckingClaimListener`", of_stock, of_ours, request)


def test_failed_revert_run_again(stock: Stock, ours: Ours, request: pytest.FixtureRequest) -> None:
    stock.before = {"do d": fail, "undo c": fail}
    run(stock.begin())
    first = stock.state()
    run(stock.take_over())
    of_stock = f"{first}, then {stock.state()} with {', '.join(stock.standing())} never undone"
    assert of_stock == "FAILURE, then REVERTED with a, b, c never undone"

    def the_way_back_fails_once() -> None:
        ours.cloud.world.fail("h2", "create_volume", "no room")
        ours.cloud.world.fail("h1", "define", "not now")

    ours.before["create_volume"] = the_way_back_fails_once
    ours.run_once()
    waiting = ours.cloud.job(ours.job)
    assert waiting.state is JobState.QUEUED
    assert waiting.reason == "undoing RetireSource: h1: not now"
    assert not ours.as_before()
    first = f"{ours.flow()}, RetireSource {ours.atom('RetireSource')}, a Handover"
    ours.another_runs_it()
    assert ours.as_before()
    of_ours = f"{first}; then {ours.flow()} with everything undone"
    assert of_ours == "RUNNING, RetireSource REVERTING, a Handover; then REVERTED with everything undone"
    in_page("an undo fails, the flow is run again", of_stock, of_ours, request)


@pytest.mark.slow
def test_reverted_flow_run_again(stock: Stock, ours: Ours, request: pytest.FixtureRequest) -> None:
    stock.before["do d"] = fail
    run(stock.begin())
    assert (stock.state(), stock.standing()) == ("REVERTED", [])
    done = len(stock.effects)
    run(stock.take_over())
    of_stock = f"REVERTED, then {stock.state()}; more side effects: {len(stock.effects) - done}, it starts over"
    assert of_stock == f"REVERTED, then SUCCESS; more side effects: {len(TASKS)}, it starts over"

    ours.cloud.world.fail("h2", "create_volume", "no room")
    ours.another_runs_it()
    assert ours.flow() == "REVERTED"
    effects, state = ours.effects(), ours.cloud.state()
    lie_that_it_runs(ours.cloud, ours.job)
    ours.run_once()
    assert (ours.cloud.job(ours.job).state, ours.cloud.state()) == (JobState.DONE, state)
    of_ours = f"REVERTED, then {ours.flow()}; more side effects: {ours.effects() - effects}, it is never run"
    assert of_ours == "REVERTED, then REVERTED; more side effects: 0, it is never run"
    in_page("a REVERTED flow is run again", of_stock, of_ours, request)


def lie_that_it_runs(cloud: Cloud, job: Submitted) -> None:
    """As if its worker had died between the flow's last state and what follows."""
    with cloud.database.write() as tx:
        tx.session.execute(
            sa.text("UPDATE jobs SET state = 'running', lease_until = 0 WHERE id = :id"), {"id": job.job_id}
        )


def test_the_page_is_about_this_taskflow_and_these_tests() -> None:
    page = PAGE.read_text()
    assert f"TaskFlow {taskflow.version.version_string()}" in page
    named = set(re.findall(r"`(test_\w+)` \|$", page, flags=re.MULTILINE))
    assert named == {name for name in globals() if name.startswith("test_")} - {
        test_the_page_is_about_this_taskflow_and_these_tests.__name__
    }
