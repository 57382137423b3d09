"""A migration is found by the beginning of its id, on both databases, and only by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import NotFound
from resizeflow.persistence.models import Migration
from resizeflow.states import MigrationStatus, VmState

IDS = (
    "0a000000-0000-0000-0000-000000000000",
    "0affffff-ffff-ffff-ffff-ffffffffffff",
    "0b000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
)


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    cloud = Cloud(memory_path, connection=slow_connection).build()
    with cloud.database.write() as tx:
        host, flavor = tx.hosts.get("h1"), tx.flavors.get("big")
        for identity in IDS:
            row = Migration(id=identity, instance_id=identity, instance_name="m", project_id="p", kind="resize")
            row.status, row.old_vm_state, row.created_at = MigrationStatus.CONFIRMED, VmState.ACTIVE, tx.now()
            row.source_host_id, row.old_flavor_id, row.new_flavor_id = host.id, flavor.id, flavor.id
            tx.session.add(row)
    return cloud


@pytest.mark.parametrize(
    ("beginning", "found"), [(IDS[1], IDS[1]), ("0a0", IDS[0]), ("0af", IDS[1]), ("0b000000-0", IDS[2]), ("f", IDS[3])]
)
def test_found_by_its_beginning(cloud: Cloud, beginning: str, found: str) -> None:
    with cloud.database.read() as tx:
        assert tx.migrations.get(beginning).id == found


@pytest.mark.parametrize("beginning", ["", "0c", "1", "a0", "0%", "0_0", "%", "zz", f"{IDS[0]}0"])
def test_nothing_else_finds_it(cloud: Cloud, beginning: str) -> None:
    with cloud.database.read() as tx, pytest.raises(NotFound, match="There is no migration"):
        tx.migrations.get(beginning)


@pytest.mark.parametrize("beginning", ["0", "0a"])
def test_a_beginning_of_several_is_refused(cloud: Cloud, beginning: str) -> None:
    with cloud.database.read() as tx, pytest.raises(NotFound, match="Several migrations begin with"):
        tx.migrations.get(beginning)
