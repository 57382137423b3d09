"""Sending notifications with oslo.messaging. Importing it takes a while, so only who sends does.

Not through oslo.messaging's own `Notifier`: it logs and swallows what goes wrong, the payload included, and gives each
message an id of its own. The transport below it raises, once the broker has refused a message or not confirmed it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from oslo_config import cfg
from oslo_service import backend

from resizeflow.config import Notifications
from resizeflow.errors import UsageError

# Before oslo.messaging is imported, or it takes eventlet, which is never loaded here.
backend.init_backend(backend.BackendType.THREADING)

import oslo_messaging  # noqa: E402
from oslo_messaging import opts  # noqa: E402

EXCHANGE = "resizeflow"
"""The default of oslo.messaging's `control_exchange`."""
RABBIT = "oslo_messaging_rabbit"
"""The section of oslo.messaging's options of RabbitMQ."""
PUBLISHER = "resizeflow"
FORMAT = 2.0
"""Of the message: that of `messagingv2`."""


class NotSent(Exception):
    """The broker did not take a message, or did not say that it has."""


class Letter(Protocol):
    """What is sent."""

    @property
    def message_id(self) -> str: ...
    @property
    def event_type(self) -> str: ...
    @property
    def priority(self) -> str: ...
    @property
    def payload(self) -> Mapping[str, Any]: ...
    @property
    def created_at(self) -> datetime: ...


class Notifier:
    """A connection to the broker, opened when it is first needed. For one thread."""

    def __init__(self, settings: Notifications) -> None:
        """Raises UsageError if oslo.messaging's own options in the file cannot be used."""
        url = settings.transport_url or ""
        # It logs each attempt; we say once that nothing can be sent.
        logging.getLogger("oslo.messaging").setLevel(logging.CRITICAL)
        self._secrets = _passwords(url)
        self._topics = settings.topics
        oslo_messaging.set_transport_defaults(control_exchange=EXCHANGE)
        conf = cfg.ConfigOpts()
        conf.register_opts(dict(opts.list_opts())[RABBIT], group=RABBIT)
        # What is sent survives a restart of the broker, unless the file wants it otherwise.
        conf.set_default("amqp_durable_queues", True, group=RABBIT)
        try:
            conf(args=[], project="resizeflow", default_config_files=[str(settings.file)] if settings.file else [])
            dict(conf[RABBIT])  # All of them are read now: a wrong one would be found at the first message.
            self._transport = oslo_messaging.get_notification_transport(conf, url=url)
        except (cfg.Error, ValueError) as error:
            raise UsageError(f"The configuration {settings.file} cannot be used: {self._cleaned(error)}.") from None

    def send(self, letter: Letter) -> None:
        """Returns once the broker has confirmed it on every topic. Raises NotSent."""
        message = {
            "message_id": letter.message_id,
            "publisher_id": PUBLISHER,
            "event_type": letter.event_type,
            "priority": letter.priority,
            "payload": letter.payload,
            "timestamp": str(letter.created_at.astimezone(UTC).replace(tzinfo=None)),
        }
        try:
            for topic in self._topics:
                target = oslo_messaging.Target(topic=f"{topic}.{letter.priority.lower()}")
                self._transport._send_notification(target, {}, dict(message), version=FORMAT, retry=0)
        except Exception as error:
            raise NotSent(self._cleaned(error)) from None

    def close(self) -> None:
        """Ends the connection."""
        self._transport.cleanup()

    def _cleaned(self, error: Exception) -> str:
        """What went wrong, on one line, without the user's password."""
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text.rstrip(".")


def _passwords(url: str) -> tuple[str, ...]:
    """Those in a URL, of each of its hosts, as they are written and as they are meant; longest first."""
    users = (host.rpartition("@")[0] for host in urlsplit(url).netloc.split(","))
    written = [password for user in users if (password := user.partition(":")[2])]
    return tuple(sorted({*written, *map(unquote, written)}, key=len, reverse=True))
