"""The metrics of a worker, as Prometheus reads them, against what the database says."""

from __future__ import annotations

import re
import socket
import subprocess
import textwrap
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import UsageError
from resizeflow.flows import TASKS
from resizeflow.metrics import Metrics
from resizeflow.observer import OUTCOMES
from resizeflow.persistence.models import RETRIES, Debt
from resizeflow.states import JobState
from tests.observed import Story, lines, observed

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Families = Mapping[str, Metric]


def scrape(metrics: Metrics, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{metrics.port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own port
        text: str = answer.read().decode()
    return text


def families(metrics: Metrics) -> Families:
    return {family.name: family for family in parser.text_string_to_metric_families(scrape(metrics))}


def samples(shown: Families, name: str, suffix: str = "") -> dict[tuple[str, ...], float]:
    """The values of a metric, by its labels' values in the order of their names."""
    return {
        tuple(value for label, value in sorted(sample.labels.items()) if label != "le"): sample.value
        for sample in shown[name].samples
        if sample.name == f"{shown[name].name}{suffix}"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def cloud(folder: Path) -> Cloud:
    return Cloud(folder, transfer="stream").build()


@pytest.fixture(scope="module")
def metrics(cloud: Cloud) -> Metrics:
    return Metrics(cloud.database, "127.0.0.1:0")


@pytest.fixture(scope="module")
def story(cloud: Cloud, metrics: Metrics) -> Iterator[Story]:
    with observed(cloud, metrics) as story:
        yield story


@pytest.fixture(scope="module")
def shown(metrics: Metrics, story: Story) -> Families:
    return families(metrics)


# --- what is counted ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_by_their_ends(cloud: Cloud, story: Story, shown: Families) -> None:
    ended = {ends: number for ends, number in samples(shown, "resizeflow_runs", "_total").items() if number}
    assert ended == {("resize_v1", "done"): 2, ("confirm_v1", "done"): 1, ("resize_v1", "rolled-back"): 1}
    assert {cloud.job(job).state for job in story.jobs} == {JobState.DONE}
    assert samples(shown, "resizeflow_active_runs") == {(): 0}


def test_all_ends_of_all_flows_are_shown_from_the_start(shown: Families) -> None:
    assert set(samples(shown, "resizeflow_runs", "_total")) == {(flow, end) for flow in TASKS for end in OUTCOMES}
    assert set(samples(shown, "resizeflow_transferred_bytes", "_total")) == {(flow,) for flow in TASKS}


def test_takeovers(cloud: Cloud, story: Story, shown: Families) -> None:
    taken = samples(shown, "resizeflow_takeovers", "_total")
    assert {flow: number for flow, number in taken.items() if number} == {("resize_v1",): 1}
    assert cloud.job(story.taken_over).epoch == 2


def test_retries_are_those_of_the_log(cloud: Cloud, story: Story, shown: Families) -> None:
    counted: Counter[tuple[str, ...]] = Counter()
    for (_flow, kind), number in samples(shown, "resizeflow_retries", "_total").items():
        counted[kind,] += int(number)
    assert counted == {(kind,): len(lines(cloud, story, kind)) for kind in RETRIES}
    assert counted["unknown",] == 1


def test_tasks_are_those_of_the_log(cloud: Cloud, story: Story, shown: Families) -> None:
    ended = [line for line in lines(cloud, story, "task") if line.outcome is not None]
    counts = samples(shown, "resizeflow_task_duration_seconds", "_count")
    by_task: Counter[tuple[str | None, str]] = Counter()
    for (direction, _flow, outcome, task), number in counts.items():
        by_task[task, outcome] += int(number)
        assert (direction, outcome) in {("forward", "ok"), ("forward", "failed"), ("back", "ok")}
    assert by_task == Counter((line.task, str(line.outcome)) for line in ended)
    assert by_task["DefineDestination", "failed"] == 1
    assert counts["back", "resize_v1", "ok", "DefineDestination"] == 1
    seconds = samples(shown, "resizeflow_task_duration_seconds", "_sum")
    assert sum(seconds.values()) == pytest.approx(sum(line.seconds or 0.0 for line in ended))


def test_effects_are_those_of_the_log(cloud: Cloud, story: Story, shown: Families) -> None:
    told = [*lines(cloud, story, "effect"), *lines(cloud, story, "unknown")]
    timed = [line for line in told if line.seconds is not None]
    counts = samples(shown, "resizeflow_effect_duration_seconds", "_count")
    assert counts == Counter((line.data["method"], str(line.outcome)) for line in timed)
    assert (counts["define", "unknown"], counts["define", "refused"]) == (1, 1)
    assert counts["define", "ok"] > 1


def test_bytes_are_those_that_the_observed_runs_copied(cloud: Cloud, story: Story, shown: Families) -> None:
    copied = samples(shown, "resizeflow_transferred_bytes", "_total")["resize_v1",]
    migrations = {job.migration_id: cloud.migration(job) for job in story.jobs}
    assert copied == sum(migration.bytes_done for migration in migrations.values()) > 0


# --- how the fleet stands ----------------------------------------------------------------------------------


def test_the_fleet_is_read_when_it_is_asked_for(memory_path: Path, connection: str | None) -> None:
    cloud = Cloud(memory_path, connection=connection).build()
    metrics = Metrics(cloud.database, "127.0.0.1:0")
    states = {("queued",): 0, ("running",): 0, ("needs-attention",): 0}
    assert fleet(metrics) == (1, states, 0, 0)
    job = cloud.service.resize("web", "big", host="h2")
    assert fleet(metrics) == (1, states | {("queued",): 1}, 0, 0)
    with cloud.database.write() as tx:
        row = tx.jobs.get(job.job_id)
        row.state, row.owner = JobState.NEEDS_ATTENTION, None
        tx.workers.seen("one", 60)
        tx.workers.seen("one that died", -1)
        for settled in (None, tx.now()):
            debt = Debt(
                migration_id=job.migration_id, instance_id=cloud.uuid, host_id=tx.hosts.get("h1").id, kind="disk"
            )
            debt.object, debt.reason, debt.created_at, debt.settled_at = str(settled), "away", tx.now(), settled
            tx.session.add(debt)
    assert fleet(metrics) == (1, states | {("needs-attention",): 1}, 1, 1)
    metrics.close()


def fleet(metrics: Metrics) -> tuple[float, dict[tuple[str, ...], float], float, float]:
    """Whether the database answers, jobs by state, debts, workers."""
    shown = families(metrics)
    up, debts, workers = (samples(shown, f"resizeflow_{name}")[()] for name in ("database_up", "debts", "workers"))
    return up, samples(shown, "resizeflow_jobs"), debts, workers


def test_a_database_that_is_away_is_one_of_the_answers(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path).build()
    metrics = Metrics(cloud.database, "127.0.0.1:0")
    with cloud.database.write() as tx:
        tx.connection.exec_driver_sql("DROP TABLE debts")
    shown = families(metrics)
    metrics.close()
    assert samples(shown, "resizeflow_database_up") == {(): 0}
    assert "resizeflow_jobs" not in shown
    assert samples(shown, "resizeflow_takeovers", "_total")


def test_leases_that_were_not_renewed(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path).build()
    metrics = Metrics(cloud.database, "127.0.0.1:0")
    metrics.not_renewed()
    shown = families(metrics)
    metrics.close()
    assert samples(shown, "resizeflow_lease_renewal_failures", "_total") == {(): 1}


# --- names -------------------------------------------------------------------------------------------------


def ours(shown: Families) -> list[Metric]:
    return [family for name, family in shown.items() if name.startswith("resizeflow_")]


def test_names_follow_the_conventions(shown: Families) -> None:
    """A prefix, base units in the plural, no label that is in the name: https://prometheus.io/docs/practices/naming/."""
    for family in ours(shown):
        assert re.fullmatch(r"resizeflow(_[a-z]+)+", family.name)
        assert not re.search(r"_(total|count|sum|bucket|ms|milliseconds|minutes|mb|kilobytes)$", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert set(sample.labels) <= {
                "flow",
                "task",
                "direction",
                "method",
                "outcome",
                "state",
                "kind",
                "version",
                "le",
            }
            assert not any(label in family.name.split("_") for label in sample.labels if label not in {"task", "le"})


def test_openmetrics_reads_it_too(metrics: Metrics, story: Story, shown: Families) -> None:
    strict = {family.name: family for family in openmetrics_families(scrape(metrics, OPENMETRICS))}  # type: ignore[no-untyped-call]
    assert {family.name.removesuffix("_info") for family in ours(shown)} == {family.name for family in ours(strict)}


def test_no_label_names_a_machine_or_a_migration(cloud: Cloud, metrics: Metrics, story: Story) -> None:
    text = scrape(metrics)
    ids = {identity for job in story.jobs for identity in (job.job_id, job.migration_id)}
    assert not [identity for identity in (*ids, cloud.uuid, story.worker) if identity in text]


def test_promtool_has_nothing_to_say(metrics: Metrics, story: Story) -> None:
    checked = promtool("check", "metrics", given=scrape(metrics))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_prometheus_takes_the_alerts_of_the_docs(tmp_path: Path) -> None:
    page = MONITORING.read_text()
    rules = tmp_path / "rules.yml"
    rules.write_text(textwrap.dedent(page[page.index("    groups:") :].split("\n\n", 1)[0]))
    checked = promtool("check", "rules", str(rules))
    assert checked.returncode == 0, checked
    assert f"SUCCESS: {page.count('- alert:')} rules found" in checked.stdout


def promtool(*words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Prometheus's own checker."""
    return subprocess.run(["promtool", *words], check=False, input=given, text=True, capture_output=True)


def test_the_table_of_the_docs_is_what_is_shown(shown: Families) -> None:
    page = MONITORING.read_text()
    table = dict(re.findall(r"^\| `(resizeflow_\w+)` \| (\w+) \|", page, re.MULTILINE))
    labels = dict(re.findall(r"^\| `(resizeflow_\w+)` \| \w+ \| (.*?) \|", page.replace("| |", "|  |"), re.MULTILINE))
    names = {family.name + ("_total" if family.type == "counter" else ""): family for family in ours(shown)}
    assert table == {name: family.type for name, family in names.items()}
    for name, family in names.items():
        used = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert set(re.findall(r"`(\w+)`", labels[name])) == used, name
    ends = page[page.index("| `outcome` of a run |") :].split("\n\n", 1)[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", ends, re.MULTILINE)) == set(OUTCOMES)
    mentioned = set(re.findall(r"resizeflow_\w+", page))
    assert mentioned <= {*names, *(f"{name}_count" for name, family in names.items() if family.type == "histogram")}


# --- the address -------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_is_one_sentence(cloud: Cloud) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UsageError, match=rf"metrics = {address}: Address already in use\. Give an address"):
            Metrics(cloud.database, address)
    with pytest.raises(UsageError, match=r"metrics = no\.such\.host\.invalid:9464: "):
        Metrics(cloud.database, "no.such.host.invalid:9464")
