"""A fleet of real libvirt hosts on one Linux machine, for tests, demonstrations and measurements."""

from lab.guest import DiskSpec, Guest, VolumeSpec
from lab.host import Host
from lab.lab import Lab
from lab.system import LabError
from lab.volumes import Volumes

__all__ = ["DiskSpec", "Guest", "Host", "Lab", "LabError", "VolumeSpec", "Volumes"]
