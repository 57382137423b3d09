"""Domain definitions read and transformed: what the operator configured stays, only what must change does.

Pure functions on libvirt's domain XML. They serve both drivers and the tasks.
"""

from resizeflow.drivers.definition.carriers import carrier
from resizeflow.drivers.definition.comparing import difference
from resizeflow.drivers.definition.disks import Placement, free_device, with_disk, with_disk_of, without_disk
from resizeflow.drivers.definition.mark import NAMESPACE, Mark, marked
from resizeflow.drivers.definition.network import Connected, connected
from resizeflow.drivers.definition.nics import plugged, with_nic_of, without_nic
from resizeflow.drivers.definition.reading import LEFT_BEHIND, Definition, Disk, Nic, read, volumes
from resizeflow.drivers.definition.resizing import resized
from resizeflow.drivers.definition.retirement import restored, retired

__all__ = [
    "LEFT_BEHIND",
    "NAMESPACE",
    "Connected",
    "Definition",
    "Disk",
    "Mark",
    "Nic",
    "Placement",
    "carrier",
    "connected",
    "difference",
    "free_device",
    "marked",
    "plugged",
    "read",
    "resized",
    "restored",
    "retired",
    "volumes",
    "with_disk",
    "with_disk_of",
    "with_nic_of",
    "without_disk",
    "without_nic",
]
