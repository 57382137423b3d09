"""resizeflow: resize and cold migration of libvirt machines that cannot be left half done."""

from __future__ import annotations

import sys

__version__ = "0.1.0"

# oslo.messaging brings eventlet along and TaskFlow imports it wherever it is: it warns, and it does not stand a fork.
# Workers are real threads and real processes.
sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]
