"""The phases of a resize in which hosts are made to fail, and how a job is seen through afterwards."""

from __future__ import annotations

from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker
from tests.fleet import Fleet

IMPATIENT = {"act_timeout": "8", "look_timeout": "5", "host_patience": "4", "shutdown_timeout": "15"}
RESIZE = {
    "before-power-off": "PrepareDestination.RUNNING.after",
    "power-off": "PowerOffSource.shutdown#1.before",
    "retire": "RetireSource.define#1.before",
    "transfer": "TransferDisks.commit.progress#1.after",
    "define": "DefineDestination.define#1.before",
    "start": "StartDestination.start_paused#1.before",
    "pivot": "StartDestination.commit.pivot#1.after",
    "finish": "FinishResize.RUNNING.after",
}


def waits_or_ended(fleet: Fleet, job: Submitted) -> bool:
    now = fleet.job(job)
    return now.state is JobState.DONE or (now.state is JobState.QUEUED and now.reason is not None)


def by_address(fleet: Fleet, on: bool) -> None:
    """How the hosts are known: by their addresses, or by their sockets, as a worker in this process needs it."""
    for host in fleet.lab.hosts:
        fleet.inventory.set_host(host.name, uri=host.peer_uri if on else host.uri)


def settle(fleet: Fleet) -> None:
    """What was left on a host is removed now that it answers."""
    with Worker(fleet.database, fleet.settings) as worker:
        worker.drain()
    with fleet.database.read() as tx:
        assert not tx.debts.open(), "debts stay although the hosts answer"
