"""A definition made unstartable, and startable again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from lxml import etree

from resizeflow.drivers.definition.elements import needed, parse, text, written
from resizeflow.drivers.definition.mark import Mark, mark_of, set_mark
from resizeflow.drivers.definition.reading import disk_of


def retired(xml: str, mark: Mark) -> str:
    """The definition made unstartable: each local disk's file named `RETIRED-<migration>-<name>`, and marked.

    A retired definition is returned with the new mark and its paths as they are; ValueError if another
    migration retired it, because its paths could not be restored any more.
    """
    root = parse(xml)
    earlier = mark_of(root)
    if earlier is None or earlier.role != "retired":
        for source in _own_files(root):
            path = PurePosixPath(source.get("file", ""))
            source.set("file", str(path.with_name(_retired_prefix(mark) + path.name)))
    elif earlier.migration != mark.migration:
        raise ValueError(f"The domain {text(root, 'name')} is retired by migration {earlier.migration}.")
    set_mark(root, mark)
    return written(root)


def restored(xml: str) -> str:
    """The inverse of `retired`: paths without the prefix, the mark removed. Others are returned unchanged."""
    root = parse(xml)
    mark = mark_of(root)
    if mark is None or mark.role != "retired":
        return xml
    for source in _own_files(root):
        path = PurePosixPath(source.get("file", ""))
        source.set("file", str(path.with_name(path.name.removeprefix(_retired_prefix(mark)))))
    set_mark(root, None)
    return written(root)


def _retired_prefix(mark: Mark) -> str:
    return f"RETIRED-{mark.migration}-"


def _own_files(root: etree._Element) -> Iterator[etree._Element]:
    """The `<source>` of each disk whose file belongs to this machine alone: an ISO image may serve many."""
    for element in root.findall("devices/disk"):
        disk = disk_of(element)
        if element.get("type", "file") == "file" and disk.kind == "disk" and disk.path and not disk.readonly:
            yield needed(element, "source")
