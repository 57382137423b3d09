"""Fixtures that all tests may use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - a kill of a process loses nothing there, and a sync costs nothing


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder for databases of which many are made: in memory where the machine has such a place."""
    folder = Path(tempfile.mkdtemp(prefix="resizeflow-", dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)
