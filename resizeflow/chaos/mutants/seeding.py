"""How a seeded fault is registered, and put into this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """A seeded fault, and the kinds of cases that have to catch it, by scenario."""

    seed: Callable[[], None]
    where: tuple[tuple[str, str], ...]

    @property
    def explained(self) -> str:
        return (self.seed.__doc__ or "").strip()


MUTANTS: dict[str, Mutant] = {}


def mutant(*where: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Registers a seeded fault under its name; `where` are `scenario kind`."""

    def register(seed: Callable[[], None]) -> Callable[[], None]:
        places = tuple((scenario, kind) for scenario, _, kind in (place.partition(" ") for place in where))
        MUTANTS[seed.__name__.replace("_", "-")] = Mutant(seed, places)
        return seed

    return register


@contextlib.contextmanager
def instead(owner: type, name: str, value: Any) -> Iterator[None]:
    """Puts it there for a while."""
    honest = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, honest)


def put(owner: Any, name: str, value: Any) -> None:
    """Puts it in place of what the owner has, for the life of this process."""
    if not hasattr(owner, name):
        raise AttributeError(f"{owner.__name__} has no {name} any more: the seeded fault would be none.")
    setattr(owner, name, value)
