"""A definition's XML: parsed, looked into and written again."""

from __future__ import annotations

from copy import deepcopy

from lxml import etree

_UNITS: dict[str, int] = {"b": 1, "bytes": 1} | {
    name: base**power
    for power, letter in enumerate("kmgtpe", start=1)
    for name, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}


def parse(xml: str) -> etree._Element:
    """The root of a definition. Raises ValueError if it is not a domain's."""
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, huge_tree=False)
    if "<!DOCTYPE" in xml:
        raise ValueError("A domain's definition has no document type.")
    try:
        root = etree.fromstring(xml.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"This is not XML: {error}") from error
    if root.tag != "domain":
        raise ValueError(f"This is not a domain's definition but <{root.tag}>.")
    return root


def written(root: etree._Element) -> str:
    """The definition as text."""
    return etree.tostring(root, encoding="unicode")


def needed(element: etree._Element, path: str) -> etree._Element:
    """The element at a path. Raises ValueError if there is none."""
    child = element.find(path)
    if child is None:
        raise ValueError(f"The definition has no <{path}>.")
    return child


def text(element: etree._Element, path: str) -> str:
    """The text at a path. Raises ValueError if there is none."""
    found = (needed(element, path).text or "").strip()
    if not found:
        raise ValueError(f"The definition has an empty <{path}>.")
    return found


def attribute(element: etree._Element, path: str, name: str) -> str | None:
    """An attribute of the element at a path, None if either is not there."""
    child = element.find(path)
    return None if child is None else child.get(name)


def memory_bytes(element: etree._Element) -> int:
    """An amount of memory, whatever its unit. Raises ValueError."""
    unit = element.get("unit", "KiB")
    try:
        return int(element.text or "") * _UNITS[unit.lower()]
    except (KeyError, ValueError):
        raise ValueError(f"<{element.tag}> is not an amount of memory: {element.text} {unit}") from None


def attributes_of(element: etree._Element) -> dict[str, str]:
    """All attributes of an element."""
    return {str(name): str(value) for name, value in element.attrib.items()}


def made(parent: etree._Element, name: str) -> etree._Element:
    """The child of that name, made if it was not there."""
    child = parent.find(name)
    return etree.SubElement(parent, name) if child is None else child


def drop(element: etree._Element, *names: str) -> None:
    """Removes attributes."""
    for name in names:
        if name in element.attrib:
            del element.attrib[name]


def portable(device: etree._Element) -> etree._Element:
    """A device without what a host has given to it: its address and name there."""
    copy = deepcopy(device)
    for child in copy.findall("*"):
        given = child.tag == "alias" and not child.get("name", "").startswith("ua-")
        if given or child.tag in ("address", "backingStore", "mirror", "privateData"):
            copy.remove(child)
    for source in copy.findall("source"):
        drop(source, "index")
    return copy
