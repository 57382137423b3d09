"""What Nova's rules, scheduler, quotas and notifications need to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Columns are added, no table is made anew: SQLite would refuse to drop one that others refer to.
    op.add_column("flavors", sa.Column("swap_mb", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("flavors", sa.Column("is_public", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("flavors", sa.Column("disabled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "flavor_access",
        sa.Column("flavor_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["flavor_id"], ["flavors.id"]),
        sa.PrimaryKeyConstraint("flavor_id", "project_id"),
    )

    op.add_column("hosts", sa.Column("traits", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "aggregates",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "aggregate_hosts",
        sa.Column("aggregate", sa.String(length=255), nullable=False),
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["aggregate"], ["aggregates.name"]),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"]),
        sa.PrimaryKeyConstraint("aggregate", "host_id"),
    )
    op.create_index("ix_aggregate_hosts_host_id", "aggregate_hosts", ["host_id"])
    op.create_table(
        "server_groups",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("instances", sa.Column("availability_zone", sa.String(length=255), nullable=True))
    # In words that both databases know: Alembic adds no foreign key to a table of SQLite.
    op.execute("ALTER TABLE instances ADD COLUMN group_name VARCHAR(255) REFERENCES server_groups (name)")
    op.create_index("ix_instances_group_name", "instances", ["group_name"])

    op.create_table(
        "quota_class_limits",
        sa.Column("class_name", sa.String(length=255), nullable=False),
        sa.Column("resource", sa.String(length=32), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("class_name", "resource"),
    )

    op.create_table(
        "notifications",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("message_id", sa.String(length=36), nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("migration_id", sa.String(length=36), nullable=True),
        sa.Column("event_type", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("sent_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("message_id"),
        sa.UniqueConstraint("instance_id", "seq"),
    )
    op.create_index("ix_notifications_migration_id", "notifications", ["migration_id"])
    op.create_index(
        "ix_notifications_unsent",
        "notifications",
        ["id"],
        sqlite_where=sa.text("wanted AND sent_at IS NULL"),
        postgresql_where=sa.text("wanted AND sent_at IS NULL"),
    )
    op.create_index("ix_notifications_created_at", "notifications", ["created_at"])
    op.create_table(
        "postman",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failing_since", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
