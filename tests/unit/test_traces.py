"""The spans of a worker: what is a part of what, how it ended, and that a take-over goes on in the same trace."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from resizeflow import traces
from resizeflow.chaos.cloud import Cloud
from resizeflow.observer import Observer
from resizeflow.persistence.transaction import Transaction
from resizeflow.service import Submitted
from resizeflow.traces import Traces
from resizeflow.worker import TASKS, Worker
from tests.console import Console
from tests.observed import REFUSAL, Story, lines, observed, run


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    return Cloud(tmp_path_factory.mktemp("traces")).build()


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def story(cloud: Cloud, exporter: InMemorySpanExporter) -> Iterator[Story]:
    with observed(cloud, Traces(cloud.database, SimpleSpanProcessor(exporter))) as story:
        yield story


@pytest.fixture(scope="module")
def spans(story: Story, exporter: InMemorySpanExporter) -> Sequence[ReadableSpan]:
    return exporter.get_finished_spans()


def told(span: ReadableSpan, word: str) -> object:
    return (span.attributes or {}).get(f"resizeflow.{word}")


def runs(spans: Sequence[ReadableSpan], job: Submitted) -> list[ReadableSpan]:
    """A job's runs, in their order."""
    return [span for span in spans if told(span, "request_id") == job.job_id]


def tasks(spans: Sequence[ReadableSpan], run: ReadableSpan) -> list[ReadableSpan]:
    """What is under a run, in the order in which it ended."""
    return [span for span in spans if span.parent is not None and span.parent.span_id == run.context.span_id]


@pytest.mark.slow
def test_a_run_has_the_tasks_that_it_ran(cloud: Cloud, story: Story, spans: Sequence[ReadableSpan]) -> None:
    (confirm,) = runs(spans, story.confirm)
    ran = [line for line in lines(cloud, story, "task") if line.request_id == story.confirm.job_id]
    assert [span.name for span in tasks(spans, confirm)] == [line.task for line in ran if line.outcome]
    assert (confirm.name, told(confirm, "outcome"), told(confirm, "epoch")) == ("confirm_v1", "done", 1)
    assert (told(confirm, "instance_id"), told(confirm, "worker")) == (cloud.uuid, story.worker)
    assert all(run.parent is None for job in story.jobs for run in runs(spans, job))
    assert len(spans) == sum(len(tasks(spans, run)) + 1 for job in story.jobs for run in runs(spans, job))


def test_times_are_those_of_the_log(cloud: Cloud, story: Story, spans: Sequence[ReadableSpan]) -> None:
    (confirm,) = runs(spans, story.confirm)
    ran = [line for line in lines(cloud, story, "task") if line.request_id == story.confirm.job_id]
    ends = [line.at.timestamp() for line in ran if line.outcome]
    assert [(span.end_time or 0) / 1e9 for span in tasks(spans, confirm)] == pytest.approx(ends, abs=1e-5)
    assert [(span.start_time or 0) / 1e9 for span in tasks(spans, confirm)] == pytest.approx(
        [line.at.timestamp() for line in ran if not line.outcome], abs=1e-5
    )


def test_a_migration_is_one_trace(story: Story, spans: Sequence[ReadableSpan]) -> None:
    for job in story.jobs:
        for one in runs(spans, job):
            ids = {span.context.trace_id for span in (one, *tasks(spans, one))}
            assert ids == {uuid.UUID(job.migration_id).int}
    assert story.taken_over.migration_id == story.confirm.migration_id != story.rolled_back.migration_id


def test_a_failed_task_and_the_way_back(story: Story, spans: Sequence[ReadableSpan]) -> None:
    (run,) = runs(spans, story.rolled_back)
    under = tasks(spans, run)
    (failed,) = [span for span in under if span.status.status_code is StatusCode.ERROR]
    assert (failed.name, told(failed, "outcome")) == ("DefineDestination", "failed")
    assert REFUSAL in (failed.status.description or "")
    back = [span.name for span in under[under.index(failed) + 1 :]]
    assert back[0] == "DefineDestination.revert"
    assert all(name.endswith(".revert") for name in back)
    assert (told(run, "outcome"), run.status.status_code) == ("rolled-back", StatusCode.ERROR)
    assert run.status.description == failed.status.description


def test_what_a_task_tells_is_with_its_span(story: Story, spans: Sequence[ReadableSpan]) -> None:
    (run,) = runs(spans, story.unanswered)
    (task,) = [span for span in tasks(spans, run) if span.name == "DefineDestination"]
    unknown = [event for event in task.events if event.name == "unknown"]
    assert [(event.attributes or {})["outcome"] for event in unknown] == ["unknown"]
    assert task.status.status_code is StatusCode.UNSET


def test_a_worker_that_died_is_told_of_by_its_successor(story: Story, spans: Sequence[ReadableSpan]) -> None:
    died, run = sorted(runs(spans, story.taken_over), key=lambda span: span.start_time or 0)
    assert [told(died, word) for word in ("epoch", "outcome")] == [1, "died"]
    assert died.status.description == f"worker {told(died, 'worker')} died, or was silent for its whole lease"
    (interrupted,) = tasks(spans, died)
    assert (interrupted.name, interrupted.status.status_code) == ("TransferDisks", StatusCode.ERROR)
    assert (told(run, "epoch"), told(run, "worker")) == (2, story.worker)
    assert [link.context.span_id for link in run.links] == [died.context.span_id]
    first = tasks(spans, run)[0]
    assert first.name == "TransferDisks"
    assert (interrupted.end_time or 0) <= (run.start_time or 0) <= (first.start_time or 0) <= (first.end_time or 0)


class Stopper(Observer):
    """Stops a worker when its transfer begins."""

    stop = threading.Event()

    def committed(self, tx: Transaction) -> None:
        if any(line["task"] == "TransferDisks" for line in tx.events.written):
            self.stop.set()


def test_a_take_over_goes_on_in_the_same_trace(tmp_path: Path) -> None:
    """Two workers, each with spans of its own, as on two machines; the first is stopped, the second goes on."""
    cloud, exporters = Cloud(tmp_path).build(), [InMemorySpanExporter(), InMemorySpanExporter()]
    job = cloud.service.resize("web", "big", host="h2")
    first_traces, second_traces = (Traces(cloud.database, SimpleSpanProcessor(exporter)) for exporter in exporters)
    stopper = Stopper()
    first = Worker(cloud.database, cloud.settings, clock=cloud.clock, observers=[first_traces, stopper])
    second = Worker(cloud.database, cloud.settings, clock=cloud.clock, observers=[second_traces])
    stopper.stop = first.stop
    with first:
        first.take_and_run(job.job_id)
    with second:
        run(cloud, second, job)
    (stopped,), (resumed,) = (runs(exporter.get_finished_spans(), job) for exporter in exporters)
    assert (told(stopped, "outcome"), told(resumed, "outcome")) == ("stopped", "done")
    assert stopped.context.trace_id == resumed.context.trace_id
    assert [link.context.span_id for link in resumed.links] == [stopped.context.span_id]


# --- how they are sent -------------------------------------------------------------------------------------


class Collector(BaseHTTPRequestHandler):
    """Takes what is sent by OTLP over HTTP."""

    taken: ClassVar[list[tuple[str, ExportTraceServiceRequest]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Says nothing."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ExportTraceServiceRequest]]]:
    """What a collector gets, to which the environment points."""
    Collector.taken.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "resizes")
        monkeypatch.setattr(traces, "LAST", 60.0)  # On a busy machine, too, all is to come.
        yield Collector.taken
        server.shutdown()


def check_sent(taken: list[tuple[str, ExportTraceServiceRequest]], migration: str) -> None:
    """All spans of a resize, of the service that the environment names."""
    assert {path for path, _ in taken} == {"/v1/traces"}
    resources = [spans for _, request in taken for spans in request.resource_spans]
    service = {one.value.string_value for spans in resources for one in spans.resource.attributes if "name" in one.key}
    assert "resizes" in service
    sent = [span for spans in resources for scope in spans.scope_spans for span in scope.spans]
    assert {span.trace_id for span in sent} == {uuid.UUID(migration).bytes}
    assert [span.name for span in sent] == [*TASKS["resize_v1"], "resize_v1"]


def test_they_are_sent_where_the_environment_says(
    tmp_path: Path, taken: list[tuple[str, ExportTraceServiceRequest]]
) -> None:
    cloud = Cloud(tmp_path).build()
    job = cloud.service.resize("web", "big", host="h2")
    with Worker(cloud.database, cloud.settings, clock=cloud.clock, observers=[Traces(cloud.database)]) as worker:
        worker.take_and_run(job.job_id)
    check_sent(taken, job.migration_id)


@pytest.mark.slow
def test_what_a_command_does_itself_is_traced_as_well(
    tmp_path: Path, taken: list[tuple[str, ExportTraceServiceRequest]]
) -> None:
    console = Console(Cloud(tmp_path, traces="true").build().folder / "resizeflow.conf")
    resized = console.ask("resize", "web", "--flavor", "big", "--host", "h2")
    check_sent(taken, resized["migration"])


@pytest.mark.slow
def test_a_command_neither_speaks_of_a_collector_that_is_away_nor_waits_long_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(Cloud(tmp_path, traces="true").build().folder / "resizeflow.conf")
    monkeypatch.setattr(traces, "LAST", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        resized = console.type("resize", "web", "--flavor", "big", "--host", "h2")
    assert (resized.code, resized.err) == (0, "")
    assert "web is resized" in resized.out.splitlines()[-1]


def test_nobody_waits_long_for_a_collector_that_is_away(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(traces, "LAST", 0.2)
        observer = Traces(cloud.database)
        observer._tracer.start_span("left").end()
        began = time.monotonic()
        observer.close()
        assert 0.2 <= time.monotonic() - began < 8  # The exporter itself waits for ten.


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
import resizeflow.commands.worker, resizeflow.logs, resizeflow.metrics, resizeflow.worker
from resizeflow.errors import UsageError
try:
    import resizeflow.traces
except UsageError as error:
    print(error)
"""


REFUSED = """
import sys
sys.modules["opentelemetry"] = None
from resizeflow import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_without_opentelemetry_a_command_that_would_trace_submits_nothing(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, traces="true").build()
    words = ["--config-file", str(cloud.folder / "resizeflow.conf"), "resize", "web", "--flavor", "big"]
    said = subprocess.run([sys.executable, "-c", REFUSED, *words], check=False, capture_output=True, text=True)
    assert said.returncode == 2, said
    assert "needs OpenTelemetry" in said.stderr
    with cloud.database.read() as tx:
        assert tx.migrations.list() == []
    detached = subprocess.run([sys.executable, "-c", REFUSED, *words, "--detach"], check=False, capture_output=True)
    assert detached.returncode == 0, detached


def test_without_opentelemetry_it_is_one_sentence_and_only_where_it_is_wanted() -> None:
    said = subprocess.run([sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True)
    assert said.stdout == (
        "[worker] traces = true needs OpenTelemetry, which is not installed: "
        "pip install 'resizeflow[traces]', or set traces = false.\n"
    )


@pytest.mark.slow
def test_what_is_not_configured_is_not_imported() -> None:
    loaded = "{'opentelemetry', 'prometheus_client'} & set(sys.modules)"
    code = f"import sys, resizeflow.logs, resizeflow.worker; print({loaded})"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == "set()\n"
