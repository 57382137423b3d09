"""Settings, by oslo.config: from `--config-file`, else $RESIZEFLOW_CONFIG, else the user's or the system's file.

A setting is here because an operator needs it; each is described in docs/configuration.md from this text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oslo_config import cfg

from resizeflow.errors import UsageError

DEFAULT = [
    cfg.StrOpt("state_path", help="Folder of the default database. By XDG rules: ~/.local/state/resizeflow."),
    cfg.BoolOpt("allow_resize_to_same_host", default=True, help="May a resize stay on its host (Nova's option)."),
    cfg.FloatOpt("shutdown_timeout", default=60.0, min=0, help="Seconds a guest gets to shut down cleanly."),
    cfg.StrOpt(
        "transfer",
        default="auto",
        choices=["auto", "direct", "stream"],
        help="How disks go from pool to pool: host to host, through the worker, or the first with the second "
        "as fallback.",
    ),
    cfg.IntOpt("bandwidth", default=0, min=0, help="Limit of a transfer in MiB/s per disk; 0 is no limit."),
    cfg.FloatOpt(
        "stall_timeout",
        default=60.0,
        min=1,
        help="Seconds without progress after which a transfer is ended and begun again.",
    ),
    cfg.FloatOpt(
        "resize_confirm_window",
        default=0.0,
        min=0,
        help="Seconds after which a worker confirms a resize that nobody decides (Nova's option); 0: never.",
    ),
    cfg.StrOpt(
        "on_crash",
        default="resume",
        choices=["resume", "rollback"],
        help="What becomes of a resize, migration or revert whose worker died: the next worker goes on with it, or "
        "undoes it if it is not past its point of no return.",
    ),
]
DATABASE = [
    cfg.StrOpt("connection", secret=True, help="SQLAlchemy URL. Default: an SQLite file in state_path."),
]
AUDIT = [
    cfg.StrOpt(
        "key_file",
        help="The secret that protects the event log, a line of 64 hexadecimal digits. Default: audit.key in "
        "state_path, made on first use. All programs that share a database need the same one.",
    ),
]
WORKER = [
    cfg.FloatOpt("lease_seconds", default=120.0, min=2, help="How long a job stays with a worker that is silent."),
    cfg.FloatOpt(
        "act_timeout",
        default=30.0,
        min=1,
        help="Seconds after which an effect on a host counts as unknown and is looked at again.",
    ),
    cfg.FloatOpt("look_timeout", default=15.0, min=1, help="Seconds a host gets to answer a question."),
    cfg.FloatOpt(
        "fence_window",
        default=30.0,
        min=0,
        help="Seconds in which libvirtd drops a silent client: "
        "keepalive_interval * (keepalive_count + 1) of libvirtd.conf (5 * 6 by default).",
    ),
    cfg.FloatOpt(
        "host_patience",
        default=60.0,
        min=0,
        help="Seconds a silent host is asked again before a resize turns back (destination) or waits (source).",
    ),
    cfg.IntOpt(
        "max_attempts",
        default=8,
        min=1,
        help="How often a job is taken up again without progress before it needs attention.",
    ),
    cfg.StrOpt(
        "server_events",
        help="HOST:PORT at which a worker listens to what Neutron and Cinder tell Nova, so that it knows at once what "
        "it looks for every two seconds. Without it nobody listens. Who reaches it can make workers look, no more.",
    ),
    cfg.StrOpt(
        "metrics",
        help="HOST:PORT at which a worker shows Prometheus its metrics, best on loopback: 127.0.0.1:9464. Without it "
        "there are none. Who reaches it can read how much is done, and nothing of machines.",
    ),
    cfg.BoolOpt(
        "traces",
        default=False,
        help="Whether a worker, also that of a command, sends OpenTelemetry a span for each run of a job and of a "
        "task, to where the environment says (OTEL_EXPORTER_OTLP_ENDPOINT). Needs the extra `traces`.",
    ),
]
QUOTA = [
    cfg.IntOpt("instances", default=-1, min=-1, help="Default limit of machines per project; -1 is no limit."),
    cfg.IntOpt("cores", default=-1, min=-1, help="Default limit of vCPUs per project."),
    cfg.IntOpt("ram", default=-1, min=-1, help="Default limit of memory per project, in MiB."),
    cfg.IntOpt("gigabytes", default=-1, min=-1, help="Default limit of local disk per project, in GiB."),
]
NOTIFICATIONS = [
    cfg.StrOpt(
        "transport_url",
        secret=True,
        help="Where notifications are sent: rabbit://user:password@host:port/vhost. Without it they are recorded only.",
    ),
    cfg.ListOpt(
        "versioned_notifications_topics",
        default=["versioned_notifications"],
        help="The topics they are sent to (Nova's option); the queues are TOPIC.info and TOPIC.error.",
    ),
    cfg.StrOpt(
        "notify_on_state_change",
        choices=["vm_state", "vm_and_task_state"],
        help="Whether a change of state is an instance.update (Nova's option); by default none is.",
    ),
    cfg.IntOpt("keep_days", default=30, min=1, help="Days after which notifications that are sent are forgotten."),
]
SCHEDULER = [
    cfg.FloatOpt("ram_weight_multiplier", default=1.0, help="How much free memory counts; negative: fill hosts up."),
    cfg.FloatOpt("cpu_weight_multiplier", default=1.0, help="How much free vCPUs count."),
    cfg.FloatOpt("disk_weight_multiplier", default=1.0, help="How much free disk counts."),
    cfg.FloatOpt("moves_weight_multiplier", default=1.0, help="How much it counts that few moves are in flight."),
    cfg.IntOpt("max_attempts", default=3, min=1, help="Hosts that a move may try: the chosen one and its alternates."),
]
CINDER = [
    cfg.StrOpt(
        "auth_type",
        help="How to log in to Cinder: a plugin of keystoneauth, such as `password`, whose own options go beside it; "
        "`noauth` for a Cinder without Keystone. Without it there is no Cinder.",
    ),
    cfg.StrOpt("endpoint", help="With `noauth`: where Cinder is, http://HOST:8776/v3."),
]
NEUTRON = [
    cfg.StrOpt(
        "auth_type",
        help="How to log in to Neutron, as in section [cinder]; `noauth` for a Neutron without Keystone. Without it "
        "there is no Neutron: machines are plugged into bridges, by their names.",
    ),
    cfg.StrOpt("endpoint", help="With `noauth`: where Neutron is, http://HOST:9696."),
    cfg.FloatOpt(
        "vif_plugging_timeout",
        default=300.0,
        min=0,
        help="Seconds for which a machine that was started, and does not run yet, waits for the agent of its host to "
        "plug its ports in, before the resize turns back (Nova's option); 0: it does not wait.",
    ),
]
GROUPS = {
    "DEFAULT": DEFAULT,
    "database": DATABASE,
    "audit": AUDIT,
    "worker": WORKER,
    "quota": QUOTA,
    "notifications": NOTIFICATIONS,
    "scheduler": SCHEDULER,
    "cinder": CINDER,
    "neutron": NEUTRON,
}


_ADDRESS = re.compile(r"(?:[^\s:/@\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")
_WORD = r"(?:[^/@,:\s%]|%(?!2[fF]))"
_BROKER = rf"(?:{_WORD}+(?::{_WORD}*)?@)?(?:{_WORD}+|\[[0-9a-fA-F:.]+\])(?::\d{{1,5}})?"
TRANSPORT_URL = re.compile(rf"rabbit://{_BROKER}(?:,{_BROKER})*(?:/[^/\s]*)?")


@dataclass(frozen=True)
class Notifications:
    """What is told to others, and how. Without a `transport_url` nothing is sent."""

    transport_url: str | None = field(default=None, repr=False)
    topics: tuple[str, ...] = ("versioned_notifications",)
    notify_on_state_change: str | None = None
    keep_days: int = 30
    file: Path | None = None
    """Where oslo.messaging reads its own sections."""

    def __post_init__(self) -> None:
        # Before anything can be made of it that would show a part of the password.
        if self.transport_url is not None and not TRANSPORT_URL.fullmatch(self.transport_url):
            raise UsageError(
                "[notifications] transport_url is not rabbit://user:password@host:port/vhost (several hosts: with "
                "commas); in a password write %40 for @, %3A for : and %2C for a comma; a / in it cannot be used, "
                "oslo.messaging does not take it."
            )


@dataclass(frozen=True)
class OpenStackService:
    """Whether there is a Cinder, or a Neutron, and where its driver reads how to reach it."""

    name: str
    auth_type: str | None = None
    endpoint: str | None = None
    file: Path | None = None
    """Where keystoneauth reads its own options."""

    @property
    def uri(self) -> str | None:
        """What `drivers.connect` takes, None without the service. `sim:///FILE?host=NAME` is the simulator's."""
        if self.auth_type is None:
            return None
        if (self.endpoint or "").startswith("sim:"):
            return self.endpoint
        return f"{self.name}://{self.file.absolute() if self.file else ''}"


@dataclass(frozen=True)
class Scheduling:
    """How hosts are weighed, and how many of them a move may try."""

    ram_weight_multiplier: float = 1.0
    cpu_weight_multiplier: float = 1.0
    disk_weight_multiplier: float = 1.0
    moves_weight_multiplier: float = 1.0
    max_attempts: int = 3


@dataclass(frozen=True)
class Settings:
    """The settings in force. Times in seconds; `bandwidth` in bytes a second."""

    connection: str
    allow_resize_to_same_host: bool
    shutdown_timeout: float
    transfer: str
    bandwidth: int
    stall_timeout: float
    resize_confirm_window: float
    on_crash: str
    lease_seconds: float
    act_timeout: float
    look_timeout: float
    fence_window: float
    host_patience: float
    max_attempts: int
    quota: dict[str, int]
    scheduler: Scheduling
    notifications: Notifications
    services: Mapping[str, OpenStackService]
    """By their names, `cinder` and `neutron`."""
    vif_plugging_timeout: float
    audit_key_file: Path
    server_events: str | None = None
    """Where a worker listens to Neutron and Cinder, `HOST:PORT`."""
    metrics: str | None = None
    """Where a worker shows its metrics, `HOST:PORT`."""
    traces: bool = False
    file: Path | None = None
    """The configuration file, where libraries read options of their own."""

    def __post_init__(self) -> None:
        if self.lease_seconds * 2 / 3 <= self.act_timeout + self.fence_window:
            raise UsageError(
                f"[worker] lease_seconds = {self.lease_seconds:g} is too short: two thirds of it must be longer "
                f"than act_timeout + fence_window = {self.act_timeout + self.fence_window:g} seconds. Raise "
                "lease_seconds or lower the others."
            )
        for name in ("server_events", "metrics"):
            address = getattr(self, name)
            if address is not None and not (_ADDRESS.fullmatch(address) and int(address.rpartition(":")[2]) < 2**16):
                raise UsageError(f"[worker] {name} = {address} is not of the form HOST:PORT.")


def config_file(given: str | None) -> Path | None:
    """The configuration file in force: the one given must exist, the usual places may be empty."""
    named = given or os.environ.get("RESIZEFLOW_CONFIG")
    if named:
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for place in (home / "resizeflow" / "resizeflow.conf", Path("/etc/resizeflow/resizeflow.conf")):
        if place.exists():
            return place
    return None


def state_path(configured: str | None) -> Path:
    """Where the default database lives (XDG base directory specification)."""
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "resizeflow"


def load(given: str | None = None) -> Settings:
    """Reads the settings. Raises UsageError naming the file and what is wrong in it."""
    conf = cfg.ConfigOpts()
    for group, options in GROUPS.items():
        conf.register_opts(options, group=None if group == "DEFAULT" else group)
    path = config_file(given)
    try:
        conf(args=[], project="resizeflow", default_config_files=[str(path)] if path else [])
        return Settings(
            connection=conf.database.connection or f"sqlite:///{state_path(conf.state_path) / 'resizeflow.sqlite'}",
            allow_resize_to_same_host=conf.allow_resize_to_same_host,
            shutdown_timeout=conf.shutdown_timeout,
            transfer=conf.transfer,
            bandwidth=conf.bandwidth * 1024 * 1024,
            stall_timeout=conf.stall_timeout,
            resize_confirm_window=conf.resize_confirm_window,
            on_crash=conf.on_crash,
            lease_seconds=conf.worker.lease_seconds,
            act_timeout=conf.worker.act_timeout,
            look_timeout=conf.worker.look_timeout,
            fence_window=conf.worker.fence_window,
            host_patience=conf.worker.host_patience,
            max_attempts=conf.worker.max_attempts,
            quota={option.name: conf.quota[option.name] for option in QUOTA},
            scheduler=Scheduling(**{option.name: conf.scheduler[option.name] for option in SCHEDULER}),
            notifications=Notifications(
                transport_url=conf.notifications.transport_url or None,
                topics=tuple(conf.notifications.versioned_notifications_topics),
                notify_on_state_change=conf.notifications.notify_on_state_change,
                keep_days=conf.notifications.keep_days,
                file=path,
            ),
            services={name: _service(conf, name, path) for name in ("cinder", "neutron")},
            vif_plugging_timeout=conf.neutron.vif_plugging_timeout,
            audit_key_file=Path(conf.audit.key_file or state_path(conf.state_path) / "audit.key").expanduser(),
            server_events=conf.worker.server_events or None,
            metrics=conf.worker.metrics or None,
            traces=conf.worker.traces,
            file=path,
        )
    except UsageError as error:
        raise UsageError(f"The configuration {path} cannot be used: {error}") from None
    except (cfg.Error, ValueError, OSError) as error:
        raise UsageError(f"The configuration {path} cannot be used: {what_is_wrong(error)}") from None


def _service(conf: cfg.ConfigOpts, name: str, file: Path | None) -> OpenStackService:
    return OpenStackService(name, conf[name].auth_type or None, conf[name].endpoint or None, file)


def what_is_wrong(error: Exception) -> str:
    """oslo.config's words, on one line, without the place, which it shows as an object."""
    return re.sub(r" from LocationInfo\(.*detail='[^']*'\)", "", " ".join(str(error).split()))
