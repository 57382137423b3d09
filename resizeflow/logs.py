"""The worker's log, by oslo.log: lines, or JSON, in which everything that belongs to a job carries its ids.

oslo.log is imported with this module, so only `resizeflow worker` imports it.
"""

from __future__ import annotations

import contextlib
import io
import logging
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_log import log
from oslo_utils import strutils

from resizeflow import __version__
from resizeflow.config import what_is_wrong
from resizeflow.errors import UsageError
from resizeflow.observer import Observer
from resizeflow.persistence.job_board import BoardJob
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import Outcome

OUTSIDE = "%(asctime)s.%(msecs)03d %(levelname)s %(message)s"
OF_A_JOB = "%(asctime)s.%(msecs)03d %(levelname)s [%(migration_id)s %(request_id)s] %(message)s"
LIBRARIES = (
    "alembic amqp cinderclient kombu openstack opentelemetry oslo oslo_db oslo_messaging sqlalchemy stevedore taskflow "
    "urllib3"
)
QUIET = [
    *(f"{name}=ERROR" for name in LIBRARIES.split()),
    # They show URLs and headers with what logs in.
    *(f"{name}=CRITICAL" for name in ("keystoneauth", "keystoneauth1", "oslo.messaging")),
]
"""The default of `default_log_levels`: what goes wrong in a library is told by whoever called it."""
LEVELS = {
    Outcome.FAILED: logging.WARNING,
    Outcome.REFUSED: logging.WARNING,
    Outcome.UNKNOWN: logging.WARNING,
    Outcome.WAITING: logging.WARNING,
    Outcome.NEEDS_ATTENTION: logging.ERROR,
}
"""Of a line of the event log, by its outcome; others are told as information."""
DETAILS = frozenset({"allocation", "effect", "notification", "quota"})
"""Kinds of lines that are told with `debug` only, if all went well."""
IDS = ("request_id", "migration_id", "instance_id", "epoch")
TOLD = ("kind", "task", "host", "transition", "seconds", "outcome", "error", "next_action")
"""What else the JSON of such a line says of it."""
EVENTS = log.getLogger("resizeflow.events")
_job: ContextVar[dict[str, Any]] = ContextVar("job", default={})  # noqa: B039 - never changed, only replaced
"""What the lines of this thread's job carry."""


def begin(file: Path | None, *, debug: bool) -> None:
    """Logs as the configuration file says, by oslo.log's own options; to stderr if it does not say where. `debug` in
    place of what it says. Raises UsageError for options that cannot be used."""
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    for option, value in {
        "logging_context_format_string": OF_A_JOB,
        "logging_default_format_string": OUTSIDE,
        "logging_debug_format_suffix": "",
        "logging_exception_prefix": "",
        "default_log_levels": QUIET,
    }.items():
        conf.set_default(option, value)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            conf(args=[], project="resizeflow", default_config_files=[str(file)] if file else [])
        conf.set_default("use_stderr", not any((conf.log_file, conf.log_dir, conf.use_syslog, conf.use_journal)))
        if debug:
            conf.set_override("debug", True)
        log.setup(conf, "resizeflow", __version__)
    except (cfg.Error, ValueError, TypeError, RuntimeError, log.LogConfigError) as error:
        raise UsageError(f"The configuration {file} cannot be used: {what_is_wrong(error)}") from None
    except SystemExit:
        # So oslo.config ends where an option is wrong that could be one of a command line as well.
        raise UsageError(f"The configuration {file} cannot be used: {' '.join(said.getvalue().split())}.") from None
    except OSError as error:
        raise UsageError(f"The log {error.filename} cannot be written: {error.strerror}.") from None
    logging.getLogger("resizeflow").setLevel(logging.NOTSET)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_complete)


def _complete(record: logging.LogRecord) -> bool:
    """Gives a line its job's ids, where oslo.log looks for them; what looks like a password in it is hidden."""
    if not hasattr(record, "context"):
        record.context = _job.get()
    record.msg, record.args = strutils.mask_password(record.getMessage()), ()
    return True


class JobLog(Observer):
    """Gives the lines of a job its ids, and logs what the event log is told of it."""

    def begun(self, job: BoardJob) -> None:
        _job.set(
            {
                "request_id": job.uuid,
                "migration_id": job.book_uuid,
                "instance_id": job.details["instance_id"],
                "flow": job.name,
                "epoch": job.held.epoch,
            }
        )

    def ended(self, job: BoardJob) -> None:  # noqa: ARG002
        _job.set({})

    def committed(self, tx: Transaction) -> None:
        for line in tx.events.written:
            if line["worker"] is None:
                continue  # Of a command, or a chore.
            details = {name: line[name] for name in TOLD if line[name] is not None}
            # What is told of the taking comes before the run has begun.
            details["context"] = _job.get() or {name: line[name] for name in IDS}
            usual = logging.DEBUG if line["kind"] in DETAILS else logging.INFO
            EVENTS.log(LEVELS.get(line["outcome"], usual), "%s", line["text"], extra=details)
