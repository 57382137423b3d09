"""Seeded faults in what is done to Cinder volumes and to the secrets that they need."""

from __future__ import annotations

from resizeflow.chaos.mutants.seeding import mutant, put
from resizeflow.persistence.models import Host, Migration, MovedVolume
from resizeflow.tasks import secrets
from resizeflow.tasks.attachments import Attachments, Which, each
from resizeflow.tasks.volumes import DetachSourceVolumes


@mutant("resize kills")
def return_attachment_forgotten() -> None:
    """Volumes are detached from the source without a way back."""

    def hasty(task: DetachSourceVolumes, migration: Migration) -> None:
        for volume in each(task, migration, migration.volumes):
            volume.disconnect("source_attachment", off=True)

    put(DetachSourceVolumes, "do", hasty)


@mutant("resize kills")
def detached_before_the_way_back() -> None:
    """The source's attachment is deleted first, then the way back is made."""

    def reversed_order(task: DetachSourceVolumes, migration: Migration) -> None:
        for volume in each(task, migration, migration.volumes):
            volume.disconnect("source_attachment", off=True)
            volume.reserve("return_attachment")

    put(DetachSourceVolumes, "do", reversed_order)


@mutant("resize kills")
def attachment_id_stored_late() -> None:
    """The id of the destination's attachment is stored when it is connected."""
    reserve, connect = Attachments.reserve, Attachments.connect

    def store(volume: Attachments, which: Which, attachment_id: str | None) -> None:
        if which == "dest_attachment":
            with volume.task.world.intent("late") as tx:
                tx.session.get_one(MovedVolume, volume.volume.id).dest_attachment = attachment_id

    def reserved(volume: Attachments, which: Which) -> None:
        reserve(volume, which)
        store(volume, which, None)

    def connected(volume: Attachments, which: Which, host: Host) -> None:
        connect(volume, which, host)
        store(volume, which, getattr(volume.volume, which))

    put(Attachments, "reserve", reserved)
    put(Attachments, "connect", connected)


@mutant("resize kills")
def attachment_not_completed() -> None:
    """Cinder is not told that the machine uses its volumes."""
    put(Attachments, "complete", lambda _volume, _which: None)


@mutant("resize kills")
def orphans_left() -> None:
    """A blank attachment that was made and not stored is not looked for."""
    put(Attachments, "sweep", lambda _volume: None)


@mutant("revert kills")
def secrets_left() -> None:
    """Secrets that no domain needs any more stay on their hosts."""
    put(secrets, "remove", lambda _task, _migration, _host: None)
