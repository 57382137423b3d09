"""The worker's metrics, for Prometheus: names and units by its conventions, no label with a migration or a machine.

What happened is counted from what this worker commits; how the fleet stands is read from the database when somebody
asks. docs/monitoring.md has the table of all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from resizeflow import __version__, flows
from resizeflow.errors import UsageError
from resizeflow.observer import OUTCOMES, Observer, how_it_ended
from resizeflow.persistence import gauges
from resizeflow.persistence.database import AWAY, Database, in_short
from resizeflow.persistence.job_board import BoardJob
from resizeflow.persistence.models import RETRIES
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import Direction

LOG = logging.getLogger(__name__)
TASK_SECONDS = (0.1, 1, 10, 60, 300, 1800, 7200)
EFFECT_SECONDS = (0.05, 0.25, 1, 5, 15, 30, 60)
"""Upper bounds of the buckets."""


class Metrics(Observer):
    """Counts, and answers at `HOST:PORT` until closed."""

    def __init__(self, database: Database, address: str) -> None:
        """Raises UsageError if nothing can listen there."""
        # A time for each series, which in Prometheus's text format is one more gauge.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self._flows: dict[str, str] = {}
        """Of the jobs that run, by their ids."""
        Info("resizeflow_build", "The program's version.", registry=registry).info({"version": __version__})
        self._runs = Counter(
            "resizeflow_runs", "Runs of jobs that have ended, by how.", ["flow", "outcome"], registry=registry
        )
        self._running = Gauge("resizeflow_active_runs", "Jobs that this worker runs now.", registry=registry)
        self._takeovers = Counter(
            "resizeflow_takeovers", "Jobs taken over from workers that died.", ["flow"], registry=registry
        )
        self._retries = Counter(
            "resizeflow_retries",
            "What was tried again: effects without a sign or an answer, and jobs that had to wait.",
            ["flow", "kind"],
            registry=registry,
        )
        self._tasks = Histogram(
            "resizeflow_task_duration_seconds",
            "How long tasks took.",
            ["flow", "task", "direction", "outcome"],
            buckets=TASK_SECONDS,
            registry=registry,
        )
        self._effects = Histogram(
            "resizeflow_effect_duration_seconds",
            "How long hosts, Cinder and Neutron took for effects.",
            ["method", "outcome"],
            buckets=EFFECT_SECONDS,
            registry=registry,
        )
        self._bytes = Counter("resizeflow_transferred_bytes", "Bytes of disks copied.", ["flow"], registry=registry)
        self._not_renewed = Counter(
            "resizeflow_lease_renewal_failures", "Times that leases could not be renewed.", registry=registry
        )
        self._show_zeros()
        ProcessCollector(registry=registry)
        registry.register(_Fleet(database))
        self._server = _listening(address, registry)

    def _show_zeros(self) -> None:
        """What appears with 1 is no increase for Prometheus: series whose labels are known are there from the start."""
        for flow in flows.TASKS:
            self._takeovers.labels(flow)
            self._bytes.labels(flow)
            for kind in RETRIES:
                self._retries.labels(flow, kind)
            for outcome in OUTCOMES:
                self._runs.labels(flow, outcome)

    @property
    def port(self) -> int:
        return self._server.server_port

    def begun(self, job: BoardJob) -> None:
        self._flows[job.uuid] = job.name
        self._running.inc()
        if job.held.died:
            self._takeovers.labels(job.name).inc()

    def ended(self, job: BoardJob) -> None:
        del self._flows[job.uuid]
        self._running.dec()
        self._runs.labels(job.name, how_it_ended(job)).inc()

    def committed(self, tx: Transaction) -> None:
        flow = self._flows.get(tx.lease.job_id) if tx.lease else None
        if flow is None:
            return
        if tx.moved:
            self._bytes.labels(flow).inc(tx.moved)
        for line in tx.events.written:
            if line["kind"] in RETRIES:
                self._retries.labels(flow, line["kind"]).inc()
            if line["seconds"] is None:
                continue
            if line["kind"] == "task":
                direction = Direction.BACK if line["transition"].endswith("REVERTED") else Direction.FORWARD
                self._tasks.labels(flow, line["task"], direction, line["outcome"]).observe(line["seconds"])
            elif "method" in line["data"]:
                self._effects.labels(line["data"]["method"], line["outcome"]).observe(line["seconds"])

    def not_renewed(self) -> None:
        self._not_renewed.inc()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _listening(address: str, registry: CollectorRegistry) -> WSGIServer:
    parts = urlsplit(f"//{address}")
    try:
        server, _thread = start_http_server(parts.port or 0, parts.hostname or "", registry)
    except OSError as error:
        raise UsageError(
            f"Nothing can listen at [worker] metrics = {address}: {error.strerror}. Give an address of this "
            "machine that no other worker has."
        ) from None
    LOG.info("Metrics are shown at http://%s:%d/metrics", parts.hostname, server.server_port)
    return server


class _Fleet(Collector):
    """What the database says at the moment of a scrape. One that does not answer is one of the answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield from _families().values()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = _families()
        try:
            with self._database.read() as tx:
                now = gauges.read(tx)
        except AWAY as error:
            LOG.warning("The database does not answer: %s", in_short(error))
            families["up"].add_metric([], 0)
            yield families["up"]
            return
        families["up"].add_metric([], 1)
        families["debts"].add_metric([], now.debts)
        families["workers"].add_metric([], now.workers)
        for state, number in now.jobs.items():
            families["jobs"].add_metric([state], number)
        yield from families.values()


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        "up": GaugeMetricFamily("resizeflow_database_up", "Whether the state database answers."),
        "jobs": GaugeMetricFamily("resizeflow_jobs", "Jobs that have not ended, by their state.", labels=["state"]),
        "debts": GaugeMetricFamily("resizeflow_debts", "Debts that nobody could settle yet."),
        "workers": GaugeMetricFamily("resizeflow_workers", "Workers that are up."),
    }
