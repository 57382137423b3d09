"""Our mark in a domain's metadata."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from resizeflow.drivers.definition.elements import made, parse, written

NAMESPACE = "https://resizeflow.dev/xmlns/domain/1.0"

_MOVE = f"{{{NAMESPACE}}}move"


@dataclass(frozen=True)
class Mark:
    """What we write into a domain's metadata so that a worker that knows only the migration's id finds it.

    `role` is `retired` (unstartable, kept for the way back), `carrier` (moves disks), `destination` (ours,
    being built or in use until the confirm).
    """

    migration: str
    epoch: int
    role: str


def marked(xml: str, mark: Mark | None) -> str:
    """The definition with our mark in its metadata in place of any earlier one; None removes it."""
    root = parse(xml)
    set_mark(root, mark)
    return written(root)


def mark_of(root: etree._Element) -> Mark | None:
    """The mark of a definition, None if it has none."""
    element = root.find(f"metadata/{_MOVE}")
    if element is None:
        return None
    return Mark(element.get("migration", ""), int(element.get("epoch", "0")), element.get("role", ""))


def set_mark(root: etree._Element, mark: Mark | None) -> None:
    """Puts a mark in place of any earlier one; None removes it."""
    metadata = made(root, "metadata")
    for element in metadata.findall(_MOVE):
        metadata.remove(element)
    if mark is not None:
        move = etree.SubElement(metadata, _MOVE, nsmap={"resizeflow": NAMESPACE})
        move.attrib.update({"migration": mark.migration, "epoch": str(mark.epoch), "role": mark.role})
    elif len(metadata) == 0:
        root.remove(metadata)
