"""Domain definitions read and transformed: what the operator configured stays, only what must change does.

Pure functions on libvirt's domain XML. They serve both drivers and the tasks.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from lxml import etree

NAMESPACE = "https://resizeflow.dev/xmlns/domain/1.0"

_MOVE = f"{{{NAMESPACE}}}move"
_CARRIER_MEMORY_MB = 32
_UNITS: dict[str, int] = {"b": 1, "bytes": 1} | {
    name: base**power
    for power, letter in enumerate("kmgtpe", start=1)
    for name, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}


@dataclass(frozen=True)
class Mark:
    """What we write into a domain's metadata so that a worker that knows only the migration's id finds it.

    `role` is `retired` (unstartable, kept for the way back), `carrier` (moves disks), `destination` (ours,
    being built or in use until the confirm).
    """

    migration: str
    epoch: int
    role: str


@dataclass(frozen=True)
class Disk:
    """A `<disk>` of a domain. `path` is None for an empty drive, a network disk, one named by its pool."""

    device: str
    kind: str
    """`disk`, `cdrom`, `floppy`, `lun`."""
    path: str | None
    format: str
    network: bool
    readonly: bool


@dataclass(frozen=True)
class Nic:
    """An `<interface>`. `bridge` is None unless it is plugged into a bridge by name."""

    mac: str
    kind: str
    bridge: str | None
    model: str | None


LEFT_BEHIND = {
    "devices/tpm": "a TPM",
    "devices/filesystem": "a directory of its host",
    "devices/memory[@model='nvdimm']": "persistent memory",
    "devices/memory[@model='virtio-pmem']": "persistent memory",
}
"""Elements whose content is neither in the definition nor on a disk."""


@dataclass(frozen=True)
class Definition:
    """A domain definition, read."""

    uuid: str
    name: str
    domain_type: str
    machine: str
    vcpus: int
    memory_mb: int
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    host_devices: int
    left_behind: tuple[str, ...]
    """What it keeps on its host beside its disks: it would be lost by a move."""
    mark: Mark | None


def read(xml: str) -> Definition:
    """Reads a definition. Raises ValueError if it is not a domain's."""
    root = _parse(xml)
    nics = root.findall("devices/interface")
    return Definition(
        uuid=_text(root, "uuid"),
        name=_text(root, "name"),
        domain_type=root.get("type", ""),
        machine=_attribute(root, "os/type", "machine") or "",
        vcpus=int(root.findtext("vcpu", "1")),
        memory_mb=math.ceil(_memory_bytes(_child(root, "memory")) / 2**20),
        disks=tuple(_disk(element) for element in root.findall("devices/disk")),
        nics=tuple(_nic(element) for element in nics),
        host_devices=len(root.findall("devices/hostdev")) + sum(n.get("type") == "hostdev" for n in nics),
        left_behind=tuple(what for path, what in LEFT_BEHIND.items() if root.find(path) is not None),
        mark=_mark(root),
    )


def marked(xml: str, mark: Mark | None) -> str:
    """The definition with our mark in its metadata in place of any earlier one; None removes it."""
    root = _parse(xml)
    _set_mark(root, mark)
    return _string(root)


def retired(xml: str, mark: Mark) -> str:
    """The definition made unstartable: each local disk's file named `RETIRED-<migration>-<name>`, and marked.

    A retired definition is returned with the new mark and its paths as they are; ValueError if another
    migration retired it, because its paths could not be restored any more.
    """
    root = _parse(xml)
    earlier = _mark(root)
    if earlier is None or earlier.role != "retired":
        for source in _own_files(root):
            path = PurePosixPath(source.get("file", ""))
            source.set("file", str(path.with_name(_retired_prefix(mark) + path.name)))
    elif earlier.migration != mark.migration:
        raise ValueError(f"The domain {_text(root, 'name')} is retired by migration {earlier.migration}.")
    _set_mark(root, mark)
    return _string(root)


def restored(xml: str) -> str:
    """The inverse of `retired`: paths without the prefix, the mark removed. Others are returned unchanged."""
    root = _parse(xml)
    mark = _mark(root)
    if mark is None or mark.role != "retired":
        return xml
    for source in _own_files(root):
        path = PurePosixPath(source.get("file", ""))
        source.set("file", str(path.with_name(path.name.removeprefix(_retired_prefix(mark)))))
    _set_mark(root, None)
    return _string(root)


@dataclass(frozen=True)
class Placement:
    """A disk's file on the host it is to run on."""

    path: str
    format: str
    bypass_cache: bool = False
    """For a carrier: read without the host's page cache, which makes a transfer about a third faster."""


def resized(xml: str, *, vcpus: int, memory_mb: int, disks: Mapping[str, Placement], mark: Mark) -> str:
    """The definition for a new flavor on a host: vCPUs, memory, files of the named devices, our mark.

    Memory sets both `memory` and `currentMemory` (libvirt would leave the guest ballooned otherwise); vCPUs
    drop `current` and the per-vcpu list and rewrite a `<topology>` that no longer fits; NUMA cells are
    refused (ValueError) unless there is one, which takes all. Backing chains and seclabels of the old host
    are dropped.
    """
    root = _parse(xml)
    _set_vcpus(root, vcpus)
    _set_memory(root, memory_mb)
    _set_numa_cell(root, vcpus, memory_mb)
    for element, placement in _placed(root, disks):
        _place(element, placement)
    _set_mark(root, mark)
    return _string(root)


def free_device(xml: str, beside: str) -> str:
    """A device name that no disk has, on the bus of the disk `beside`. Raises ValueError if there is none."""
    taken = {disk.device for disk in read(xml).disks}
    prefix = beside[: 3 if beside.startswith("xvd") else 2]
    for letter in "abcd" if prefix == "hd" else string.ascii_lowercase:  # an IDE controller has four drives
        if prefix + letter not in taken:
            return prefix + letter
    raise ValueError(f"The machine has no room for another disk beside {beside}.")


def with_disk(xml: str, device: str, beside: str) -> str:
    """The definition with one more disk, on the bus of the disk `beside` and without a file yet."""
    root = _parse(xml)
    others = {_disk(element).device: element for element in root.findall("devices/disk")}
    if device in others or beside not in others:
        raise ValueError(f"The machine has a disk {device} already, or none that is {beside}.")
    target = {"dev": device, "bus": _attribute(others[beside], "target", "bus") or "virtio"}
    disk = etree.Element("disk", {"type": "file", "device": "disk"})
    etree.SubElement(disk, "target", target)
    list(others.values())[-1].addnext(disk)
    return _string(root)


def without_disk(xml: str, device: str) -> str:
    """The definition without that disk; one that is not there is fine."""
    root = _parse(xml)
    devices = _child(root, "devices")
    for element in devices.findall("disk"):
        if _disk(element).device == device:
            devices.remove(element)
    return _string(root)


def carrier(xml: str, *, disks: Mapping[str, Placement], mark: Mark) -> str:
    """The machine reduced to 32 MiB, one vCPU and the given disks, under its own name and UUID: no NIC, no
    kernel, no boot device, nothing of the guest's that another host would have to provide."""
    root = _parse(xml)
    reduced = etree.Element("domain", {"type": root.get("type", "")})
    for name in ("name", "uuid"):
        etree.SubElement(reduced, name).text = _text(root, name)
    etree.SubElement(reduced, "memory", {"unit": "MiB"}).text = str(_CARRIER_MEMORY_MB)
    etree.SubElement(reduced, "vcpu").text = "1"
    machine = _child(root, "os/type")
    kept = {name: value for name, value in _attributes(machine).items() if name in ("arch", "machine")}
    etree.SubElement(etree.SubElement(reduced, "os"), "type", kept).text = "hvm"
    devices = etree.SubElement(reduced, "devices")
    etree.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    etree.SubElement(devices, "memballoon", {"model": "none"})
    for element, placement in _placed(root, disks):
        disk = etree.SubElement(devices, "disk", {"type": "file", "device": "disk"})
        bypass = {"cache": "none", "io": "native"} if placement.bypass_cache else {}
        etree.SubElement(disk, "driver", {"name": "qemu", "type": placement.format, **bypass})
        etree.SubElement(disk, "source", {"file": placement.path})
        device = _attribute(element, "target", "dev") or ""
        etree.SubElement(disk, "target", {"dev": device, "bus": "virtio"})
        # On one bus libvirt would call vda and sda alike.
        etree.SubElement(disk, "alias", {"name": f"ua-{device}"})
    _set_mark(reduced, mark)
    return _string(reduced)


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


# --- reading ---------------------------------------------------------------------------------------------


def _parse(xml: str) -> etree._Element:
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


def _string(root: etree._Element) -> str:
    return etree.tostring(root, encoding="unicode")


def _child(element: etree._Element, path: str) -> etree._Element:
    child = element.find(path)
    if child is None:
        raise ValueError(f"The definition has no <{path}>.")
    return child


def _text(element: etree._Element, path: str) -> str:
    text = (_child(element, path).text or "").strip()
    if not text:
        raise ValueError(f"The definition has an empty <{path}>.")
    return text


def _attribute(element: etree._Element, path: str, name: str) -> str | None:
    child = element.find(path)
    return None if child is None else child.get(name)


def _memory_bytes(element: etree._Element) -> int:
    unit = element.get("unit", "KiB")
    try:
        return int(element.text or "") * _UNITS[unit.lower()]
    except (KeyError, ValueError):
        raise ValueError(f"<{element.tag}> is not an amount of memory: {element.text} {unit}") from None


def _attributes(element: etree._Element) -> dict[str, str]:
    return {str(name): str(value) for name, value in element.attrib.items()}


def _mark(root: etree._Element) -> Mark | None:
    element = root.find(f"metadata/{_MOVE}")
    if element is None:
        return None
    return Mark(element.get("migration", ""), int(element.get("epoch", "0")), element.get("role", ""))


def _disk(element: etree._Element) -> Disk:
    kind = element.get("type", "file")
    return Disk(
        device=_attribute(element, "target", "dev") or "",
        kind=element.get("device", "disk"),
        path=_attribute(element, "source", {"block": "dev", "dir": "dir"}.get(kind, "file")),
        format=_attribute(element, "driver", "type") or "raw",
        network=kind == "network",
        readonly=element.find("readonly") is not None,
    )


def _nic(element: etree._Element) -> Nic:
    kind = element.get("type", "")
    return Nic(
        mac=_attribute(element, "mac", "address") or "",
        kind=kind,
        bridge=_attribute(element, "source", "bridge") if kind == "bridge" else None,
        model=_attribute(element, "model", "type"),
    )


# --- changing --------------------------------------------------------------------------------------------


def _set_mark(root: etree._Element, mark: Mark | None) -> None:
    metadata = _made(root, "metadata")
    for element in metadata.findall(_MOVE):
        metadata.remove(element)
    if mark is not None:
        move = etree.SubElement(metadata, _MOVE, nsmap={"resizeflow": NAMESPACE})
        move.attrib.update({"migration": mark.migration, "epoch": str(mark.epoch), "role": mark.role})
    elif len(metadata) == 0:
        root.remove(metadata)


def _made(parent: etree._Element, name: str) -> etree._Element:
    child = parent.find(name)
    return etree.SubElement(parent, name) if child is None else child


def _drop(element: etree._Element, *attributes: str) -> None:
    for name in attributes:
        if name in element.attrib:
            del element.attrib[name]


def _retired_prefix(mark: Mark) -> str:
    return f"RETIRED-{mark.migration}-"


def _own_files(root: etree._Element) -> Iterator[etree._Element]:
    """The `<source>` of each disk whose file belongs to this machine alone: an ISO image may serve many."""
    for element in root.findall("devices/disk"):
        disk = _disk(element)
        if element.get("type", "file") == "file" and disk.kind == "disk" and disk.path and not disk.readonly:
            yield _child(element, "source")


def _set_vcpus(root: etree._Element, vcpus: int) -> None:
    count = _child(root, "vcpu")
    count.text = str(vcpus)
    _drop(count, "current")
    for listed in root.findall("vcpus"):
        root.remove(listed)
    topology = root.find("cpu/topology")
    if topology is None:
        return
    levels = ("sockets", "dies", "clusters", "cores", "threads")
    if math.prod(int(topology.get(level, "1")) for level in levels) != vcpus:
        _drop(topology, "clusters")
        if "dies" in topology.attrib:
            topology.set("dies", "1")
        topology.attrib.update({"sockets": str(vcpus), "cores": "1", "threads": "1"})


def _set_memory(root: etree._Element, memory_mb: int) -> None:
    total, limit = _child(root, "memory"), root.find("maxMemory")
    if limit is not None and _memory_bytes(limit) <= memory_mb * 2**20:
        # QEMU wants more than the memory itself, so the room for growth stays as large as it was.
        room = max(_memory_bytes(limit) - _memory_bytes(total), 2**30)
        _write_memory(limit, memory_mb * 2**20 + room)
    for element in (total, _made(root, "currentMemory")):
        _write_memory(element, memory_mb * 2**20)


def _write_memory(element: etree._Element, amount: int) -> None:
    element.set("unit", "KiB")
    element.text = str(amount // 1024)


def _set_numa_cell(root: etree._Element, vcpus: int, memory_mb: int) -> None:
    modules = sum(_memory_bytes(size) for size in root.findall("devices/memory/target/size"))
    boot_kib = memory_mb * 1024 - modules // 1024
    if boot_kib <= 0:
        raise ValueError(f"The machine's memory modules alone take more than {memory_mb} MiB.")
    cells = root.findall("cpu/numa/cell")
    if len(cells) > 1:
        raise ValueError(f"The machine has {len(cells)} NUMA cells; only one can be resized.")
    for cell in cells:
        cell.set("cpus", "0" if vcpus == 1 else f"0-{vcpus - 1}")
        cell.attrib.update({"memory": str(boot_kib), "unit": "KiB"})


def _placed(root: etree._Element, disks: Mapping[str, Placement]) -> list[tuple[etree._Element, Placement]]:
    found = {_disk(element).device: element for element in root.findall("devices/disk")}
    strangers = sorted(disks.keys() - found.keys())
    if strangers:
        raise ValueError(f"The machine has no disk {', '.join(strangers)}.")
    return [(element, disks[device]) for device, element in found.items() if device in disks]


def _place(disk: etree._Element, placement: Placement) -> None:
    disk.set("type", "file")
    driver, source = _made(disk, "driver"), _made(disk, "source")
    driver.attrib.update({"name": "qemu", "type": placement.format})
    _drop(source, "dev", "pool", "volume", "mode", "index")
    source.set("file", placement.path)
    for parent in (disk, source):
        for child in parent.findall("*"):
            if child.tag in ("backingStore", "mirror", "seclabel", "privateData"):
                parent.remove(child)


# --- comparing -------------------------------------------------------------------------------------------

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


def _parts(xml: str) -> dict[str, _Facts]:
    """The definition as named parts (`vcpu`, `disk vda`), each a flat table of what it says."""
    root = _parse(xml)
    parts = {"domain": {name: value for name, value in _attributes(root).items() if name != "id"}}
    tops = [child for child in root.findall("*") if child.tag != "devices"]
    for label, element in _labelled(tops + root.findall("devices/*")):
        parts[label] = dict(_flat(element, ""))
    return parts


def _labelled(elements: list[etree._Element]) -> Iterator[tuple[str, etree._Element]]:
    seen: Counter[str] = Counter()
    for element in elements:
        words = [etree.QName(element).localname]
        words += [_attribute(element, *where) or "" for where in _IDENTITIES.get(element.tag, ())]
        label = " ".join(words).strip()
        seen[label] += 1
        yield (label if seen[label] == 1 else f"{label} #{seen[label]}"), element


def _flat(element: etree._Element, path: str) -> Iterator[tuple[str, str]]:
    attributes, text = _attributes(element), (element.text or "").strip()
    if element.tag in _AMOUNTS and text:
        attributes.pop("unit", None)
        text = f"{_memory_bytes(element) // 1024} KiB"
    if element.tag == "source":
        attributes.pop("index", None)
    attributes.pop("passwd", None)
    if text:
        yield path, text
    for name, value in attributes.items():
        yield f"{path} {name}".strip(), value
    for label, child in _labelled([c for c in element.findall("*") if not _rewritten_by_libvirt(c)]):
        inner = f"{path} {label}".strip()
        yield f"{inner}:", etree.QName(child).namespace or ""
        yield from _flat(child, inner)


def _rewritten_by_libvirt(element: etree._Element) -> bool:
    if element.tag == "alias":
        return not element.get("name", "").startswith("ua-")
    return element.tag in ("backingStore", "mirror", "privateData")


def _change(part: str, before: _Facts | None, after: _Facts | None) -> str:
    if before is None or after is None:
        return f"{part} {'added' if before is None else 'removed'}"
    if part.split(maxsplit=1)[0] not in _TELLING:
        return f"{part} changed"
    key = min(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return f"{part} {key}".strip() + f": {before.get(key, 'none')} -> {after.get(key, 'none')}"
