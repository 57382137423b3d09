"""The facts of a report for programs: what its page says, in JSON's types."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any

from resizeflow.pages.report import Report


def facts(report: Report) -> dict[str, Any]:
    """All but the lines of the log. Times are ISO 8601 in UTC, durations seconds."""
    migration, told = report.migration, report.told
    found = {
        "migration": migration.id,
        "instance": migration.instance_name,
        "instance_id": migration.instance_id,
        "project": migration.project_id,
        "asked_by": report.asked_by,
        "created_at": migration.created_at,
        "closed_at": migration.closed_at,
        "title": report.story.title,
        "outcome": report.stands,
        "ending": report.story.ending,
        "to_do": report.story.to_do,
        "bytes_done": migration.bytes_done,
        "bytes_total": migration.bytes_total,
        "story": report.story.lines,
        "workers": told.letters,
        "runs": told.runs,
        "takeovers": told.takeovers,
        "retries": told.retries,
        "downtimes": told.downtimes,
        "transfer": told.samples,
        "comparison": report.comparison,
        "verified": report.verified.good,
        "verification": report.verified.text,
        "lines": len(report.events),
    }
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, str) else value
