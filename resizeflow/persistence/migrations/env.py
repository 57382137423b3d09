"""Alembic's environment: runs on the connection that `resizeflow.persistence.schema` hands it."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from resizeflow.persistence.models import Base, UtcDateTime, Word


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Migrations name plain column types: our decorators may change, a migration may not."""
    if kind == "type" and isinstance(item, Word):
        return "sa.String(length=32)"
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=_render,
    render_as_batch=True,
)
context.run_migrations()
