"""Where the chain of the seals ended, signed, to be kept elsewhere: who puts a whole database back, or cuts the seals
and everything off together, cannot change what was written down on another machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC
from pathlib import Path

from resizeflow.errors import UsageError
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.chain import GENESIS, head_signature, is_same
from resizeflow.persistence.models import SEALS, EventLog
from resizeflow.persistence.transaction import Transaction


@dataclass(frozen=True)
class Head:
    """The seals' end at a moment."""

    number: int
    """Of the last seal; 0 if there was none."""
    chain: str
    at: str
    """The moment, ISO 8601 in UTC."""
    key: str
    """The fingerprint of the key."""
    signature: str


def head_of(tx: Transaction) -> Head:
    """The present one. Raises UsageError without the key."""
    log, key = tx.session.get(EventLog, SEALS), tx.audit_key
    number, chain = (log.seq, log.chain) if log else (0, GENESIS)
    head = Head(number, chain, tx.now().astimezone(UTC).isoformat(timespec="seconds"), key.fingerprint, "")
    return replace(head, signature=head_signature(key, asdict(head)))


def line_of(head: Head) -> str:
    """A head as it is kept: a line of JSON."""
    return json.dumps(asdict(head))


def read_heads(file: Path, key: AuditKey) -> list[Head]:
    """The heads of a file, one a line. Raises UsageError if it cannot be read, or one of them was not signed with
    this key."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        heads = [Head(**json.loads(line)) for line in lines]
    except OSError as error:
        raise UsageError(f"The head {file} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError):
        raise UsageError(f"{file} is not what `resizeflow audit head` wrote: a line of JSON for each head.") from None
    if not heads:
        raise UsageError(f"There is no head in {file}: `resizeflow audit head` writes one.")
    for head in heads:
        if head.key != key.fingerprint:
            raise UsageError(
                f"The head of {head.at} in {file} was signed with the audit key {head.key}, and {key.file} holds "
                f"{key.fingerprint}: set [audit] key_file to the file with that key."
            )
        if not is_same(head.signature, head_signature(key, asdict(head))):
            raise UsageError(f"The signature of the head of {head.at} in {file} is false: somebody changed the file.")
    return heads
