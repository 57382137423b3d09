"""Times as people type them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from resizeflow.errors import UsageError

_AGO = re.compile(r"(\d+)\s*([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """`2h` and `3d` (m, h, d, w) are so long ago; else ISO 8601, local time unless a zone is given. Raises
    UsageError."""
    try:
        if ago := _AGO.fullmatch(text.strip()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a time: write 2026-11-29, 2026-11-29T14:30 (local time, or with +00:00), or 2h, 3d, 4w "
            "for so long ago."
        ) from None
