"""The postman: sends what the outbox holds, one worker's at a time, in order, until the broker has confirmed it.

At least once: what was sent and not yet marked when its worker died is sent again, with the same message id. It has a
thread of its own, so a broker that is away, or hangs, delays what is told and never what is done.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from resizeflow.clock import Clock
from resizeflow.config import Notifications
from resizeflow.persistence import next_actions
from resizeflow.persistence.database import AWAY, Database, in_short
from resizeflow.persistence.outbox import LINE
from resizeflow.states import Outcome

if TYPE_CHECKING:
    from resizeflow.persistence.models import Notification
    from resizeflow.persistence.transaction import Transaction

LOG = logging.getLogger(__name__)
BATCH = 50
"""So many are sent and then marked in one transaction; at most so many are sent twice after a crash."""
ROUND = 1.0
"""Seconds between two looks at the outbox."""
LONGEST = 60.0
"""Seconds between two tries at most, while the broker is away."""
LAST = 5.0
"""Seconds that the end of a worker waits for the last round."""


class Postman:
    """One worker's postman, in a thread of its own."""

    def __init__(self, database: Database, settings: Notifications, clock: Clock, name: str, lease: float) -> None:
        """`lease`: seconds for which it has the post to itself. Raises UsageError for options of oslo.messaging that
        cannot be used."""
        from resizeflow.drivers.notifier import Notifier  # noqa: PLC0415 - oslo.messaging is slow to import

        self._database = database
        self._clock = clock
        self._name = name
        self._lease = lease
        self._notifier = Notifier(settings)
        self._stop = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._deliver, name="postman", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Lets a last round end, in bounded time."""
        self._stop.set()
        self._thread.join(LAST)

    def _deliver(self) -> None:
        stopping = False
        while not stopping:
            # What was written before we were told to stop is still sent, if there is anybody to send it to.
            stopping = self._stop.is_set()
            if stopping and self._failures:
                break
            try:
                self.round()
            except AWAY as error:
                LOG.warning("The database does not answer: %s", in_short(error))
            except Exception:
                LOG.exception("Notifications could not be sent")
            if not stopping:
                self._stop.wait(min(ROUND * 2**self._failures, LONGEST))
        self.leave()

    def round(self) -> None:
        """Sends all that waits, if nobody else does."""
        while self._send_some():
            pass

    def _send_some(self) -> bool:
        """One batch; whether there may be more."""
        with self._database.read() as tx:
            state, waiting = tx.delivery.state(), tx.delivery.due(1)
        if not waiting and (state is None or state.error is None):
            return False
        until = self._clock.boottime() + self._lease
        with self._database.write() as tx:
            if not tx.delivery.take(self._name, self._lease):
                return False
        with self._database.read() as tx:
            batch = tx.delivery.due(BATCH)
        sent, error = self._send(batch, until)
        with self._database.write() as tx:
            if tx.delivery.sent(sent, error):
                _tell_turn(tx, error)
        self._tell(error)
        return error is None and len(batch) == BATCH

    def _send(self, batch: Sequence[Notification], until: float) -> tuple[list[int], str | None]:
        """What of a batch the broker has confirmed, and what stopped it. The order is kept: nothing is passed over."""
        from resizeflow.drivers.notifier import NotSent  # noqa: PLC0415 - as above

        sent: list[int] = []
        for row in batch:
            if self._clock.boottime() >= until:
                break  # The lease may have ended: somebody else sends the rest.
            try:
                self._notifier.send(row)
            except NotSent as error:
                return sent, str(error)
            sent.append(row.id)
        return sent, None

    def _tell(self, error: str | None) -> None:
        if error is None:
            if self._failures:
                LOG.info("Notifications are sent again")
            self._failures = 0
            return
        if not self._failures:
            LOG.warning("Notifications wait, the broker does not take them: %s", error)
        self._failures = min(self._failures + 1, 10)

    def leave(self) -> None:
        """Gives the post up for the next one, and ends the connection."""
        with contextlib.suppress(*AWAY), self._database.write() as tx:
            tx.delivery.leave(self._name)
        self._notifier.close()


def _tell_turn(tx: Transaction, error: str | None) -> None:
    """A line of the fleet's log: since when others are not told, and since when they are again."""
    if error is None:
        tx.events.fleet(LINE, "notifications are sent again", transition="failing -> sending", outcome=Outcome.OK)
        return
    tx.events.fleet(
        LINE,
        "notifications cannot be sent, and wait",
        transition="sending -> failing",
        outcome=Outcome.FAILED,
        error=error,
        next_action=next_actions.of_post(),
    )


def forget_old(database: Database, settings: Notifications, clock: Clock) -> None:
    """Forgets notifications that were sent, or were only recorded, longer ago than they are kept."""
    before = clock.now() - timedelta(days=settings.keep_days)
    with database.read() as tx:
        old = tx.delivery.has_old(before)
    if old:
        with database.write() as tx:
            LOG.info("%d old notifications are forgotten", tx.delivery.forget(before))
