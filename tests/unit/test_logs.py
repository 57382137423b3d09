"""A worker's log: each line of a job carries its ids and no other's, as text and as JSON; commands stay silent."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.ports import free_port
from resizeflow import logs
from resizeflow.chaos.cloud import Cloud
from resizeflow.config import load
from resizeflow.errors import UsageError
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import TASKS
from tests.console import Console

PATIENCE = 240.0
"""Seconds that a slow machine gets for what takes a few."""
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) (\[\S{36} \S{36}\] )?\S.*"
)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path).build()


def add(cloud: Cloud, text: str) -> None:
    """Options of oslo.log."""
    file = cloud.folder / "resizeflow.conf"
    file.write_text(f"[DEFAULT]\n{text}\n{file.read_text()}")


def two_jobs(cloud: Cloud) -> list[Submitted]:
    """Of two machines, so that a worker has them at once."""
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=True)
    cloud.inventory.adopt("h1", "db")
    return [cloud.service.resize(name, "big", host="h2") for name in ("web", "db")]


def worker_log(cloud: Cloud, *words: str) -> str:
    """What a worker of its own process writes to stderr until nothing is left to do."""
    cloud.release()
    command = [sys.executable, "-m", "resizeflow.cli", "--config-file", str(cloud.folder / "resizeflow.conf"), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended
    return ended.stderr


@pytest.mark.slow
def test_lines_of_text_of_two_jobs_in_turn(cloud: Cloud) -> None:
    jobs = two_jobs(cloud)
    log = worker_log(cloud, "worker", "--drain").splitlines()
    assert [line for line in log if not LINE.fullmatch(line)] == []
    assert not any("DEBUG" in line for line in log)
    own = {job: [line for line in log if f"[{job.migration_id} {job.job_id}] " in line] for job in jobs}
    for lines in own.values():
        assert lines[0].endswith(" takes the job up, epoch 1")
        assert lines[-1].endswith("put down")
        assert any(line.endswith("TransferDisks started") for line in lines)
    assert len(log) == sum(map(len, own.values())) + 3  # The worker is up, what was done, the worker is down.


@pytest.mark.slow
def test_debug_shows_effects(cloud: Cloud) -> None:
    cloud.service.resize("web", "big", host="h2")
    log = worker_log(cloud, "--debug", "worker", "--drain")
    assert re.search(r"DEBUG \[\S{36} \S{36}\] create_volume on h2\n", log)


@pytest.mark.slow
def test_what_goes_wrong_stands_out(cloud: Cloud) -> None:
    cloud.service.resize("web", "big", host="h2")
    cloud.world.fail("h2", "define", "the machine type is not known here", times=9)
    log = worker_log(cloud, "worker", "--drain")
    said = {line.partition("] ")[2] for line in log.splitlines() if " WARNING [" in line}
    assert {"define on h2 was refused", "DefineDestination failed"} <= said
    assert any(sentence.endswith("the machine type is not known here") for sentence in said)


@pytest.mark.slow
def test_lines_of_json_of_two_jobs_at_once(cloud: Cloud) -> None:
    """Ids are in each line of a job, and none of another job's; a scrape meanwhile sees the worker's metrics."""
    address = f"127.0.0.1:{free_port()}"
    add(cloud, f"use_json = true\nlog_file = {cloud.folder / 'log'}")
    file = cloud.folder / "resizeflow.conf"
    file.write_text(file.read_text().replace("[worker]", f"[worker]\nmetrics = {address}"))
    jobs = two_jobs(cloud)
    cloud.release()
    worker = Console(file).start("worker", "--jobs", "2")
    try:
        until(lambda: all(cloud.job(job).state is JobState.DONE for job in jobs))
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE) as answer:
            assert 'resizeflow_runs_total{flow="resize_v1",outcome="done"}' in answer.read().decode()
    finally:
        worker.terminate()
        out, err = worker.communicate(timeout=PATIENCE)
    assert (worker.returncode, out, err) == (0, "", "")
    lines = [json.loads(line) for line in (cloud.folder / "log").read_text().splitlines()]
    for job in jobs:
        own = [line for line in lines if line["context"].get("request_id") == job.job_id]
        assert {line["context"]["migration_id"] for line in own} == {job.migration_id}
        assert own[0]["message"].endswith(" takes the job up, epoch 1")
        assert own[1]["message"].endswith("taken up, epoch 1")
        assert own[-1]["message"].endswith("put down")
        tasks = [line["extra"] for line in own if line["extra"].get("kind") == "task"]
        done = [extra for extra in tasks if extra["transition"] == "RUNNING -> SUCCESS"]
        assert [line["task"] for line in done] == list(TASKS["resize_v1"])
        assert all(line["outcome"] == "ok" and line["seconds"] >= 0 for line in done)
        others = [line["message"] for line in lines if line not in own]
        assert not [message for message in others if job.job_id in message or job.migration_id in message]
    assert {line["message"].split()[0] for line in lines if not line["context"]} == {"Worker", "Metrics"}


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


# --- options -----------------------------------------------------------------------------------------------


@pytest.fixture
def _as_before() -> Iterator[None]:
    """Logging is a process's."""
    names = [None, "resizeflow", *(level.partition("=")[0] for level in logs.QUIET)]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    hook = sys.excepthook
    yield
    sys.excepthook = hook
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers


def begun(folder: Path, text: str, *, debug: bool = False) -> None:
    (folder / "resizeflow.conf").write_text(text)
    logs.begin(load(str(folder / "resizeflow.conf")).file, debug=debug)


@pytest.mark.usefixtures("_as_before")
def test_a_file_of_its_own_in_a_format_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    format_ = "logging_default_format_string = %(levelname)s: %(message)s"
    begun(tmp_path, f"[DEFAULT]\nlog_file = {tmp_path / 'log'}\n{format_}\n")
    logging.getLogger("resizeflow.worker").info("It is up")
    assert (tmp_path / "log").read_text() == "INFO: It is up\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("_as_before")
def test_passwords_are_hidden(tmp_path: Path) -> None:
    begun(tmp_path, f"[DEFAULT]\nlog_file = {tmp_path / 'log'}\nuse_json = true\n")
    logging.getLogger("resizeflow.worker").warning("It answers %s", {"auth_password": "hunter2", "name": "web"})
    text = (tmp_path / "log").read_text()
    assert "hunter2" not in text
    assert "***" in json.loads(text)["message"]


@pytest.mark.usefixtures("_as_before")
def test_libraries_are_quiet_even_with_debug(tmp_path: Path) -> None:
    begun(tmp_path, f"[DEFAULT]\nlog_file = {tmp_path / 'log'}\n", debug=True)
    for name in ("keystoneauth.session", "oslo_db.sqlalchemy", "taskflow.engines", "urllib3.connectionpool"):
        logging.getLogger(name).warning("What it sends")
    logging.getLogger("resizeflow.gate").debug("What we do")
    assert (tmp_path / "log").read_text().endswith(" DEBUG What we do\n")
    assert "sends" not in (tmp_path / "log").read_text()


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("use_json = perhaps", "use_json"),
        ("log_file = /no/such/folder/log", "The log /no/such/folder/log cannot be written: No such file or directory."),
        ("log_config_append = /no/such/file", "/no/such/file"),
        ("use_syslog = true\nsyslog_log_facility = moon", "facility"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        begun(tmp_path, f"[DEFAULT]\n{text}\n")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_other_commands_are_silent(cloud: Cloud) -> None:
    add(cloud, "debug = true")
    answer = Console(cloud.folder / "resizeflow.conf").type("resize", "web", "--flavor", "big")
    assert answer.code == 0
    assert not [line for line in answer.err.splitlines() if re.match(r"\d{4}-", line)]


def test_help_does_not_import_it() -> None:
    code = "import sys; from resizeflow import cli; cli.main(['--help']); print('oslo_log' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.endswith("False\n")
