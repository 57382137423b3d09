"""What programs read: every command answers in JSON, with nothing else on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resizeflow.commands import COMMANDS
from tests.console import Answer, Console
from tests.scenes import NOTHING_KNOWN, Fleet

SERVING = {"worker": "its log is JSON with `use_json`", "dashboard": "it serves pages"}
"""Commands that answer nothing, with the reason."""
BY_LINES = {"migration watch 1a2b3c4d", "audit export"}
"""What is answered by a JSON object a line."""
TYPED = """
db upgrade
host add h1 qemu+tcp://198.51.100.11/system --peer-uri qemu+tcp://198.51.100.11/system
host add h2 qemu+tcp://198.51.100.12/system --peer-uri qemu+tcp://198.51.100.12/system
host list
host set h1 --max-moves 3
flavor create medium --vcpus 2 --ram 1024 --disk 2
flavor create spare --vcpus 1 --ram 64 --disk 1
flavor list
flavor set spare --disable
flavor show spare
flavor delete spare
aggregate create fast --property ssd=true
aggregate set fast --host h1
aggregate list
aggregate show fast
aggregate delete fast
group create db --policy affinity
group list
group show db
group delete db
instance adopt h1 web-1
instance list
instance set web-1 --shutdown-timeout 30
instance lock web-1
instance unlock web-1
quota set default --cores 20
quota show default
quota sync
quota delete default --cores
resize web-1 --flavor medium --host h2 --dry-run
resize web-1 --flavor medium --host h2
migration show 1a2b3c4d
migration list
migration history 1a2b3c4d
migration watch 1a2b3c4d
report 1a2b3c4d
notification list
notification show LATEST
instance show web-1
instance event list web-1
instance event show web-1 LATEST
revert web-1 --detach
worker list
migration resume 1a2b3c4d
migrate web-1 --detach
migration rollback 1a2b3c4d --detach
migration cancel 1a2b3c4d
migrate web-1
confirm web-1
doctor
audit log
audit verify
audit verify --migration 1a2b3c4d
audit head
audit export
audit export --before 0m --output ARCHIVE
audit verify --archive ARCHIVE
audit prune --archive ARCHIVE
runbook
runbook waits
chaos --list --scenario small
instance remove web-1
host show h2
host drain h2
host remove h2
"""
"""A fleet's life, in which each command is typed; LATEST is what the list before it begins with."""


def command_of(words: tuple[str, ...]) -> str:
    """The longest name of a command that a call begins with."""
    return next(name for count in (3, 2, 1) if (name := " ".join(words[:count])) in COMMANDS)


def read(line: str, answer: Answer) -> Any:
    """Raises ValueError for what is not JSON."""
    if line in BY_LINES:
        return [json.loads(line) for line in answer.out.splitlines()]
    return answer.json


def test_every_command_answers_in_json_and_says_nothing_else(memory_path: Path) -> None:
    fleet = Fleet(memory_path, NOTHING_KNOWN)
    console, typed, latest = Console(fleet.cloud.folder / "resizeflow.conf"), set(), ""
    for line in TYPED.strip().splitlines():
        said = line.replace("ARCHIVE", str(memory_path / "archive")).replace("LATEST", latest)
        words = fleet.typed(tuple(said.split()))
        answer = console.type(*words, "-f", "json")
        assert answer.code == 0, (line, answer)
        found = read(line, answer)
        typed.add(command_of(words))
        latest = str(next(iter(found[0].values()))) if isinstance(found, list) and found else ""
    assert typed == COMMANDS.keys() - SERVING.keys(), "a command is new: type it above, with -f json"
