"""The event log for auditors: who asked, how it ended, a keyed chain with signed ends, seals."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("instance_id", sa.String(length=36), nullable=True),
    sa.Column("instance", sa.String(length=255), nullable=True),
    sa.Column("project_id", sa.String(length=255), nullable=True),
    sa.Column("host", sa.String(length=255), nullable=True),
    sa.Column("request_id", sa.String(length=36), nullable=True),
    sa.Column("asked_by", sa.String(length=255), nullable=True),
    sa.Column("asked_from", sa.String(length=255), nullable=True),
    sa.Column("transition", sa.String(length=128), nullable=True),
    sa.Column("seconds", sa.Double(), nullable=True),
    sa.Column("outcome", sa.String(length=32), nullable=True),
    sa.Column("error", sa.Text(), nullable=True),
    sa.Column("next_action", sa.Text(), nullable=True),
)
UNUSUAL = sa.text("outcome != 'ok'")
RARE = sa.text("kind NOT IN ('effect', 'note', 'notification', 'state', 'task')")
UNSEALED = sa.text("NOT sealed")


def upgrade() -> None:
    for name in ("asked_by", "asked_from"):
        op.add_column("jobs", sa.Column(name, sa.String(length=255), nullable=True))
    # Lines outlive migrations, and some are of none. The foreign key has the name that PostgreSQL gave it.
    convention = {"fk": "%(table_name)s_%(column_0_name)s_fkey"}
    with op.batch_alter_table("events", schema=None, naming_convention=convention) as batch_op:
        batch_op.drop_constraint("events_migration_id_fkey", type_="foreignkey")
        for column in COLUMNS:
            batch_op.add_column(column)
    op.create_index("ix_events_at", "events", ["at"])
    for column_name in ("instance", "host", "project_id", "asked_by"):
        op.create_index(f"ix_events_{column_name}", "events", [column_name, "at"])
    op.create_index("ix_events_outcome", "events", ["outcome", "at"], sqlite_where=UNUSUAL, postgresql_where=UNUSUAL)
    op.create_index("ix_events_kind", "events", ["kind", "at"], sqlite_where=RARE, postgresql_where=RARE)
    op.create_table(
        "event_logs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=True),
        sa.Column("instance", sa.String(length=255), nullable=True),
        sa.Column("project_id", sa.String(length=255), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.Column("plain_seq", sa.Integer(), nullable=False),
        sa.Column("pruned_seq", sa.Integer(), nullable=False),
        sa.Column("pruned_chain", sa.String(length=64), nullable=False),
        sa.Column("last_seal", sa.Integer(), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_event_logs_unsealed", "event_logs", ["id"], sqlite_where=UNSEALED, postgresql_where=UNSEALED)
    op.create_table(
        "seals",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("head", sa.String(length=64), nullable=False),
        sa.Column("sealed_at", sa.DateTime(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("ix_seals_migration_id", "seals", ["migration_id"])
    op.create_table(
        "audit_keys",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("fingerprint", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
