"""The command line on simulated hosts: what it prints, how it ends, and that a job can be left and taken up."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.commands import COMMANDS
from resizeflow.drivers.simulator import ALWAYS
from resizeflow.persistence.models import Event
from resizeflow.states import JobState, MigrationStatus
from tests.console import Console, everything

PATIENCE = 120.0
"""Seconds that a slow machine gets for what takes one or two."""
HEAVY = ("sqlalchemy", "taskflow", "libvirt", "alembic", "oslo_config", "rich", "keystoneauth1", "cinderclient")


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    """Two hosts, the machine `web` on h1, the flavor `big`."""
    return Cloud(memory_path).build()


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


@pytest.fixture
def nowhere(tmp_path: Path) -> Console:
    """Where no command that needs its configuration would work."""
    return Console(tmp_path / "missing.conf")


# --- help ------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, resizeflow.cli as cli\n"
        "code = cli.main(['--help']) + cli.main(['resize', '--help'])\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported: {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "resizeflow confirm web-1" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(nowhere: Console, command: str) -> None:
    answer = nowhere.type(*command.split(), "--help")
    assert answer.code == 0
    assert "example:\n  resizeflow " in answer.out


def test_without_a_command_the_help_is_shown_and_the_call_is_wrong(nowhere: Console) -> None:
    answer = nowhere.type()
    assert (answer.code, answer.out) == (2, "")
    assert "exit codes:" in answer.err


@pytest.mark.parametrize("words", [["fly"], ["migration"], ["migration", "fly"], ["quota"]])
def test_an_unknown_word_is_wrong_usage(nowhere: Console, words: list[str]) -> None:
    nowhere.type(*words).refused(2)


@pytest.mark.parametrize("words", [["resize", "web"], ["host", "list", "--fast"], ["worker", "--jobs", "0"], ["--fly"]])
def test_wrong_arguments_are_wrong_usage(nowhere: Console, words: list[str]) -> None:
    answer = nowhere.type(*words)
    assert answer.code == 2
    assert "usage:" in answer.err


@pytest.mark.parametrize("words", [["help"], ["help", "host", "add"]])
def test_help_is_a_command_as_well(nowhere: Console, words: list[str]) -> None:
    answer = nowhere.type(*words)
    assert (answer.code, "resizeflow" in answer.out) == (0, True)
    nowhere.type("help", "fly").refused(2, "There is no command 'fly'")


@pytest.mark.parametrize("words", [["audit", "--help"], ["audit", "-h"], ["help", "audit"]])
def test_what_commands_are_about_is_explained_with_its_commands(nowhere: Console, words: list[str]) -> None:
    answer = nowhere.type(*words)
    assert answer.code == 0
    told = [line[2:].split("  ")[0] for line in answer.out.splitlines()[1:]]
    assert told == [name for name in COMMANDS if name.startswith("audit ")]


def test_the_version(nowhere: Console) -> None:
    assert nowhere.type("--version").out == "resizeflow 0.1.0\n"


# --- lists and shows -------------------------------------------------------------------------------------


def test_lists_and_shows_for_machines(console: Console, cloud: Cloud) -> None:
    assert console.ask("host", "list")[0]["name"] == "h1"
    assert console.ask("host", "show", "h1")["answers"] is True
    assert console.ask("flavor", "show", "big")["vcpus"] == 2
    assert console.ask("migration", "list") == []
    assert console.ask("worker", "list") == []
    shown = console.ask("instance", "show", "web")
    assert (shown["id"], shown["host"], shown["task_state"]) == (cloud.uuid, "h1", None)
    assert shown["disks"][0]["device"] == "vda"
    assert console.type("instance", "list", "-f", "value", "-c", "name").out == "web\n"
    assert {row["resource"]: row["in_use"] for row in console.ask("quota", "show")}["ram"] == 512


def test_what_an_operator_keeps(console: Console) -> None:
    assert console.ask("flavor", "create", "tiny", "--vcpus", "1", "--ram", "64", "--disk", "1")["ram_mb"] == 64
    assert console.type("flavor", "delete", "tiny").code == 0
    assert "tiny" not in console.type("flavor", "list").out
    quota = {row["resource"]: row["limit"] for row in console.ask("quota", "set", "default", "--cores", "9")}
    assert (quota["cores"], quota["ram"]) == (9, -1)
    shown = console.ask("host", "set", "h2", "--disable", "--reason", "new disks", "--max-moves", "7")
    assert (shown["state"], shown["disabled_reason"], shown["max_moves"]) == ("disabled", "new disks", 7)
    assert console.ask("host", "set", "h2", "--fenced")["state"] == "fenced"
    assert console.ask("host", "set", "h2", "--not-fenced", "--enable")["disabled_reason"] is None
    assert console.type("instance", "lock", "web").code == 0
    console.type("resize", "web", "--flavor", "big").refused(4, "locked")
    assert console.type("instance", "unlock", "web").code == 0
    assert console.type("instance", "remove", "web").code == 0
    assert console.type("host", "remove", "h2").code == 0
    assert "already" in console.type("db", "upgrade").out


def test_a_column_that_is_not_there_is_wrong_usage(console: Console) -> None:
    console.type("host", "list", "-c", "colour").refused(2, "colour", "name, state")


def test_a_host_that_does_not_answer_is_shown_as_such(console: Console, cloud: Cloud) -> None:
    cloud.world.set_up("h2", False)
    shown = console.ask("host", "show", "h2")
    assert shown["answers"] is False
    assert "h2" in shown["silence"]


# --- jobs in the foreground ------------------------------------------------------------------------------


def test_a_dry_run_tells_all_and_changes_nothing(console: Console, cloud: Cloud) -> None:
    before = everything(cloud)
    plan = console.ask("resize", "web", "--flavor", "big", "--host", "h2", "--dry-run")
    assert (plan["source"], plan["destination"], plan["kind"]) == ("h1", "h2", "resize")
    assert plan["bytes_to_move"] == sum(disk["bytes_to_move"] for disk in plan["disks"]) > 0
    assert plan["steps"][0]["task"] == "OpenMigration"
    assert plan["hosts"]["h2"].startswith("chosen")
    text = console.type("resize", "web", "--flavor", "big", "--host", "h2", "--dry-run").out
    assert all(word in text for word in ("nothing was changed", "vda (root)", "TransferDisks", "Downtime"))
    assert everything(cloud) == before


@pytest.mark.slow
def test_resized_and_confirmed(console: Console, cloud: Cloud) -> None:
    done = console.type("resize", "web", "--flavor", "big", "--host", "h2")
    assert done.code == 0, done
    assert "TransferDisks            done\n" in done.out
    assert done.out.endswith("or go back with `resizeflow revert web`.\n")
    assert "\x1b" not in done.out
    shown = console.ask("instance", "show", "web")
    assert (shown["host"], shown["flavor"], shown["vm_state"]) == ("h2", "big", "resized")
    confirmed = console.type("confirm", "web", "-f", "json")
    assert (confirmed.code, confirmed.json["status"]) == (0, "confirmed")
    assert "FinishConfirm" in confirmed.err
    assert cloud.world.running(cloud.uuid) == ("h2",)


@pytest.mark.slow
def test_migrated_and_reverted(console: Console, cloud: Cloud) -> None:
    assert "web is moved to h2" in console.type("migrate", "web").out
    reverted = console.type("revert", "web")
    assert reverted.code == 0
    assert "web is reverted: active on h1" in reverted.out
    assert cloud.world.running(cloud.uuid) == ("h1",)


@pytest.mark.slow
def test_a_failed_resize_is_rolled_back_and_says_why(console: Console, cloud: Cloud) -> None:
    cloud.world.fail("h2", "start_paused", "no such CPU", times=ALWAYS)
    failed = console.type("resize", "web", "--flavor", "big", "--host", "h2")
    failed.refused(1, "rolled back", "no such CPU", "active on h1")
    assert cloud.world.running(cloud.uuid) == ("h1",)


@pytest.mark.slow
def test_a_confirm_that_finds_the_destination_broken_removes_nothing(console: Console, cloud: Cloud) -> None:
    assert console.type("resize", "web", "--flavor", "big", "--host", "h2").code == 0
    before = cloud.world.snapshot(contents=False)
    cloud.world.fail("h2", "volume", "the pool is broken", times=ALWAYS)
    console.type("confirm", "web").refused(1, "not confirmed and nothing was removed", "the pool is broken")
    assert cloud.world.snapshot(contents=False) == before
    cloud.world.heal()
    assert console.type("confirm", "web").code == 0


@pytest.mark.slow
def test_a_job_that_cannot_go_on_needs_attention(memory_path: Path) -> None:
    cloud = Cloud(memory_path, max_attempts="1").build()
    console = Console(cloud.folder / "resizeflow.conf")
    assert console.type("resize", "web", "--flavor", "big", "--host", "h2").code == 0
    cloud.world.fail("h1", "undefine", "no", times=ALWAYS)
    stuck = console.type("confirm", "web", "-f", "json")
    assert (stuck.code, stuck.json["exit_code"], stuck.json["job_state"]) == (3, 3, JobState.NEEDS_ATTENTION)
    assert "needs a person" in stuck.json["message"]
    cloud.world.heal()
    migration = stuck.json["migration"]
    console.type("migration", "rollback", migration).refused(4, "only goes forward")
    resumed = console.type("migration", "resume", migration)
    assert resumed.code == 0, resumed
    assert cloud.world.running(cloud.uuid) == ("h2",)


@pytest.mark.slow
def test_accepted_and_left_to_a_worker(console: Console) -> None:
    accepted = console.type("resize", "web", "--flavor", "big", "--detach", "-f", "json")
    assert (accepted.code, accepted.json["job_state"]) == (0, "queued")
    assert "No worker is up" in accepted.err
    console.type("resize", "web", "--flavor", "big").refused(4)
    assert console.type("worker", "--drain").code == 0
    watched = console.type("migration", "watch", accepted.json["migration"][:8])
    assert watched.code == 0
    assert "web is resized" in watched.out


@pytest.mark.slow
def test_rolled_back_on_request(console: Console, cloud: Cloud) -> None:
    accepted = console.type("resize", "web", "--flavor", "big", "--detach", "-f", "json").json
    undone = console.type("migration", "cancel", accepted["migration"])
    assert undone.code == 0, undone
    assert console.ask("migration", "show", accepted["migration"])["status"] == MigrationStatus.ERROR
    assert cloud.world.running(cloud.uuid) == ("h1",)


def test_drained(console: Console, cloud: Cloud) -> None:
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1})
    assert console.type("instance", "adopt", "h1", "db").code == 0
    assert console.type("instance", "lock", "db").code == 0
    drained = console.type("host", "drain", "h1", "-f", "json")
    drained_rows = {row["instance"]: row["result"] for row in drained.json}
    assert drained.code == 4
    assert drained_rows["web"] == "submitted"
    assert drained_rows["db"].startswith("refused: Instance db is locked")
    assert console.ask("host", "show", "h1")["state"] == "disabled"


def test_the_history_tells_all_and_finds_a_changed_line(console: Console, cloud: Cloud) -> None:
    migration = console.ask("resize", "web", "--flavor", "big", "--detach")["migration"]
    lines = console.ask("migration", "history", migration)
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert "the chain verifies" in console.type("migration", "history", migration[:8]).out
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Event).values(text="nothing happened"))
    console.type("migration", "history", migration).refused(3, "line 1")


# --- left and taken up -----------------------------------------------------------------------------------


def started_transfer(console: Console, *words: str) -> tuple[subprocess.Popen[str], str]:
    """A resize in a process of its own, in the middle of its disk transfer, which does not end; and its migration."""
    process = console.start(*words)
    assert process.stdout is not None
    for line in process.stdout:
        if "transfer started" in line:
            break
    return process, str(console.ask("migration", "list")[0]["id"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_the_job_and_says_how_to_go_on(
    console: Console, cloud: Cloud, number: signal.Signals
) -> None:
    cloud.world.set_speed(transfer_seconds=3600)
    process, migration = started_transfer(console, "resize", "web", "--flavor", "big", "--host", "h2")
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 5, (out, err)
    assert f"resizeflow migration resume {migration[:8]}" in err
    shown = console.ask("migration", "show", migration)
    assert (shown["job_state"], shown["worker"]) == (JobState.QUEUED, None)
    rolled_back = console.type("migration", "rollback", migration)
    assert rolled_back.code == 0, rolled_back
    assert cloud.world.running(cloud.uuid) == ("h1",)


@pytest.mark.slow
def test_killed_it_is_resumed_when_its_lease_has_ended(memory_path: Path) -> None:
    cloud = Cloud(memory_path, lease_seconds="6", act_timeout="2", fence_window="1").build()
    console = Console(cloud.folder / "resizeflow.conf")
    cloud.world.set_speed(transfer_seconds=3600)
    process, migration = started_transfer(console, "resize", "web", "--flavor", "big", "--host", "h2")
    process.kill()
    process.communicate()
    cloud.world.set_speed(transfer_seconds=0)
    resumed = console.type("migration", "resume", migration)
    assert resumed.code == 0, resumed
    assert "held this job and is gone; its lease ends in" in resumed.out
    assert "done before: OpenMigration" in resumed.out
    assert cloud.world.running(cloud.uuid) == ("h2",)


@pytest.mark.slow
def test_interrupted_twice_it_ends_at_once(console: Console, cloud: Cloud) -> None:
    cloud.world.set_speed(transfer_seconds=3600)
    process, migration = started_transfer(console, "resize", "web", "--flavor", "big", "--host", "h2")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 5
    assert console.ask("migration", "show", migration)["job_state"] in (JobState.QUEUED, JobState.RUNNING)


@pytest.mark.slow
def test_who_only_watches_may_stop_watching(console: Console, cloud: Cloud) -> None:
    cloud.world.set_speed(transfer_seconds=3600)
    worker = console.start("worker")
    while not console.ask("worker", "list"):
        time.sleep(0.1)
    watcher, migration = started_transfer(console, "resize", "web", "--flavor", "big", "--host", "h2")
    watcher.send_signal(signal.SIGINT)
    _, err = watcher.communicate(timeout=PATIENCE)
    assert (watcher.returncode, "the job goes on" in err) == (5, True), err
    cloud.world.set_speed(transfer_seconds=0)
    watched = console.type("migration", "watch", migration)
    assert watched.code == 0, watched
    worker.terminate()
    worker.communicate(timeout=PATIENCE)


@pytest.mark.slow
def test_on_a_terminal_a_list_is_kept_up_to_date(console: Console) -> None:
    ours, theirs = pty.openpty()
    words = ["--config-file", str(console.config), "resize", "web", "--flavor", "big", "--host", "h2"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "-m", "resizeflow.cli", *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what the other end's end looks like
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    last = text[text.rindex("resize of web") :]
    assert len([line for line in last.splitlines() if "✔" in line]) == 16, last
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is gone"


@pytest.mark.slow
def test_a_worker_does_the_work_and_hands_over_on_sigterm(console: Console, cloud: Cloud) -> None:
    cloud.world.set_speed(transfer_seconds=3600)
    worker = console.start("worker", "--jobs", "1")
    while not console.ask("worker", "list"):
        time.sleep(0.1)
    accepted = console.ask("resize", "web", "--flavor", "big", "--host", "h2", "--detach")
    while console.ask("migration", "show", accepted["migration"])["status"] != MigrationStatus.MIGRATING:
        time.sleep(0.1)
    (held,) = console.ask("worker", "list")[0]["jobs"]
    assert (held["instance"], held["flow"], held["epoch"]) == ("web", "resize_v1", 1)
    assert held["migration"] == accepted["migration"]
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0
    cloud.world.set_speed(transfer_seconds=0)
    assert "is down" in err
    assert console.ask("migration", "show", accepted["migration"])["job_state"] == JobState.QUEUED
    assert console.type("migration", "resume", accepted["migration"]).code == 0


@pytest.mark.slow
def test_nobody_reads_the_output_any_more(console: Console) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = ["-m", "resizeflow.cli", "--config-file", str(console.config), "host", "list"]
    done = subprocess.run([sys.executable, *words], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
