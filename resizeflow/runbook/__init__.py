"""What to do about each error and each alarm: pages for people (`resizeflow runbook`), and which error leads to which.

A page is a file beside this one, PAGE.md. docs/runbook.md lists them. Every error has its page: a test asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

UNEXPECTED = "unexpected-error"
ATTENTION = "needs-attention"
WAITS = "waits"
ROLLED_BACK = "rolled-back"
NOT_SENT = "notifications-not-sent"
DEBTS = "debts"

PAGE_OF_ERROR: Mapping[str, str] = {
    "ResizeflowError": UNEXPECTED,
    "UsageError": "usage-error",
    "DatabaseNotOpened": "database-away",
    "NotFound": "not-found",
    "InstanceNotFound": "not-found",
    "ComputeHostNotFound": "not-found",
    "FlavorNotFound": "not-found",
    "NeedsAttention": ATTENTION,
    "RuleError": "refused",
    "Conflict": "refused",
    "InstanceIsLocked": "instance-is-locked",
    "InstanceInvalidState": "instance-invalid-state",
    "InstanceNotReady": "domain-missing",
    "ServiceUnavailable": "host-away",
    "CinderConnectionFailed": "cinder-away",
    "NeutronConnectionFailed": "neutron-away",
    "MigrationPreCheckError": "cannot-be-moved",
    "FlavorImageConflict": "cannot-be-moved",
    "InvalidVolume": "invalid-volume",
    "InvalidPort": "invalid-port",
    "InstanceUpdateConflict": "instance-update-conflict",
    "InvalidMigrationState": "invalid-migration-state",
    "MigrationNotFoundByStatus": "migration-not-found-by-status",
    "CannotMigrateToSameHost": "same-host",
    "UnableToMigrateToSelf": "same-host",
    "CannotResizeToSameFlavor": "cannot-resize",
    "CannotResizeDisk": "cannot-resize",
    "ResizeError": "cannot-resize",
    "OverQuota": "over-quota",
    "TooManyInstances": "over-quota",
    "NoValidHost": "no-valid-host",
    "Interrupted": "interrupted",
    "RolledBack": ROLLED_BACK,
    "LogBroken": "log-broken",
    "NotArchived": "not-archived",
    "Breached": "breaches",
    "Away": "host-away",
    "HostAway": "host-away",
    "ServiceAway": "cinder-away",
    "CinderAway": "cinder-away",
    "NeutronAway": "neutron-away",
    "DriverError": UNEXPECTED,
    "Unreachable": "host-away",
    "StorageAway": "volume-open",
}
"""The page of each error of ours that a command may end with, by the error's name."""

PAGE_OF_INVARIANT: Mapping[int, str] = {
    1: "two-copies",
    2: "invariant-2",
    3: "invariant-3",
    4: "invariant-4",
    5: "invariant-5",
    6: "invariant-6",
    7: "invariant-7",
    8: "invariant-8",
    9: "log-broken",
    10: "invariant-10",
}
"""The page of what `resizeflow doctor` finds."""

PAGE_OF_REASON: Mapping[str, str] = {
    r"database was restored from a backup": "after-restore",
    r"cannot be rebuilt|does not know flow": "unknown-flow",
    r"started it|is up on \S+ as well|although it is retired|read back as retired": "two-copies",
    r"nothing is deleted": "nothing-deleted",
    r"has no domain|vanished from": "domain-missing",
    r"still (?:be )?open|hangs in its start": "volume-open",
    r"plugged in on|binding .*no sign of it": "port-not-plugged-in",
    r"\bCinder (?:does not answer|is not)": "cinder-away",
    r"\bNeutron (?:does not answer|is not)": "neutron-away",
    r"database does not answer": "database-away",
    r"host \S+ does not answer|no proof that \S+ is off|passwords are only there": "host-away",
}
"""What a job says of why it waits, stopped or was rolled back (a pattern) → the page; the first that is found."""


def page_of(error: BaseException) -> str:
    """The page of an error that a command ends with: its own `page`, if it has one, else that of its class. Of one
    about a job it is the page of the job's reason."""
    if own := getattr(error, "page", None):
        return str(own)
    page = next((PAGE_OF_ERROR[name] for name in _names(error) if name in PAGE_OF_ERROR), UNEXPECTED)
    return page_of_reason(str(error), page) if page in (ATTENTION, ROLLED_BACK) else page


def page_of_reason(reason: str, otherwise: str) -> str:
    """The page of why a job waits, stopped or was rolled back."""
    return next((page for pattern, page in PAGE_OF_REASON.items() if re.search(pattern, reason)), otherwise)


def page_of_invariants(numbers: set[int]) -> str:
    """The page of what the doctor found, which breaks these invariants."""
    pages = {PAGE_OF_INVARIANT[number] for number in numbers}
    return pages.pop() if len(pages) == 1 else "breaches"


def command_for(page: str) -> str:
    """What to type to read a page."""
    return f"resizeflow runbook {page}"


def pages() -> dict[str, str]:
    """All pages, by name: what each is about, its heading."""
    found = sorted(Path(__file__).parent.glob("*.md"))
    return {path.stem: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for path in found}


def text_of(page: str) -> str:
    """A page, in Markdown. Raises FileNotFoundError."""
    return Path(__file__).with_name(f"{page}.md").read_text(encoding="utf-8")


def _names(error: BaseException) -> list[str]:
    """The error's class and what it comes of, the nearest first; only ours, as other libraries have a NotFound, too."""
    return [kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] == "resizeflow"]
