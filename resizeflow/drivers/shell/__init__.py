"""The way to a host by its shell: commands that are run there."""
