"""A case has a name that says all of it, so that it can be run again: `resize/kill@ResizeDisks.SUCCESS.after/rollback`.

After the scenario come words, done in their order:

- `kill@POINT`, `stop@POINT`: a worker runs the job and is killed (see `Laboratory.go_ahead`), or stopped, when it
  passes the point; one that was stopped goes on when all is over, later than its lease;
- `fail@POINT`, `lose@POINT`: in the next run the effect at the point is refused, or it happens and its reply is lost;
- `drop@POINT`, `miss@POINT`, `half@POINT`, `hang@POINT`: in the next run the connection turns out to be gone before
  the call at the point; or it breaks and the call never arrives; or the call dies half-way; or the host hangs at it and
  has done it when it answers again;
- `rollback`: the job is turned back, if it still can be; `resume`: the next worker takes it up;
- `reboot@HOST`: the host loses its power and boots, while no worker runs.

At the end workers run the job, undisturbed, until it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from resizeflow.chaos.scenarios import SCENARIOS
from resizeflow.errors import UsageError

VERBS = {"kill", "stop", "fail", "lose", "drop", "miss", "half", "hang", "reboot"}
ALONE = {"resume", "rollback"}


@dataclass(frozen=True)
class Case:
    """One scenario with what goes wrong in it."""

    scenario: str
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "/".join((self.scenario, *self.words))

    def then(self, *words: str) -> Case:
        """The same, and more goes wrong."""
        return Case(self.scenario, (*self.words, *words))

    @classmethod
    def parse(cls, name: str) -> Case:
        """The case of a name. Raises UsageError."""
        scenario, *words = name.split("/")
        if scenario not in SCENARIOS:
            raise UsageError(f"There is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}.")
        for word in words:
            verb, _, point = word.partition("@")
            if word not in ALONE and not (verb in VERBS and point):
                raise UsageError(
                    f"{word!r} in the case's name is none of {', '.join(sorted(ALONE))}, "
                    f"{', '.join(f'{verb}@…' for verb in sorted(VERBS))}."
                )
        return cls(scenario, tuple(words))


def sample(seed: int, case: Case, points: list[str], count: int | None) -> list[str]:
    """At most `count` of the points, the same ones for the same seed and case; all if None."""
    if count is None or count >= len(points):
        return points
    return sorted(Random(f"{seed} {case.name}").sample(points, count), key=points.index)  # noqa: S311 - no secret
