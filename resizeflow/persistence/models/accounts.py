"""Quotas: limits, usages, reservations."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from resizeflow.persistence.models.columns import Base


class QuotaLimit(Base):
    """A project's own limit in place of the configured default."""

    __tablename__ = "quota_limits"
    project_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    hard_limit: Mapped[int]


class QuotaClassLimit(Base):
    """A limit of a quota class; class `default` holds for projects without a limit of their own (Nova)."""

    __tablename__ = "quota_class_limits"
    class_name: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    hard_limit: Mapped[int]


class QuotaUsage(Base):
    """What a project uses of a resource, and what open resizes may still need on top."""

    __tablename__ = "quota_usages"
    project_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    in_use: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    reserved: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class Reservation(Base):
    """A migration's claim on its project's quota, per resource: max(new - old, 0) until it is finished."""

    __tablename__ = "reservations"
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"), primary_key=True)
    resource: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    project_id: Mapped[str] = mapped_column(sa.String(255))
    amount: Mapped[int] = mapped_column(sa.BigInteger)
