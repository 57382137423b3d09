"""Long lists of cases: some from all over the list are always tried, the others more seldom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def spread(cases: Iterable[Any], every: int, others: pytest.MarkDecorator = pytest.mark.certify) -> list[Any]:
    """Parameters of a test: each `every`-th is unmarked, all others are marked. A case with several values is a
    tuple."""
    return [
        pytest.param(*(case if type(case) is tuple else (case,)), marks=[others] if number % every else [])
        for number, case in enumerate(cases)
    ]
