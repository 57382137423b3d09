"""The worker's way to a host's bridges: nothing stays open, each call is a command or a few."""

from __future__ import annotations

import logging
import shutil
import time
from typing import Any, NoReturn

from resizeflow.drivers.bridge import EFFECTS
from resizeflow.drivers.interface import DriverError, Fence, Unknown, Unreachable
from resizeflow.drivers.shell.bridges import ShellBridges
from resizeflow.drivers.shell.runner import Runner, words_of

LOG = logging.getLogger(__name__)


class ShellConnection:
    """A `Connection` by the words of a host's shell. Threads may share it: their calls go side by side."""

    def __init__(self, shell: str) -> None:
        self._shell = shell

    def open(self, timeout: float) -> None:  # noqa: ARG002 - there is nothing to wait for
        """Raises `Unreachable` if the words are none, or no program of that name is here."""
        program = self._words()[0]
        if shutil.which(program) is None:
            raise Unreachable(f"{self._shell}: there is no program {program} here.")

    def call(self, method: str, args: tuple[Any, ...], *, timeout: float, fence: Fence | None = None) -> Any:
        """Calls a look or an act. See `Connection.call`."""
        if method not in EFFECTS:
            raise ValueError(f"{method} is no question to bridges.")
        if fence is not None:
            LOG.debug("%s: %s for job %s under epoch %d", self._shell, method, fence.job_id, fence.epoch)
        runner = Runner(self._words(), time.monotonic() + timeout, fence)
        try:
            return getattr(ShellBridges(runner), method)(*args)
        except DriverError:
            raise
        except Exception as error:
            name = type(error).__name__
            raise Unknown(f"{self._shell}: {method} failed in the driver: {name}: {error}.") from error

    def watch(self, method: str, args: tuple[Any, ...], *, fence: Fence | None = None) -> NoReturn:  # noqa: ARG002
        """Bridges do nothing that is watched."""
        raise ValueError(f"{method} is to be called, not watched.")

    def close(self) -> None:
        """Nothing stays open."""

    def _words(self) -> tuple[str, ...]:
        try:
            return tuple(words_of(self._shell))
        except ValueError as error:
            raise Unreachable(f"'{self._shell}' is no shell: {error}.") from None
