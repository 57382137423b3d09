"""VLAN filtering for bridges of a kernel that was built without it (CONFIG_BRIDGE_VLAN_FILTERING).

A BPF program at each member of a bridge tags, untags and drops frames as the kernel's own filter would, by a table that
is read and changed with iproute2's words: `python -m lab.vlan_filter TABLE bridge vlan add dev tap0 vid 10 pvid
untagged`. Frames on the cables have real tags. What differs from a real one: a bridge learns addresses for all VLANs
together, a device nobody has put into a VLAN still receives (tagged frames), and a device that comes back under its old
name has to be put in again, as in the kernel.
"""
