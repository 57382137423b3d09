"""Stock TaskFlow as its documentation has it: four tasks, its SQL backend on SQLite, nothing that fences an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taskflow import engines, states, task
from taskflow.listeners import claims
from taskflow.patterns import linear_flow
from taskflow.persistence import backends, models

TASKS = ("a", "b", "c", "d")


class Step(task.Task):  # type: ignore[misc]  # TaskFlow has no types
    """Makes one side effect, and takes it back."""

    def __init__(self, name: str, stock: Stock) -> None:
        super().__init__(name=name)
        self._stock = stock

    def execute(self) -> None:
        self._stock.pass_by(f"do {self.name}")

    def revert(self, *_args: Any, **_kwargs: Any) -> None:
        self._stock.pass_by(f"undo {self.name}")


class Stock:
    """One flow, its stored state, and the side effects of every engine that ran it."""

    def __init__(self, folder: Path) -> None:
        self._backend = backends.fetch({"connection": f"sqlite:///{folder / 'stock.sqlite'}"})
        with contextlib.closing(self._backend.get_connection()) as connection:
            connection.upgrade()
        self.effects: list[str] = []
        self.before: dict[str, Callable[[], object]] = {}
        """By side effect: what happens right before it, once."""

    def pass_by(self, effect: str) -> None:
        self.before.pop(effect, lambda: None)()
        self.effects.append(effect)

    def begin(self) -> Any:
        """An engine on a new flow."""
        return engines.load(self._flow(), book=models.LogBook("one"), backend=self._backend, engine="serial")

    def take_over(self) -> Any:
        """An engine on the stored flow, as another worker loads it."""
        return engines.load(self._flow(), flow_detail=self._detail(), backend=self._backend, engine="serial")

    def _flow(self) -> Any:
        return linear_flow.Flow("flow").add(*(Step(name, self) for name in TASKS))

    def _detail(self) -> Any:
        with contextlib.closing(self._backend.get_connection()) as connection:
            (book,) = connection.get_logbooks()
        (detail,) = book
        return detail

    def state(self) -> str:
        """What the database says of the flow."""
        return str(self._detail().state)

    def standing(self) -> Sequence[str]:
        """The tasks whose last side effect was not undone."""
        last = {effect.split()[1]: effect.split()[0] for effect in self.effects}
        return [name for name, verb in last.items() if verb == "do"]


def run(engine: Any) -> None:
    """Runs an engine; a flow that fails raises here, its state says so."""
    with contextlib.suppress(Exception):
        engine.run()


def fail() -> None:
    raise RuntimeError("the world says no")


class LostClaim:
    """A job and its board in one, as `CheckingClaimListener` asks them: another owner has claimed it meanwhile."""

    state = states.CLAIMED
    lost = False

    def find_owner(self, _job: object) -> str:
        return "another" if self.lost else "me"

    def watch(self, engine: Any) -> contextlib.AbstractContextManager[Any]:
        listener: contextlib.AbstractContextManager[Any] = claims.CheckingClaimListener(engine, self, self, "me")
        return listener
