"""A definition made unstartable, and startable again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from resizeflow.drivers.definition.elements import drop, needed, parse, text, written
from resizeflow.drivers.definition.mark import Mark, mark_of, set_mark
from resizeflow.drivers.definition.reading import disk_of


def retired(xml: str, mark: Mark) -> str:
    """The definition made unstartable and marked: names of its disks hold `RETIRED-<migration>-`.

    A local disk's file, an RBD image and a file on NFS begin with it, and are not found at a start. An iSCSI target
    has it in front, so that libvirt takes the target's own name for a LUN, and refuses without asking anybody.

    A retired definition is returned with the new mark and its names as they are; ValueError if another
    migration retired it, because its names could not be restored any more.
    """
    root = parse(xml)
    earlier = mark_of(root)
    if earlier is None or earlier.role != "retired":
        for name in _own_names(root):
            name.retire(mark)
    elif earlier.migration != mark.migration:
        raise ValueError(f"The domain {text(root, 'name')} is retired by migration {earlier.migration}.")
    set_mark(root, mark)
    return written(root)


def restored(xml: str) -> str:
    """The inverse of `retired`: names without the prefix, the mark removed. Others are returned unchanged."""
    root = parse(xml)
    mark = mark_of(root)
    if mark is None or mark.role != "retired":
        return xml
    for name in _own_names(root):
        name.restore(mark)
    set_mark(root, None)
    return written(root)


@dataclass(frozen=True)
class _Name:
    """What a disk's source is called, in one of its attributes."""

    source: etree._Element
    attribute: str

    def retire(self, mark: Mark) -> None:
        folder, last = self._split()
        self.source.set(self.attribute, folder + self._prefix(mark) + last)

    def restore(self, mark: Mark) -> None:
        folder, last = self._split()
        if name := folder + last.removeprefix(self._prefix(mark)):
            self.source.set(self.attribute, name)
        else:
            drop(self.source, self.attribute)  # an NBD server's only export needs no name

    def _split(self) -> tuple[str, str]:
        """What stays in front of the prefix, and what comes behind it."""
        name = self.source.get(self.attribute, "")
        folder, slash, last = ("", "", name) if self._iscsi else name.rpartition("/")
        return folder + slash, last

    def _prefix(self, mark: Mark) -> str:
        return f"RETIRED-{mark.migration}-" + ("/" if self._iscsi else "")

    @property
    def _iscsi(self) -> bool:
        return self.source.get("protocol") == "iscsi"


def _own_names(root: etree._Element) -> Iterator[_Name]:
    """The names of all network disks, and of the files that the machine writes: an ISO image may serve many."""
    for element in root.findall("devices/disk[source]"):
        disk = disk_of(element)
        if disk.network:
            yield _Name(needed(element, "source"), "name")
        elif element.get("type", "file") == "file" and disk.kind == "disk" and disk.path and not disk.readonly:
            yield _Name(needed(element, "source"), "file")
