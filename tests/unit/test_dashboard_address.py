"""The dashboard answers under the address at which it listens, and under no other name."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.pages.dashboard import application


@pytest.mark.parametrize(
    ("host", "code"), [("127.0.0.2:8780", 200), ("localhost", 200), ("127.0.0.3:8780", 400), ("evil.example", 400)]
)
def test_names_under_which_it_answers(memory_path: Path, host: str, code: int) -> None:
    cloud = Cloud(memory_path)
    cloud.make_database()
    pages = application(cloud.database, "127.0.0.2").test_client()
    assert pages.get("/", headers={"Host": host}).status_code == code
