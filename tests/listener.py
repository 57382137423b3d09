"""A listener of others: oslo.messaging's own, on a real broker."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from oslo_config import cfg

# It chooses oslo.service's backend, which must be chosen before oslo.messaging is imported.
from resizeflow.drivers import notifier  # isort: skip
import oslo_messaging

SECONDS = 120.0


class Heard(NamedTuple):
    """A notification as it came."""

    event_type: str
    message_id: str
    priority: str
    payload: dict[str, Any]

    @property
    def sequence(self) -> int:
        number: int = self.payload["nova_object.data"]["sequence"]
        return number


class Listener:
    """Hears all of a topic, one after the other (oslo.messaging's listeners have 64 threads otherwise)."""

    def __init__(self, url: str, topic: str, folder: Path) -> None:
        conf = folder / "listener.conf"
        conf.write_text(
            "[DEFAULT]\nexecutor_thread_pool_size = 1\n[oslo_messaging_rabbit]\namqp_durable_queues = true\n"
        )
        options = cfg.ConfigOpts()
        options(args=[], default_config_files=[str(conf)])
        self.heard: list[Heard] = []
        self._transport = oslo_messaging.get_notification_transport(options, url=url)
        target = oslo_messaging.Target(topic=topic, exchange=notifier.EXCHANGE)
        self._server = oslo_messaging.get_notification_listener(self._transport, [target], [self], executor="threading")

    def info(self, _context: Any, _publisher: str, event_type: str, payload: Any, metadata: dict[str, Any]) -> None:
        self.heard.append(Heard(event_type, metadata["message_id"], "INFO", payload))

    def error(self, _context: Any, _publisher: str, event_type: str, payload: Any, metadata: dict[str, Any]) -> None:
        self.heard.append(Heard(event_type, metadata["message_id"], "ERROR", payload))

    def wait_for(self, count: int) -> list[Heard]:
        """What was heard, once there are so many, and a moment later, so that one too many is seen."""
        deadline = time.monotonic() + SECONDS
        while len(self.heard) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        return list(self.heard)

    def __enter__(self) -> Listener:
        self._server.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()
