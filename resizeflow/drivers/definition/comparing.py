"""What two definitions of one machine do not have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lxml import etree

from resizeflow.drivers.definition.elements import attribute, attributes_of, memory_bytes, parse
from resizeflow.drivers.definition.mark import marked
from resizeflow.drivers.definition.retirement import restored

_Facts = dict[str, str]

_IDENTITIES = {
    "disk": (("target", "dev"),),
    "interface": (("mac", "address"),),
    "controller": ((".", "type"), (".", "index")),
    "graphics": ((".", "type"),),
}
_AMOUNTS = ("memory", "currentMemory", "maxMemory")
_TELLING = (*_AMOUNTS, "vcpu", "disk", "interface", "on_reboot", "on_poweroff", "on_crash")
"""Parts whose values may be shown: custom metadata, firmware variables or arguments might hold a secret."""


def difference(old: str, new: str) -> str | None:
    """What differs between two definitions of one machine, in a few words, or None.

    Ours (mark, retired paths) and what libvirt rewrites by itself (backing chains, aliases, order of
    metadata, white space) do not count, nor do passwords: a definition read without its secrets has none.
    """
    before, after = (_parts(marked(restored(xml), None)) for xml in (old, new))
    changed = sorted(part for part in before.keys() | after.keys() if before.get(part) != after.get(part))
    changes = [_change(part, before.get(part), after.get(part)) for part in changed]
    if len(changes) > 4:
        changes[3:] = [f"{len(changes) - 3} more"]
    return "; ".join(changes) or None


def _parts(xml: str) -> dict[str, _Facts]:
    """The definition as named parts (`vcpu`, `disk vda`), each a flat table of what it says."""
    root = parse(xml)
    parts = {"domain": {name: value for name, value in attributes_of(root).items() if name != "id"}}
    tops = [child for child in root.findall("*") if child.tag != "devices"]
    for label, element in _labelled(tops + root.findall("devices/*")):
        parts[label] = dict(_flat(element, ""))
    return parts


def _labelled(elements: list[etree._Element]) -> Iterator[tuple[str, etree._Element]]:
    seen: Counter[str] = Counter()
    for element in elements:
        words = [etree.QName(element).localname]
        words += [attribute(element, *where) or "" for where in _IDENTITIES.get(element.tag, ())]
        label = " ".join(words).strip()
        seen[label] += 1
        yield (label if seen[label] == 1 else f"{label} #{seen[label]}"), element


def _flat(element: etree._Element, path: str) -> Iterator[tuple[str, str]]:
    attributes, text = attributes_of(element), (element.text or "").strip()
    if element.tag in _AMOUNTS and text:
        attributes.pop("unit", None)
        text = f"{memory_bytes(element) // 1024} KiB"
    if element.tag == "source":
        attributes.pop("index", None)
    attributes.pop("passwd", None)
    if text:
        yield path, text
    for name, value in attributes.items():
        yield f"{path} {name}".strip(), value
    for label, child in _labelled([c for c in element.findall("*") if not _aside(c)]):
        inner = f"{path} {label}".strip()
        yield f"{inner}:", etree.QName(child).namespace or ""
        yield from _flat(child, inner)


def _aside(element: etree._Element) -> bool:
    """Whether an element does not count: libvirt's own, or shown only with the secrets."""
    if element.tag == "alias":
        return not element.get("name", "").startswith("ua-")
    return element.tag in ("backingStore", "mirror", "privateData", "cookies")


def _change(part: str, before: _Facts | None, after: _Facts | None) -> str:
    if before is None or after is None:
        return f"{part} {'added' if before is None else 'removed'}"
    if part.split(maxsplit=1)[0] not in _TELLING:
        return f"{part} changed"
    key = min(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return f"{part} {key}".strip() + f": {before.get(key, 'none')} -> {after.get(key, 'none')}"
