"""The volumes of a migration with Cinder's ids of their attachments, as a column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cliff import columns

if TYPE_CHECKING:
    from resizeflow.persistence.models import MovedVolume

KINDS = ("source", "destination", "return", "onward")
"""The attachments that a volume may have: with which it left, with which it arrived, the ways back and forth again."""


class Attachments(columns.FormattableColumn[list[dict[str, Any]]]):
    """All of them for machines; for people, below each volume the attachments that it has or had."""

    def __init__(self, volumes: Iterable[MovedVolume]) -> None:
        super().__init__([_as_data(volume) for volume in volumes])

    def human_readable(self) -> str:
        return "\n".join(line for volume in self._value for line in _told(volume))


def _as_data(volume: MovedVolume) -> dict[str, Any]:
    ids = (volume.source_attachment, volume.dest_attachment, volume.return_attachment, volume.onward_attachment)
    return {
        "device": volume.device,
        "volume": volume.volume_id,
        "detached": volume.detached,
        **dict(zip(KINDS, ids, strict=True)),
    }


def _told(volume: dict[str, Any]) -> list[str]:
    detached = ", detached since" if volume["detached"] else ""
    found = [f"  {kind:<11}  {volume[kind]}" for kind in KINDS if volume[kind]]
    return [f"{volume['device']}: volume {volume['volume']}{detached}", *found]
