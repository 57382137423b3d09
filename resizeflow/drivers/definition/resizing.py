"""A definition for another flavor on a host."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lxml import etree

from resizeflow.drivers.definition.disks import Placement, chosen, place
from resizeflow.drivers.definition.elements import drop, made, memory_bytes, needed, parse, written
from resizeflow.drivers.definition.mark import Mark, set_mark
from resizeflow.drivers.definition.nics import set_queues


def resized(xml: str, *, vcpus: int, memory_mb: int, disks: Mapping[str, Placement], mark: Mark) -> str:
    """The definition for a new flavor on a host: vCPUs, memory, files of the named devices, our mark; as many queues of
    NICs that have several as vCPUs.

    Memory sets both `memory` and `currentMemory` (libvirt would leave the guest ballooned otherwise); vCPUs
    drop `current` and the per-vcpu list and rewrite a `<topology>` that no longer fits; NUMA cells are
    refused (ValueError) unless there is one, which takes all. Backing chains and seclabels of the old host
    are dropped.
    """
    root = parse(xml)
    if vcpus != int(needed(root, "vcpu").text or ""):
        set_queues(root, vcpus)
    _set_vcpus(root, vcpus)
    _set_memory(root, memory_mb)
    _set_numa_cell(root, vcpus, memory_mb)
    for element, placement in chosen(root, disks):
        place(element, placement)
    set_mark(root, mark)
    return written(root)


def _set_vcpus(root: etree._Element, vcpus: int) -> None:
    count = needed(root, "vcpu")
    count.text = str(vcpus)
    drop(count, "current")
    for listed in root.findall("vcpus"):
        root.remove(listed)
    topology = root.find("cpu/topology")
    if topology is None:
        return
    levels = ("sockets", "dies", "clusters", "cores", "threads")
    if math.prod(int(topology.get(level, "1")) for level in levels) != vcpus:
        drop(topology, "clusters")
        if "dies" in topology.attrib:
            topology.set("dies", "1")
        topology.attrib.update({"sockets": str(vcpus), "cores": "1", "threads": "1"})


def _set_memory(root: etree._Element, memory_mb: int) -> None:
    total, limit = needed(root, "memory"), root.find("maxMemory")
    if limit is not None and memory_bytes(limit) <= memory_mb * 2**20:
        # QEMU wants more than the memory itself, so the room for growth stays as large as it was.
        room = max(memory_bytes(limit) - memory_bytes(total), 2**30)
        _write_memory(limit, memory_mb * 2**20 + room)
    for element in (total, made(root, "currentMemory")):
        _write_memory(element, memory_mb * 2**20)


def _write_memory(element: etree._Element, amount: int) -> None:
    element.set("unit", "KiB")
    element.text = str(amount // 1024)


def _set_numa_cell(root: etree._Element, vcpus: int, memory_mb: int) -> None:
    modules = sum(memory_bytes(size) for size in root.findall("devices/memory/target/size"))
    boot_kib = memory_mb * 1024 - modules // 1024
    if boot_kib <= 0:
        raise ValueError(f"The machine's memory modules alone take more than {memory_mb} MiB.")
    cells = root.findall("cpu/numa/cell")
    if len(cells) > 1:
        raise ValueError(f"The machine has {len(cells)} NUMA cells; only one can be resized.")
    for cell in cells:
        cell.set("cpus", "0" if vcpus == 1 else f"0-{vcpus - 1}")
        cell.attrib.update({"memory": str(boot_kib), "unit": "KiB"})
