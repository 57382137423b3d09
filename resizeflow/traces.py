"""A worker's traces, by OpenTelemetry: a span for each run of a job, and under it one for each run of a task. A command
that carries a job out itself has a worker, too.

All runs of a migration are one trace, whichever workers they were on: its trace id is the migration's id, without the
hyphens. Where spans are sent, and how, is said by OpenTelemetry's own variables of the environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from resizeflow import __version__
from resizeflow.errors import UsageError
from resizeflow.lease import Lease
from resizeflow.observer import Observer, how_it_ended
from resizeflow.persistence.database import Database
from resizeflow.persistence.job_board import BoardJob
from resizeflow.persistence.transaction import Transaction

try:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.trace import Link, Span, SpanContext, StatusCode, TraceFlags, set_span_in_context
except ImportError:
    raise UsageError(
        "[worker] traces = true needs OpenTelemetry, which is not installed: pip install 'resizeflow[traces]', or set "
        "traces = false."
    ) from None

SERVICE = "resizeflow-worker"
"""The service that spans are of, unless the environment says otherwise."""
BEGINNINGS = frozenset({"RUNNING", "REVERTING"})
BACK = frozenset({"REVERTING", "REVERTED"})
"""TaskFlow's states of a task that begins, and of one that is undone."""
FAILED = frozenset({"rolled-back", "needs-attention"})
"""Ends of a run that are errors."""
LAST = 2.0
"""Seconds that the end of a worker, or of a command, waits at most until the last spans are sent."""


@dataclass
class _Run:
    span: Span
    resumed_at: int | None
    """When it began, nanoseconds since 1970, until its first task is known."""
    task: Span | None = None
    error: str | None = None


class Traces(Observer):
    """Makes spans of what a worker commits; their times are those of the event log."""

    def __init__(self, database: Database, processor: SpanProcessor | None = None) -> None:
        """`processor` gets the spans; by default a thread sends them by OTLP over HTTP, in batches."""
        self._database = database
        self._ids = _Ids()
        self._provider = TracerProvider(resource=_resource(), id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("resizeflow", __version__)
        self._runs: dict[str, _Run] = {}

    def begun(self, job: BoardJob) -> None:
        lease, now = job.held, time.time_ns()
        self._runs[job.uuid] = _Run(self._begin_run(job, lease.epoch, lease.owner, now), now)
        if died := lease.died:
            self._tell_of(job, died)

    def _begin_run(self, job: BoardJob, epoch: int, worker: str, at: int) -> Span:
        attributes: dict[str, str | int] = {
            "resizeflow.migration_id": job.book_uuid,
            "resizeflow.request_id": job.uuid,
            "resizeflow.instance_id": job.details["instance_id"],
            "resizeflow.flow": job.name,
            "resizeflow.epoch": epoch,
            "resizeflow.worker": worker,
        }
        links = [Link(_of_run(job, epoch - 1))] if epoch > 1 else []
        with self._ids.of(_of_run(job, epoch)):
            return self._tracer.start_span(job.name, Context(), attributes=attributes, links=links, start_time=at)

    def _tell_of(self, job: BoardJob, died: str) -> None:
        """A worker that died sends neither the span of its run nor that of the task in which it died: the log has
        them."""
        epoch = job.held.epoch - 1
        with self._database.read() as tx:
            lines = [line for line in tx.events.of(job.book_uuid) if (line.request_id, line.epoch) == (job.uuid, epoch)]
        spans = [self._begin_run(job, epoch, died, _nanoseconds(lines[0].at))]
        last = next(line for line in reversed(lines) if line.kind in {"task", "lease"})
        state = _state(vars(last))
        if state in BEGINNINGS:
            spans.append(self._begin_task(spans[0], last.task or "", _nanoseconds(last.at), back=state in BACK))
        for span in reversed(spans):
            span.set_attribute("resizeflow.outcome", "died")
            span.set_status(StatusCode.ERROR, f"worker {died} died, or was silent for its whole lease")
            span.end(_nanoseconds(lines[-1].at))

    def ended(self, job: BoardJob) -> None:
        run, how = self._runs.pop(job.uuid), how_it_ended(job)
        if how == "lease-lost":
            return  # Whoever has the job now has told of this run, as of one that died.
        reason = job.handover.reason if job.handover else run.error
        for span in (run.task, run.span):
            if span is not None:
                span.set_attribute("resizeflow.outcome", how)
                if how in FAILED:
                    span.set_status(StatusCode.ERROR, reason)
                elif reason:
                    span.set_attribute("resizeflow.reason", reason)
                span.end()

    def committed(self, tx: Transaction) -> None:
        if tx.lease and (run := self._runs.get(tx.lease.job_id)):
            for line in tx.events.written:
                self._see(run, tx.lease, line)

    def _see(self, run: _Run, lease: Lease, line: Mapping[str, Any]) -> None:
        at, state = _nanoseconds(line["at"]), _state(line)
        if state in BEGINNINGS:
            if run.task is not None:  # It was turned back in the middle.
                run.task.end(at)
            run.task, run.resumed_at = self._begin_task(run.span, line["task"], at, back=state in BACK), None
        elif line["task"] and run.resumed_at is not None:
            # A task that an earlier run has begun: its beginning is not written again.
            back = state in BACK if state else lease.turned_back
            run.task, run.resumed_at = self._begin_task(run.span, line["task"], run.resumed_at, back=back), None
        if line["kind"] == "failure":
            run.error = line["text"]
        if state is None:
            (run.task or run.span).add_event(line["kind"], _said(line), at)
        elif state not in BEGINNINGS and run.task is not None:
            run.task.set_attribute("resizeflow.outcome", line["outcome"])
            if state == "FAILURE":
                run.task.set_status(StatusCode.ERROR, run.error)
            run.task.end(at)
            run.task = None

    def _begin_task(self, run: Span, task: str, at: int, *, back: bool) -> Span:
        name = task.removesuffix(".revert") + (".revert" if back else "")
        return self._tracer.start_span(name, set_span_in_context(run, Context()), start_time=at)

    def close(self) -> None:
        """Sends what is left, in bounded time."""
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(LAST)


def _nanoseconds(at: datetime) -> int:
    """Since 1970."""
    return round(at.timestamp() * 1e9)


def _state(line: Mapping[str, Any]) -> str | None:
    """Into which state a task came, by a line of the event log; None if it is no such line."""
    state: str | None = line["transition"].rpartition(" ")[2] if line["kind"] == "task" else None
    return state


def _said(line: Mapping[str, Any]) -> dict[str, str | float]:
    words = {name: line[name] for name in ("text", "host", "seconds", "outcome", "error")}
    return {name: word for name, word in words.items() if word is not None}


class _Ids(RandomIdGenerator):
    """Random ids, but for the spans of runs."""

    def __init__(self) -> None:
        self._given: ContextVar[SpanContext | None] = ContextVar("span", default=None)

    @contextlib.contextmanager
    def of(self, span: SpanContext) -> Iterator[None]:
        """The span that is begun within has these ids."""
        token = self._given.set(span)
        try:
            yield
        finally:
            self._given.reset(token)

    def generate_trace_id(self) -> int:
        given = self._given.get()
        return given.trace_id if given else super().generate_trace_id()

    def generate_span_id(self) -> int:
        given = self._given.get()
        return given.span_id if given else super().generate_span_id()


def _of_run(job: BoardJob, epoch: int) -> SpanContext:
    """The ids of a run of a job, which any worker can tell."""
    digest = hashlib.sha256(f"{job.uuid} {epoch}".encode()).digest()
    trace_id, span_id = uuid.UUID(job.book_uuid).int, int.from_bytes(digest[:8])
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _resource() -> Resource:
    """Who sends spans: what the environment (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) says comes first."""
    ours = {"service.name": SERVICE, "service.version": __version__, "host.name": socket.gethostname()}
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})
