"""Cinder volumes: those that machines have, and those of migrations with their attachments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("instances", "migrations"):
        op.add_column(table, sa.Column("volume_backed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "volumes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("size_gb", sa.Integer(), nullable=False),
        sa.Column("attachment_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("instance_id", "volume_id"),
    )
    op.create_table(
        "migration_volumes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("source_attachment", sa.String(length=36), nullable=True),
        sa.Column("dest_attachment", sa.String(length=36), nullable=True),
        sa.Column("return_attachment", sa.String(length=36), nullable=True),
        sa.Column("onward_attachment", sa.String(length=36), nullable=True),
        sa.Column("detached", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["migrations.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("migration_id", "volume_id"),
    )
