"""resizeflow: resize and cold migration of libvirt machines that cannot be left half done."""

__version__ = "0.1.0"
