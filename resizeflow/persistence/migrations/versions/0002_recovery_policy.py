"""What becomes of a job whose worker died, and which flows a worker knows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Jobs in flight keep what held for all of them before.
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("on_crash", sa.String(length=32), nullable=False, server_default="resume"))
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("flows", sa.JSON(), nullable=False, server_default="[]"))
