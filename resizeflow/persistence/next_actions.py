"""What an operator does about an error or an alarm, as the event log says it: a sentence, and the runbook's page."""

from __future__ import annotations

from collections.abc import Mapping

from resizeflow.runbook import ATTENTION, DEBTS, NOT_SENT, ROLLED_BACK, WAITS, command_for, page_of_reason

WAITING: Mapping[str, str] = {
    "host-away": "bring the host back: the job then goes on by itself",
    "cinder-away": "see that Cinder answers: the job then goes on by itself",
    "neutron-away": "see that Neutron answers: the job then goes on by itself",
    "database-away": "see that the database answers: the job then goes on by itself",
    "volume-open": "the job goes on when the volume is closed there",
}
"""By page: what ends a wait. All others end by themselves."""
FAILED: Mapping[str, str] = {
    "host-away": "bring the host back, or choose another one, then ask again",
    "port-not-plugged-in": "see to the network agent of that host, then ask again",
}
"""By page: what to do after a rollback, beside putting right what the error says."""


def of_debt() -> str:
    """What was left behind where nobody answered."""
    return _with_page("nothing: a worker removes what was left behind when it can", DEBTS)


def of_post() -> str:
    """Notifications that the broker does not take."""
    return _with_page("bring the broker back: what waits is sent then", NOT_SENT)


def of_wait(reason: str) -> str:
    """What ends the wait of a job."""
    page = page_of_reason(reason, WAITS)
    return _with_page(WAITING.get(page, "nothing: the job is tried again by itself"), page)


def of_failure(reason: str) -> str:
    """After a task has failed: its flow is being undone."""
    page = page_of_reason(reason, ROLLED_BACK)
    return _with_page(FAILED.get(page, "put right what the error says, then ask again"), page)


def of_attention(reason: str) -> str:
    """A job that goes on only when a person has decided."""
    page = page_of_reason(reason, ATTENTION)
    return _with_page("put right what the reason says, then `resizeflow migration resume`", page)


def _with_page(sentence: str, page: str) -> str:
    return f"{sentence} (`{command_for(page)}`)"
