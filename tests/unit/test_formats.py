"""What programs read: every command answers in JSON, with nothing else on standard output."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.commands import COMMANDS
from resizeflow.drivers.simulator import ALWAYS
from resizeflow.persistence.models import Event, Seal
from resizeflow.states import JobState
from tests.console import Answer, Console, everything
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
chaos --case resize/kill@OpenMigration.RUNNING.after/resume
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


@pytest.mark.slow
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


# --- what is in it -----------------------------------------------------------------------------------------


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path, lease_seconds="6", act_timeout="2", fence_window="1").build()


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


def watched(answer: Answer) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """The kinds of a stream's objects in their order, and the objects by their kinds."""
    kinds, found = [], defaultdict(list)
    for line in answer.out.splitlines():
        ((kind, values),) = json.loads(line).items()
        kinds.append(kind)
        found[kind].append(values)
    return kinds, found


@pytest.mark.slow
def test_a_job_is_followed_by_json_lines_until_its_end(console: Console, cloud: Cloud) -> None:
    cloud.world.set_speed(transfer_seconds=2)
    with console.start("migration", "watch", submitted(console), "-f", "json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        assert console.type("worker", "--drain").code == 0
        out, err = first + process.stdout.read(), process.stderr.read()
    assert process.returncode == 0, err
    kinds, found = watched(Answer(0, out, err))
    assert (kinds[0], kinds[-1]) == ("job", "end")
    assert (found["job"][0]["job_state"], found["job"][-1]["job_state"]) == ("queued", "done")
    (migration,) = console.ask("migration", "list")
    assert found["line"] == console.ask("audit", "log", "--migration", migration["id"], "--limit", "1000")
    assert found["transfer"][-1]["bytes_done"] == found["transfer"][-1]["bytes_total"] > 0
    (end,) = found["end"]
    assert (end["migration"], end["status"], end["exit_code"]) == (migration["id"], "finished", 0)
    assert "No worker is up" in err


def submitted(console: Console) -> str:
    return str(console.ask("resize", "web", "--flavor", "big", "--host", "h2", "--detach")["migration"])


@pytest.mark.slow
def test_a_job_that_ends_badly_ends_the_stream_with_its_exit_code(console: Console, cloud: Cloud) -> None:
    cloud.world.fail("h2", "start_paused", "no such CPU", times=ALWAYS)
    failed = console.type("resize", "web", "--flavor", "big", "--host", "h2", "-f", "json")
    assert (failed.code, failed.json["exit_code"], failed.json["status"]) == (1, 1, "error")
    told = console.type("migration", "watch", failed.json["migration"], "-f", "json")
    told.refused(1, "no such CPU")
    kinds, found = watched(told)
    assert kinds[-1] == "end"
    assert found["end"] == [failed.json]


def test_a_report_has_its_facts_in_json(console: Console, cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "TransferDisks.create_volume#1.after") == KILLED
    cloud.expire(job)
    assert cloud.run(job) is JobState.DONE
    told = console.ask("report", job.migration_id[:8])
    assert (told["migration"], told["outcome"], told["verified"]) == (job.migration_id, "to be decided", True)
    assert {line["what"]: (line["before"], line["asked"]) for line in told["comparison"]}["host"] == ("h1", "h2")
    (over,) = told["takeovers"]
    assert (over["task"], told["workers"][over["died"]], told["workers"][over["by"]]) == ("TransferDisks", "A", "B")
    assert next(run["task"] for run in told["runs"] if run["worker"] == over["by"]) == "TransferDisks"
    assert told["lines"] == len(console.ask("migration", "history", job.migration_id))
    assert told["story"][0]["text"].startswith(told["asked_by"].partition(" ")[0])
    assert "resizeflow confirm web" in told["to_do"]
    console.type("report", job.migration_id, "--html", "-", "-f", "json").refused(2, "--html is a page")


def test_what_was_verified_is_in_json(console: Console, cloud: Cloud) -> None:
    assert cloud.run(cloud.service.resize("web", "big", host="h1")) is JobState.DONE
    head = console.type("audit", "head", "-f", "json")
    assert len(head.out.splitlines()) == 1
    (cloud.folder / "heads").write_text(head.out)
    with cloud.database.read() as tx:
        lines, seals = (tx.session.scalar(sa.select(sa.func.count()).select_from(table)) for table in (Event, Seal))
    assert console.ask("audit", "verify", "--head", str(cloud.folder / "heads")) == {
        "verified": True,
        "logs": 2,
        "lines": lines,
        "lines_without_key": 0,
        "lines_pruned": 0,
        "seals": seals,
        "logs_unsealed": 0,
        "heads": 1,
        "findings": [],
    }


def test_a_wrong_column_is_found_before_anything_is_submitted(console: Console, cloud: Cloud) -> None:
    before = everything(cloud)
    console.type("resize", "web", "--flavor", "big", "-f", "value", "-c", "colour").refused(2, "colour")
    assert everything(cloud) == before
    assert console.type("resize", "web", "--flavor", "big", "--detach", "-f", "value", "-c", "status").out == (
        "pre-migrating\n"
    )


# --- progress ----------------------------------------------------------------------------------------------


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("on_terminal", [True, False])
def test_who_waits_for_a_long_look_sees_how_far_it_is(
    console: Console, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    assert cloud.run(cloud.service.resize("web", "big", host="h1")) is JobState.DONE
    archive = str(cloud.folder / "archive")
    if on_terminal:
        monkeypatch.setattr(io, "StringIO", Screen)
        monkeypatch.setenv("TERM", "xterm")
    for words, what in (
        (("doctor",), "lines of logs"),
        (("audit", "verify"), "lines"),
        (("audit", "export", "--before", "0m", "--output", archive), "lines"),
        (("audit", "verify", "--archive", archive), "archive"),
        (("audit", "prune", "--archive", archive), "archive"),
    ):
        answer = console.type(*words)
        assert answer.code == 0, answer
        assert (what in answer.err and "%" in answer.err) is on_terminal, answer.err
        assert on_terminal or answer.err == ""
