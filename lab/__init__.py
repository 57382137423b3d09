"""A fleet of real libvirt hosts on one Linux machine, for tests, demonstrations and measurements."""

from lab.guest import DiskSpec, Guest
from lab.host import Host
from lab.lab import Lab
from lab.system import LabError

__all__ = ["DiskSpec", "Guest", "Host", "Lab", "LabError"]
