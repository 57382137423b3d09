"""Long lists of cases: some from all over the list are in every run, the others in certification."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def spread(cases: Iterable[Any], every: int) -> list[Any]:
    """Parameters of a test, of which each `every`-th is in every run. A case with several values is a tuple."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.certify] if number % every else []
        )
        for number, case in enumerate(cases)
    ]
