"""How far a flow is, in words: what is done, what was under way, what remains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from taskflow import states

from resizeflow.states import Direction

FEW = 3
"""So many tasks in a row are named one by one, more by their first and last."""


def what_remains(tasks: Sequence[str], atoms: Mapping[str, str | None], direction: Direction) -> str:
    """Sentences about a flow that stopped: `tasks` in the flow's order, `atoms` their stored states."""

    def among(wanted: Callable[[str | None], bool]) -> str:
        return _spans([wanted(atoms.get(task)) for task in tasks], tasks)

    begun = [task for task in tasks if atoms.get(task) not in (None, states.PENDING)]
    if not begun:
        return "None of its tasks was begun"
    if direction is Direction.FORWARD:
        parts = {
            "Done": among(lambda state: state == states.SUCCESS),
            "Begun and not done": among(lambda state: state not in (None, states.PENDING, states.SUCCESS)),
            "Not begun": among(lambda state: state in (None, states.PENDING)),
        }
    else:
        parts = {
            "Undone": among(lambda state: state == states.REVERTED),
            "Begun to be undone": among(lambda state: state in (states.REVERTING, states.REVERT_FAILURE)),
            "Still to be undone": among(lambda state: state in (states.SUCCESS, states.RUNNING, states.FAILURE)),
        }
    return ". ".join(f"{what}: {which}" for what, which in parts.items() if which)


def _spans(chosen: Sequence[bool], tasks: Sequence[str]) -> str:
    runs: list[list[str]] = [[]]
    for task, is_chosen in zip(tasks, chosen, strict=True):
        if is_chosen:
            runs[-1].append(task)
        elif runs[-1]:
            runs.append([])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > FEW else ", ".join(run) for run in runs if run)
