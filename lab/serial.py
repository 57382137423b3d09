"""Reading what a guest said on its serial console."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The machine may have lost its power in the middle of a line: what counts may start anywhere in one.
_REPORT = re.compile(r"LAB-REPORT (\{.*\})")
_RECORD = re.compile(r"LAB-RECORD (\d+)\b")
_VOLUME = re.compile(r"LAB-VOLUME (\S+) (\d+)\b")

Report = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """One boot of a guest: its report, and the last record that it has acknowledged by then or since, on its first disk
    and, by their serials, on its volumes."""

    report: Report
    acknowledged: int
    volumes: dict[str, int]


def reports_in(log: Path) -> list[Report]:
    """The boot reports in a serial log, in the order they were made."""
    found: list[Report] = []
    for match in _REPORT.finditer(_read(log)):
        try:
            found.append(json.loads(match[1]))
        except ValueError:
            continue
    return found


def sessions_in(log: Path) -> list[Session]:
    """The boots in a serial log that came as far as their report, in the order they were made."""
    _, *parts = re.split(r"(?=LAB-REPORT \{)", _read(log))
    found = []
    for part in parts:
        match = _REPORT.match(part)
        if match is None:
            continue
        report: Report = json.loads(match[1])
        acknowledged = max([report["last_record"], *map(int, _RECORD.findall(part))])
        on_volumes = report.get("volumes", {})
        volumes = {volume["serial"]: volume["last_record"] for volume in on_volumes.values()}
        volumes |= volume_records_in(part)
        if "vda" in on_volumes:
            volumes[on_volumes["vda"]["serial"]] = acknowledged
        found.append(Session(report, acknowledged, volumes))
    return found


def last_record_in(log: Path) -> int:
    """The last record that the guest acknowledged in a serial log; 0 if none."""
    numbers = _RECORD.findall(_read(log))
    return int(numbers[-1]) if numbers else 0


def volume_records_in(said: str) -> dict[str, int]:
    """The last record that the guest acknowledged on each volume, by its serial: the beginning of its id."""
    return {serial: int(number) for serial, number in _VOLUME.findall(said)}


def _read(log: Path) -> str:
    try:
        return log.read_text(errors="replace")
    except FileNotFoundError:
        return ""
