"""Templates: everything that is put into them is escaped, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from resizeflow.audit.progress import duration, percent, size
from resizeflow.audit.timeline import Timeline

FOLDER = Path(__file__).parent


@cache
def environment() -> Environment:
    """For pages that are files of their own."""
    made = Environment(
        loader=PackageLoader("resizeflow.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made


def style() -> Markup:
    """The style sheet, ours and so safe."""
    return Markup((FOLDER / "static" / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


def utc(at: datetime) -> str:
    """`2026-03-01 14:03:12`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def shortened(text: str, length: int) -> str:
    """For pictures, where nothing wraps."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def in_words(told: Timeline) -> str:
    """A timeline for who does not see it."""
    workers = f"{len(told.letters)} worker{'s' if len(told.letters) != 1 else ''}, {len(told.runs)} runs of tasks"
    parts = [f"{workers}, from {utc(told.runs[0].start)} UTC." if told.runs else "Nothing was run."]
    parts += [
        f"Worker {told.letters[over.died]} died in {over.task or 'no task'}"
        f"{f' at {percent(over.share)}' if over.share is not None else ''}; worker {told.letters[over.by]} took over "
        f"after {duration(over.silence)}."
        for over in told.takeovers
        if over.died in told.letters
    ]
    if told.retries:
        parts.append(f"{len(told.retries)} retries.")
    parts += [
        f"The guest was off for {duration(down.seconds)}." if down.seconds is not None else "The guest is off."
        for down in told.downtimes
    ]
    if told.samples:
        parts.append(f"{percent(told.samples[-1].share)} of {size(told.samples[-1].total)} were copied.")
    return " ".join(parts)


def with_code(text: str) -> Markup:
    """A sentence with commands between backquotes."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(text.split("`"))
    )


FILTERS: Mapping[str, Callable[..., Any]] = {
    "duration": duration,
    "in_words": in_words,
    "percent": percent,
    "shortened": shortened,
    "size": size,
    "utc": utc,
    "with_code": with_code,
}
