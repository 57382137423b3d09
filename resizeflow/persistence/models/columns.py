"""How values are stored that the databases do not know alike, and the base of all tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

GIB = 1024**3

W = TypeVar("W", bound=str)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database (SQLite stores none with a zone)."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value else None


class Word(TypeDecorator[W]):
    """A StrEnum stored as its word, so that the tables read well and new words need no migration."""

    impl = sa.String(32)
    cache_ok = True

    def __init__(self, words: type[W]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: W | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return str(self.words(value)) if value is not None else None

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> W | None:  # noqa: ARG002
        return self.words(value) if value is not None else None


class AsFound(TypeDecorator[Any]):
    """Another type, for a column of the event log: what cannot be a value of it is read as it is stored, so that a line
    in which somebody wrote rubbish can be looked at, and named."""

    impl = sa.String
    cache_ok = True

    def __init__(self, kind: sa.types.TypeEngine[Any]) -> None:
        super().__init__()
        self.kind = kind
        self.impl = kind  # type: ignore[assignment]

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        process = super().result_processor(dialect, coltype)
        if process is None:
            return None

        def read(value: Any) -> Any:
            try:
                return process(value)
            except (ValueError, TypeError):
                return value

        return read


class Base(DeclarativeBase):
    """All tables of resizeflow."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime, dict[str, Any]: sa.JSON, list[Any]: sa.JSON}


def identity() -> Mapped[int]:
    """A number that the database gives."""
    return mapped_column(primary_key=True, autoincrement=True)
