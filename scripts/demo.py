"""The demo: a resize that loses its worker in the middle of the disk transfer. With `--volumes` another one."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from typing import Any

import demo_volumes
from story import GIB, GUEST, ClaimError, Story, ask, columns, nothing_done_twice, run

from lab.domain import DiskSpec
from lab.guest import Guest
from lab.lab import Lab

OLD = {"vcpus": 1, "memory_mb": 256, "disk_gb": 1}
NEW = {"vcpus": 2, "memory_mb": 512, "disk_gb": 2}


def tell(story: Story, lab: Lab) -> None:
    """The story, from the first host to the last trace."""
    guest, before = boot_and_adopt(story, lab)
    migration = lose_the_worker(story, lab, guest)
    resume(story, guest, before, migration)
    confirm(story, lab, guest, migration)


def boot_and_adopt(story: Story, lab: Lab) -> tuple[Guest, dict[str, Any]]:
    """Two hosts, a guest that runs on the first, all under management."""
    story.chapter(
        "Two hosts and a guest",
        "Two real libvirt hosts come up on this machine, each with its own libvirtd, network and storage pool. "
        f"On the first one a small guest boots, {GUEST}: it counts its boots on its disk, and keeps data there of "
        "which it knows the checksum.",
    )
    lab.up(hosts=2)
    h1 = lab.host("h1")
    disk = DiskSpec(OLD["disk_gb"], "raw")
    guest = Guest(lab, GUEST).create(h1, vcpus=OLD["vcpus"], memory_mb=OLD["memory_mb"], disks=[disk])
    before = guest.wait_report(boots=1, timeout=120)
    story.check("both hosts are up", all(host.state() == "up" for host in lab.hosts))
    story.check(
        f"{GUEST} runs on h1 with {before['vcpus']} vCPU, {before['memory_mb']} MiB, {before['disks']['vda'] // GIB} "
        f"GiB of disk, at {before['ip']} ({before['mac']})",
        before["host"] == "h1" and size_of(before) == OLD and guest.ping(),
    )
    story.check("it has written its data and knows its checksum", before["checksum_ok"] and before["checksum"])

    story.chapter("Under management", "resizeflow learns the hosts, a flavor to resize to, and the guest.")
    for host in lab.hosts:
        story.type("host", "add", host.name, host.uri, "--peer-uri", host.peer_uri, "-c", "name", "-c", "uri")
    size = ["--vcpus", str(NEW["vcpus"]), "--ram", str(NEW["memory_mb"]), "--disk", str(NEW["disk_gb"])]
    story.type("flavor", "create", "medium", *size)
    story.type("instance", "adopt", "h1", GUEST)
    story.check(f"{GUEST} is managed, on h1", ask("instance", "show", GUEST)["host"] == "h1")
    return guest, before


def lose_the_worker(story: Story, lab: Lab, guest: Guest) -> str:
    """Plan, begin, and SIGKILL during the transfer. Returns the migration's id."""
    story.chapter("The plan", "What would a resize do, and what would the outage be? A dry run changes nothing.")
    story.type("resize", GUEST, "--flavor", "medium", "--host", "h2", "--dry-run")
    story.check("nothing was changed: no migration was recorded", ask("migration", "list") == [])
    story.check(f"{GUEST} still runs on h1", guest.state(lab.host("h1")) == "running")

    story.chapter(
        "The resize, and a worker that dies",
        "No worker daemon is up, so the command carries the resize out itself. In the middle of the disk transfer "
        "it gets SIGKILL: no clean-up, no goodbye.",
    )
    worker = story.start("resize", GUEST, "--flavor", "medium", "--host", "h2")
    try:
        shown = wait_for_bytes(worker)
    finally:
        worker.send_signal(signal.SIGKILL)
        ended = worker.wait()
        story.show_cursor()
    print(flush=True)
    done, total = shown["bytes_done"] >> 20, shown["bytes_total"] >> 20
    story.check(f"the worker was killed by SIGKILL, {done} of {total} MiB into the copy", ended == -signal.SIGKILL)
    story.check(
        f"{GUEST} runs nowhere: off on h1, not yet on h2",
        "running" not in guest.states().values() and not guest.ping(timeout=2),
    )
    migration = str(shown["id"])
    shown_columns = columns("status", "flow", "job_state", "worker", "lease_seconds_left")
    story.type("migration", "show", migration[:8], *shown_columns)
    kept = ask("migration", "show", migration)
    story.check(
        "the job is kept, in the name of the dead worker until its lease ends",
        kept["job_state"] == "running" and kept["worker"] and kept["status"] == "migrating",
    )
    return migration


def wait_for_bytes(worker: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The migration as soon as its transfer has moved something."""
    for _ in range(600):
        if worker.poll() is not None:
            raise ClaimError("the resize ended before its disk transfer could be interrupted")
        for row in ask("migration", "list"):
            shown: dict[str, Any] = ask("migration", "show", row["id"])
            if 0 < shown["bytes_done"] < shown["bytes_total"]:
                return shown
        time.sleep(0.2)
    raise ClaimError("the disk transfer did not begin")


def resume(story: Story, guest: Guest, before: dict[str, Any], migration: str) -> None:
    """Somebody else takes up what the dead worker left."""
    story.chapter(
        "Resume",
        "Anybody with the database can take the job up. The new worker waits until the dead one's lease has "
        "ended, so that never two work on the same machine, and goes on from what it finds on the hosts.",
    )
    story.type("migration", "resume", migration[:8])
    shown, log = ask("migration", "show", migration), ask("migration", "history", migration)
    story.check(f"the resize is finished; two workers had it (epoch {shown['epoch']})", shown["epoch"] == 2)
    again = [line for line in log if line["epoch"] == 2 and line["text"].startswith("transfer started")]
    story.check("the copy was not begun again: the hosts had gone on with it by themselves", not again)
    nothing_done_twice(story, log)

    after = guest.wait_report(boots=2, timeout=120)
    story.check(f"{GUEST} has booted on {after['host']}, its boot number {after['boots']}", after["host"] == "h2")
    story.check("it runs on h2 only", guest.states().get("h1") != "running" and guest.states()["h2"] == "running")
    story.check(
        f"it has {after['vcpus']} vCPUs, {after['memory_mb']} MiB and {after['disks']['vda'] // GIB} GiB of disk",
        size_of(after) == NEW,
    )
    story.check(
        f"its file system has grown from {before['filesystem_bytes'] >> 20} to {after['filesystem_bytes'] >> 20} MiB",
        after["filesystem_bytes"] > 1.5 * before["filesystem_bytes"],
    )
    story.check(
        f"its old data is there, with the same checksum ({after['checksum'][:16]}...)",
        after["checksum_ok"] and after["checksum"] == before["checksum"] and not after["fresh"],
    )
    story.check(
        f"it has the same MAC {after['mac']} and the same IP {after['ip']}, and answers ping",
        (after["mac"], after["ip"]) == (before["mac"], before["ip"]) and guest.ping(),
    )


def confirm(story: Story, lab: Lab, guest: Guest, migration: str) -> None:
    """The resize is kept; the source is cleaned up."""
    h1 = lab.host("h1")
    story.chapter(
        "Confirm",
        "Until now h1 has kept the old definition and the old disk: `resizeflow revert` would still go back. The "
        "guest is well, so the resize is confirmed.",
    )
    kept = h1.virsh("dumpxml", "--inactive", GUEST)
    story.check(
        "h1 still has the old disk and the old definition, shut off, marked as retired, without autostart",
        len(list(h1.pool_path.iterdir())) == 1
        and "retired" in kept
        and guest.state(h1) == "shut off"
        and "disable" in h1.virsh("dominfo", GUEST).partition("Autostart:")[2].splitlines()[0],
    )
    story.type("confirm", GUEST)
    story.check("h1 has no domain any more", not h1.virsh("list", "--all").strip())
    story.check("h1's storage pool is empty", not list(h1.pool_path.iterdir()))
    debts = ask("migration", "show", migration)["debts"]
    story.check("nothing is owed to any host", debts == [])
    story.check(f"{GUEST} runs on h2 and answers ping", guest.state(lab.host("h2")) == "running" and guest.ping())
    record = ask("instance", "show", GUEST)
    story.check(
        "the record says so: h2, flavor medium, active",
        (record["host"], record["flavor"], record["vm_state"]) == ("h2", "medium", "active"),
    )
    quota = {row["resource"]: row for row in ask("quota", "show")}
    story.check(
        f"the quota counts {quota['cores']['in_use']} cores and reserves nothing",
        quota["cores"]["in_use"] == NEW["vcpus"] and not any(row["reserved"] for row in quota.values()),
    )
    story.chapter(
        "For the auditor",
        "Every step is in the log, with who did it. Each line is chained to the last; a broken chain is exit code 3.",
    )
    log = ask("migration", "history", migration)
    story.type("migration", "history", migration[:8])
    story.type("migration", "history", migration[:8], "--last", "12", *columns("seq", "time", "worker", "task", "text"))
    story.check("the log has no gap", [line["seq"] for line in log] == list(range(1, len(log) + 1)))


def size_of(report: dict[str, Any]) -> dict[str, int]:
    """What the guest says of its size."""
    return {
        "vcpus": report["vcpus"],
        "memory_mb": report["memory_mb"],
        "disk_gb": report["disks"]["vda"] // GIB,
    }


def main() -> int:
    """0 only if all was as told."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--volumes", action="store_true", help="a machine with a Ceph root and an iSCSI data volume")
    return run(demo_volumes.tell if parser.parse_args().volumes else tell)


if __name__ == "__main__":
    sys.exit(main())
