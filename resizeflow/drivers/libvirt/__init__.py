"""The driver for real hosts: each is driven through its libvirt URI, from a child process of its own."""
