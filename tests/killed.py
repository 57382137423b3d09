"""A worker that is killed where the machine's speed decides nothing."""

from __future__ import annotations

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.service import Submitted


def killed_in_transfer(cloud: Cloud, job: Submitted) -> None:
    """Kills a worker when the hosts have copied a quarter of the disks, as it has written down; the hosts then end the
    copy by themselves."""
    cloud.world.set_speed(transfer_seconds=3600)
    assert cloud.run_in_child(job, "TransferDisks.commit.progress#1.after") == KILLED
    cloud.world.set_speed(transfer_seconds=0)
    with cloud.database.write() as tx:
        migration = tx.migrations.get(job.migration_id)
        migration.bytes_done = migration.bytes_total // 4
