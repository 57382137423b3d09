"""Measurements on the lab: how fast disks move, and how long a guest does not answer while it is resized."""
