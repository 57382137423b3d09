"""The demo with volumes: a resize that loses its worker between two hosts, when Cinder has half of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from story import GUEST, Story, ask, columns, nothing_done_twice

from lab.attachment import Attached, initiator
from lab.cinder import PROJECT
from lab.guest import Guest, VolumeSpec
from lab.lab import Lab
from lab.probe import why_not_open
from lab.system import wait_until
from resizeflow.drivers import definition

CINDER = """
[cinder]
auth_type = noauth
user_id = admin
project_id = {project}
endpoint = {endpoint}
"""
POINT = "ConnectVolumes.update_attachment#1.after"
DEVICES = ["vda", "vdb"]


def tell(story: Story, lab: Lab) -> None:
    """The story, from the first daemon to the last trace."""
    guest = build_and_adopt(story, lab)
    storage = Storage(lab, guest)
    before = guest.reports()[-1]
    old = storage.data_at("h1")
    migration = lose_the_worker(story, storage, old)
    resume(story, storage, before, migration)
    confirm(story, storage, old, migration)


class Storage:
    """What Cinder, Ceph and the hosts say of the guest's two volumes."""

    def __init__(self, lab: Lab, guest: Guest) -> None:
        self.lab = lab
        self.guest = guest
        self.root, self.data = guest.facts.volumes
        self.client = lab.volumes.cinder.client()

    def has_root_open(self) -> list[str]:
        """The hosts that have the Ceph image open."""
        names = {host.address: host.name for host in self.lab.hosts}
        return [names[address.partition(":")[0]] for address in self.lab.volumes.ceph.watchers(self.root)]

    def data_at(self, host: str) -> Attached:
        """How a host opens the iSCSI volume."""
        (used,) = (one.id for one in self._attachments(self.data) if one.status == "attached")
        connection = self.client.attachments.show(used).connection_info
        return Attached(self.data, connection, initiator(self.lab.host(host)))

    def opens(self, host: str, data: Attached) -> bool:
        """Whether a host gets in to the iSCSI volume, by what it was once told."""
        return why_not_open(self.lab.host(host), data, data.connection["auth_password"]) is None

    def statuses(self) -> list[list[str]]:
        """Of both volumes, Cinder's words for their attachments."""
        return [sorted(one.status for one in self._attachments(volume)) for volume in (self.root, self.data)]

    def at(self, host: str) -> list[int]:
        """Of both volumes, how many of their attachments are connected to a host."""
        return [len(self._attachments(volume, attached_host=host)) for volume in (self.root, self.data)]

    def defined_on(self, host: str) -> dict[str, str]:
        """The volumes in a host's definition of the guest, by their serials, by device."""
        return definition.volumes(self.lab.host(host).virsh("dumpxml", GUEST))

    def _attachments(self, volume: str, **more: str) -> list[Any]:
        found: list[Any] = self.client.attachments.list(search_opts={"volume_id": volume, **more})
        return found


def build_and_adopt(story: Story, lab: Lab) -> Guest:
    """Storage, two hosts, a guest that runs on the first from volumes, all under management."""
    story.chapter(
        "Storage, two hosts and a guest",
        "A Ceph cluster, an iSCSI target and a Cinder before them come up on this machine, and two libvirt hosts. On "
        f"the first boots {GUEST}, which has no disk there: its root disk is an image in Ceph, its data disk an iSCSI "
        "volume. On both it writes numbered records all the time, and acknowledges those that are on the disk.",
    )
    lab.up(hosts=2, volumes=True)
    h1 = lab.host("h1")
    guest = Guest(lab, GUEST).create(h1, disks=[], volumes=[VolumeSpec("rbd"), VolumeSpec("iscsi")])
    report = guest.wait_report(boots=1, timeout=120)
    storage = Storage(lab, guest)
    story.check(f"{GUEST} runs on h1, at {report['ip']}", report["host"] == "h1" and guest.ping())
    story.check("h1's storage pool is empty", not list(h1.pool_path.iterdir()))
    story.check(
        "Cinder has both volumes attached to h1", (storage.at("h1"), storage.statuses()) == ([1, 1], [["attached"]] * 2)
    )
    story.check("h1, and nobody else, has the image of the root disk open", storage.has_root_open() == ["h1"])
    story.check(
        "it has acknowledged records on both volumes", wait_until(lambda: all(acknowledged(guest, boot=1)), timeout=60)
    )

    story.chapter("Under management", "resizeflow learns where Cinder is, the hosts, a flavor, and the guest.")
    with Path(os.environ["RESIZEFLOW_CONFIG"]).open("a") as config:
        config.write(CINDER.format(project=PROJECT, endpoint=lab.volumes.cinder.endpoint))
    for host in lab.hosts:
        story.type("host", "add", host.name, host.uri, "--peer-uri", host.peer_uri, *columns("name", "uri"))
    story.type("flavor", "create", "medium", "--vcpus", "2", "--ram", "512", "--disk", "0")
    story.type("instance", "adopt", "h1", GUEST)
    return guest


def acknowledged(guest: Guest, *, boot: int) -> list[int]:
    """The last records that the guest has acknowledged since that boot, on its root volume and on its data volume."""
    session = guest.sessions()[boot - 1]
    return [session.volumes[volume[:20]] for volume in guest.facts.volumes]


def lose_the_worker(story: Story, storage: Storage, old: Attached) -> str:
    """Plan, begin, and SIGKILL between the two volumes. Returns the migration's id."""
    story.chapter("The plan", "What would a resize do? Nothing is copied, whatever the size of the volumes.")
    story.type("resize", GUEST, "--flavor", "medium", "--host", "h2", "--dry-run")
    story.check("nothing was changed: no migration was recorded", ask("migration", "list") == [])

    story.chapter(
        "The resize, and a worker that dies",
        "The worst moment: the source is detached from both volumes, Cinder has just connected the first to the "
        "destination and not the second, and the worker that knows it is gone. A failpoint kills it there (SIGKILL).",
    )
    words = ("resize", GUEST, "--flavor", "medium", "--host", "h2")
    story.type(*words, code=-signal.SIGKILL, environment={"RESIZEFLOW_FAILPOINT": f"{POINT}=kill"})
    story.show_cursor()
    story.check(f"{GUEST} runs nowhere", "running" not in storage.guest.states().values())
    story.check("nobody has the image of the root disk open", storage.has_root_open() == [])
    story.check("Cinder has the root volume connected to h2, the data volume to nobody", storage.at("h2") == [1, 0])
    story.check("h1 is cut off: the iSCSI target refuses its login", not storage.opens("h1", old))
    story.check(
        "each volume has a second, blank attachment: the way back, which keeps it from everybody else",
        storage.statuses() == [["attaching", "reserved"], ["reserved", "reserved"]],
    )
    (row,) = ask("migration", "list")
    story.type("migration", "show", row["id"][:8], *columns("status", "flow", "job_state", "volumes"))
    return str(row["id"])


def resume(story: Story, storage: Storage, before: dict[str, Any], migration: str) -> None:
    """Somebody else takes up what the dead worker left."""
    guest = storage.guest
    story.chapter(
        "Resume",
        "The new worker waits until the dead one's lease has ended, asks Cinder what is connected, and does the rest.",
    )
    story.type("migration", "resume", migration[:8])
    shown = ask("migration", "show", migration)
    story.check(f"the resize is finished; two workers had it (epoch {shown['epoch']})", shown["epoch"] == 2)
    nothing_done_twice(story, ask("migration", "history", migration))
    story.check("nothing was copied", shown["bytes_total"] == 0)
    after = guest.wait_report(boots=2, timeout=120)
    story.check(
        f"{GUEST} has booted on h2 only, its boot number {after['boots']}, with {after['vcpus']} vCPUs and "
        f"{after['memory_mb']} MiB",
        (after["host"], after["vcpus"], after["memory_mb"]) == ("h2", 2, 512) and guest.states()["h1"] != "running",
    )
    story.check("h2, and nobody else, has the image of the root disk open", storage.has_root_open() == ["h2"])
    story.check(
        "its volumes have the device names and serials that they had",
        storage.defined_on("h2") == dict(zip(DEVICES, guest.facts.volumes, strict=True)),
    )
    records = [acknowledged(guest, boot=1), [after["volumes"][device]["last_record"] for device in DEVICES]]
    story.check(
        f"every acknowledged record is there: {records[0]} were acknowledged on h1, {records[1]} were found on h2",
        all(found >= told for told, found in zip(*records, strict=True))
        and all(volume["records_ok"] for volume in after["volumes"].values()),
    )
    story.check(
        "its old data is there, with the same checksums",
        after["checksum_ok"] and after["contents"] == before["contents"],
    )
    story.check("it answers ping at its old address", after["ip"] == before["ip"] and guest.ping())


def confirm(story: Story, storage: Storage, old: Attached, migration: str) -> None:
    """The resize is kept; the ways back are given up."""
    lab, guest = storage.lab, storage.guest
    story.chapter(
        "Confirm",
        "Until now the way back of each volume is reserved, and h1 keeps the old definition, which cannot start.",
    )
    story.check(
        "Cinder has two attachments of each volume: one in use at h2, and the way back",
        (storage.at("h2"), storage.statuses()) == ([1, 1], [["attached", "reserved"]] * 2),
    )
    story.type("confirm", GUEST)
    story.check(
        "Cinder has one attachment of each volume, in use at h2",
        (storage.at("h2"), storage.statuses()) == ([1, 1], [["attached"]] * 2),
    )
    story.check("h2, and nobody else, has the image of the root disk open", storage.has_root_open() == ["h2"])
    story.check("h1 stays cut off from the iSCSI volume", not storage.opens("h1", old))
    h1 = lab.host("h1")
    story.check("h1 has no domain any more", not h1.virsh("list", "--all").strip())
    story.check("h1 has no libvirt secret that resizeflow made", "resizeflow" not in h1.virsh("secret-list"))
    told = acknowledged(guest, boot=2)
    story.check(
        f"{GUEST} writes on, and answers ping",
        wait_until(lambda: all(now > then for now, then in zip(acknowledged(guest, boot=2), told, strict=True)), 60)
        and guest.ping(),
    )
    passwords = [lab.volumes.ceph.key(), old.connection["auth_password"]]
    files = [path for path in Path(os.environ["RESIZEFLOW_CONFIG"]).parent.rglob("*") if path.is_file()]
    story.check(
        f"neither Ceph's key nor the iSCSI password is in any of resizeflow's {len(files)} files",
        files and not any(word.encode() in path.read_bytes() for word in passwords for path in files),
    )
    story.chapter(
        "For the auditor", "Every step is in the log, with who did it, those at Cinder as those on the hosts."
    )
    log = ask("migration", "history", migration)
    story.type("migration", "history", migration[:8], "--last", "12", *columns("seq", "time", "worker", "task", "text"))
    story.check("the log has no gap", [line["seq"] for line in log] == list(range(1, len(log) + 1)))
