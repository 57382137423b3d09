"""The worker's two clocks, replaceable in tests.

Leases end by the database's clock (`persistence.jobs`); what this process may still do is counted on
CLOCK_BOOTTIME, which goes on while the machine sleeps.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """The real clocks."""

    def now(self) -> datetime:
        """The time of day, aware, UTC."""
        return datetime.now(UTC)

    def boottime(self) -> float:
        """Seconds on a clock that never jumps and never stops."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Waits for an event, at most so long; whether it has happened."""
        return event.wait(seconds)
